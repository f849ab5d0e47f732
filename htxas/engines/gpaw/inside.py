"""What runs in the user's Python, beside GPAW: one step of a calculation, without htxas.

A copy of it goes into every run directory: ``python steps.py STEP`` (``ground``, ``ion``, ``transition``) reads
``input.json`` there and leaves ``STEP.json``, written last and at once. Works with GPAW 22.8 and 26.7; of the newer one
the older implementation is taken, the only one with recursion.

Finite differences without periodic boundaries, PBE. Data sets are made here, by GPAW's generator.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

MOMENTS = 9  # of the charge whose potential is put in by hand: up to quadrupoles
CHUNK = 100  # recursions between looks at the spectrum


class Refused(Exception):
    """GPAW cannot do it so, however often it is tried."""


def main(words: list[str]) -> int:
    """Run one step; 0 if it has told how it ended."""
    step = words[0]
    told = json.loads(Path("input.json").read_text())
    result: dict[str, Any] = {"key": told["key"], "step": step}
    start = time.monotonic()
    try:
        import ase
        import gpaw
        import numpy
        import scipy
    except ImportError as error:
        result |= {"status": "no_gpaw", "message": f"{sys.executable}: {error}"}
    else:
        from gpaw.mpi import world

        result["versions"] = {m.__name__: m.__version__ for m in (gpaw, ase, numpy, scipy)}
        try:
            if world.size > 1:
                raise Refused(f"the recursion runs on one process, not on {world.size}")
            result |= {"status": "done", **STEPS[step](told, step)}
        except Refused as error:
            result |= {"status": "refused", "message": str(error)}
        except gpaw.KohnShamConvergenceError as error:
            result |= {"status": "unconverged", "message": " ".join(str(error).split())[:200]}
    result |= {"wall_s": time.monotonic() - start, "cpu_s": time.process_time()}
    partial = Path(f".{step}.json")
    partial.write_text(json.dumps(result))
    partial.replace(f"{step}.json")
    return 0


def data_set(element: str, recipe: dict[str, Any], hole: float) -> tuple[Any, dict[str, Any]]:
    """Return the PAW data set of an element with ``hole`` electrons out of its 1s shell, and what identifies it."""
    import numpy as np
    from gpaw.atom.generator import Generator

    options = {
        k: tuple(v) if isinstance(v, list) and k in ("vbar", "filter") else v for k, v in recipe.items()
    }
    corehole = (1, 0, hole) if hole else None
    generator = Generator(element, xcname="PBE", scalarrel=True, corehole=corehole, txt=None)
    name = f"htxas{round(10 * hole)}"
    made = generator.run(name=name, write_xml=False, **options)
    digest = hashlib.sha256()
    for values in (*made.phi_jg, *made.phit_jg, made.nc_g, made.nct_g, made.vbar_g):
        scale = float(np.abs(values).max()) or 1.0
        digest.update(np.rint(np.asarray(values) / scale * 1e6).astype(np.int64).tobytes())
    seen = {
        "energy_Ha": float(made.e_total),
        "valence": float(made.Nv),
        "core": float(made.Nc),
        "sha256": digest.hexdigest(),
    }
    return made, seen


def calculate(told: dict[str, Any], log: str, *, hole: float, bands: int, needed: int, ion: bool) -> Any:
    """Return the atoms with the calculator of a self-consistent state, and what its data sets are.

    Parameters
    ----------
    told
        ``input.json``.
    log
        Name of GPAW's own log.
    hole
        Electrons taken out of the absorber's 1s shell; no valence electron is added for them.
    bands, needed
        Levels that are computed, and how many of them must converge: the highest come slowly, without some to spare.
    ion
        Whether up and down may differ: a whole hole is in one of them.
    """
    from ase import Atoms
    from gpaw import CG, GPAW, RMMDIIS, Davidson, FermiDirac, Mixer, MixerSum
    from gpaw.poisson import PoissonSolver

    absorber = told["absorber"] if hole else None
    sets: dict[Any, Any] = {}
    seen = {}
    for element, recipe in told["recipes"].items():
        sets[element], seen[element] = data_set(element, recipe, 0.0)
    if absorber is not None:
        element = told["symbols"][absorber]
        sets[absorber], seen["hole"] = data_set(element, told["recipes"][element], hole)
    numerics = told["numerics"]
    mixing = {}
    if "mixing_beta" in numerics:
        mixer = MixerSum if ion else Mixer
        words = (numerics["mixing_beta"], numerics.get("mixing_ndim", 5), numerics.get("mixing_weight", 1.0))
        mixing["mixer"] = mixer(*words)
    if importlib.util.find_spec("gpaw.old") is not None:
        mixing["legacy_gpaw"] = True
    solvers = {"davidson": Davidson, "rmm-diis": RMMDIIS, "cg": CG}
    atoms: Any = Atoms(told["symbols"], told["positions_A"], cell=told["cell_A"], pbc=False)
    atoms.calc = GPAW(
        mode="fd",
        gpts=told["gpts"],
        xc="PBE",
        setups=sets,
        nbands=bands,
        spinpol=ion,
        symmetry="off",
        occupations=FermiDirac(0.0, fixmagmom=ion),
        eigensolver=solvers[numerics.get("eigensolver", "davidson")](niter=3),
        maxiter=round(told["max_iterations"] * numerics.get("iterations_factor", 1.0)),
        convergence={
            "energy": told["energy_tolerance_eV"],
            "density": told["density_tolerance"],
            "bands": needed,
        },
        poissonsolver=PoissonSolver(
            "MomentCorrectionPoissonSolver", poissonsolver=PoissonSolver("fast"), moment_corrections=MOMENTS
        ),
        txt=log,
        **mixing,
    )
    atoms.get_potential_energy()
    return atoms, seen


def state(atoms: Any, seen: dict[str, Any]) -> dict[str, Any]:
    """Return what every step tells of its self-consistent state.

    GPAW's energies are counted from its data sets' atoms, which differ with a hole; all-electron ones do not.
    """
    calc = atoms.calc
    spins = calc.get_number_of_spins()
    return {
        "converged": bool(calc.scf.converged),
        "iterations": int(calc.get_number_of_iterations()),
        "energy_eV": float(atoms.get_potential_energy() + calc.get_reference_energy()),
        "levels_eV": [calc.get_eigenvalues(spin=s).tolist() for s in range(spins)],
        "occupations": [calc.get_occupation_numbers(spin=s).tolist() for s in range(spins)],
        "gpts": [int(n) for n in calc.wfs.gd.N_c],
        "data_sets": seen,
    }


def ground(told: dict[str, Any], step: str) -> dict[str, Any]:
    """Compute the state without a hole, its dipole moment, and its levels on the functions of its atoms."""
    from ase.units import Debye

    bands = told["occupied"] + told["empty_bands"]
    atoms, seen = calculate(told, f"{step}.txt", hole=0.0, bands=bands + 10, needed=bands, ion=False)
    found = state(atoms, seen)
    found["dipole_D"] = (atoms.get_dipole_moment() / Debye).tolist()
    found["shares"] = shares(atoms.calc)
    return found


def shares(calc: Any) -> Any:
    """Return squared projections on the atoms' orthogonalised valence functions, [level][atom][s, p, d]."""
    import numpy as np
    from gpaw.lcao.projected_wannier import get_lcao_projections_HSP

    projected, _, overlaps, _ = get_lcao_projections_HSP(calc, projectionsonly=False)
    values, vectors = np.linalg.eigh(overlaps[0])
    # Lowdin: the functions that are orthogonal to each other and nearest to the atoms'
    orthogonal = projected[0] @ (vectors / np.sqrt(values)) @ vectors.T
    where = [
        (atom, function.get_angular_momentum_number())
        for atom, setup in enumerate(calc.wfs.setups)
        for function in getattr(setup, "basis_functions_J", None) or setup.phit_j  # GPAW 22.8 calls them so
        for _ in range(2 * function.get_angular_momentum_number() + 1)
    ]
    weights = np.zeros((len(orthogonal), len(calc.wfs.setups), 3))
    for column, (atom, momentum) in zip(orthogonal.T, where, strict=True):
        weights[:, atom, momentum] += np.abs(column) ** 2
    return weights.tolist()


def ion(told: dict[str, Any], step: str) -> dict[str, Any]:
    """Compute the state with a whole hole and nothing in return."""
    occupied = told["occupied"]
    atoms, seen = calculate(told, f"{step}.txt", hole=1.0, bands=occupied + 2, needed=occupied, ion=True)
    return state(atoms, seen)


def transition(told: dict[str, Any], step: str) -> dict[str, Any]:
    """Compute the state with half a hole, and the recursion from its three dipole vectors."""
    occupied = told["occupied"]
    atoms, seen = calculate(told, f"{step}.txt", hole=0.5, bands=occupied + 6, needed=occupied + 1, ion=False)
    found = state(atoms, seen)
    if found["converged"]:
        start = time.monotonic()
        try:
            found["recursion"] = recurse(atoms.calc, told, found["levels_eV"][0][occupied])
        except ArithmeticError as error:  # the overlap of a coarse grid is not inverted by its iteration
            raise Refused(f"the grid is too coarse for the recursion: {error}") from error
        found["recursion_s"] = time.monotonic() - start
    return found


def recurse(calc: Any, told: dict[str, Any], first_eV: float) -> dict[str, Any]:
    """Return the tridiagonal matrices (Ha) that start at the dipole vectors, and the squares of these (bohr^2)."""
    import numpy as np
    from ase.units import Hartree
    from gpaw.overlap import Overlap
    from gpaw.xas import RecursionMethod

    limit = round(told["max_recursions"] * told["numerics"].get("recursions_factor", 1.0))
    sigma = told["resolution_eV"]
    grid = np.arange(first_eV - 3 * sigma, first_eV + told["window_eV"] + sigma / 2, sigma / 4)
    before, change = None, float("inf")
    with contextlib.redirect_stdout(io.StringIO()):  # it counts aloud
        method = RecursionMethod(calc)
        # vectors of our own: those of GPAW 22.8 are sqrt(3) times as long as they should be
        method.w_ucG[0] = 0.0
        start = calc.wfs.pt.dict(3, zero=True)
        start[told["absorber"]] = dipole_vectors(calc.wfs.setups[told["absorber"]])
        calc.wfs.pt.add(method.w_ucG[0], start, 0)
        # <v|S^-1|v> of the vector v it starts from, which it normalises and forgets
        method.overlap = Overlap()
        method.solve(method.w_ucG[0], method.z_cG, 0)
        squares = calc.wfs.gd.integrate(method.z_cG * method.w_ucG[0])
        while True:
            method.run(CHUNK)
            diagonals, besides = method.a_uci[0].real, method.b_uci[0, :, 1:].real
            if not (np.isfinite(diagonals).all() and np.isfinite(besides).all()):
                raise FloatingPointError("the recursion broke down")
            spectra = np.array(
                [
                    n * broadened(a, b, grid / Hartree, sigma / Hartree, (first_eV - sigma / 4) / Hartree)
                    for n, a, b in zip(squares, diagonals, besides, strict=True)
                ]
            )
            if before is not None:
                change = float(np.abs(spectra - before).sum() / spectra.sum())
            before = spectra
            if change < told["recursion_tolerance"] or len(diagonals[0]) + CHUNK > limit:
                break
    return {
        "squares_a02": squares.tolist(),
        "diagonals_Ha": diagonals.tolist(),
        "besides_Ha": besides.tolist(),
        "change": change,
        "converged": change < told["recursion_tolerance"],
    }


def dipole_vectors(setup: Any) -> Any:
    """Return <1s|r_a|phi_i> of the partial waves of a data set with a hole in its 1s shell, bohr, shape (3, i).

    Both in real spherical harmonics: ``r_a`` is ``r sqrt(4 pi / 3)`` times that of p_a, so that the integral over
    angles is 1/sqrt(3) for p_a, and 0 for all else.
    """
    import numpy as np

    data = setup.data
    r, dr = data.rgd.r_g, data.rgd.dr_g
    vectors = np.zeros((3, setup.ni))
    column = 0
    for momentum, wave in zip(data.l_j, data.phi_jg, strict=True):
        if momentum == 1:
            radial = float(np.sum(r**3 * wave * data.phicorehole_g * dr))
            for place, axis in enumerate((1, 2, 0)):  # GPAW's p functions are y, z, x
                vectors[axis, column + place] = radial / np.sqrt(3)
        column += 2 * momentum + 1
    assert column == setup.ni
    return vectors


def broadened(diagonal: Any, beside: Any, grid: Any, sigma: float, least: float) -> Any:
    """Return the spectrum of a tridiagonal matrix above ``least``, with Gaussians; all in one unit."""
    import numpy as np
    from scipy.linalg import eigh_tridiagonal

    values, vectors = eigh_tridiagonal(diagonal, beside)
    kept = (values >= least) & (values <= grid[-1] + 5 * sigma)
    distance = (grid[:, None] - values[kept]) / sigma
    return np.exp(-0.5 * distance**2) @ vectors[0, kept] ** 2


STEPS = {"ground": ground, "ion": ion, "transition": transition}

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(sys.argv[1:]))
