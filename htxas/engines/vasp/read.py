"""From a directory VASP has run in to a result, or to the one cause why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.calculation import Calculation, Convergence, Kind
from htxas.domain.dos import ANGULAR, Pdos
from htxas.domain.result import CurveResult, GroundResult, Provenance
from htxas.domain.spectrum import Curve
from htxas.domain.units import BOHR_A
from htxas.engines.base import Job
from htxas.engines.external import exhausted, log_tail
from htxas.engines.vasp.outcar import Log, OutputError, complaint, read_log, read_table
from htxas.engines.vasp.parameters import Ground, ground_from, hole_from
from htxas.engines.vasp.spectrum import absorption
from htxas.engines.vasp.vasprun import Run, read_run
from htxas.engines.vasp.write import Layout, lay_out, title
from htxas.errors import Cause, EngineFailure

__all__ = ["GROUND", "OUTPUT", "bad", "energy_of", "ground_key", "ground_result", "site_result"]

OUTPUT = "vasp.out"
"""What VASP prints."""
GROUND = "ground"
"""Folder of a site's ground state if nobody has it any more."""
_FIRST_RIGHT = (6, 2)
_SAME_PLACE = 1e-5  # of a lattice vector: vasprun.xml has eight decimals
_SAME_EV = 1e-4
_ELECTRON_ERROR = 0.02  # occupations have four decimals
_MOST_F = 0.2  # of an occupied level: more is a state that s, p and d do not show
_OWN_AXIS = (
    "levels minus the core level, VASP's own axis: absolute energies and shifts between sites mean nothing"
)
_ZERO = "average potential of the cell"


def bad(cause: Cause, message: str, folder: Path, **evidence: Any) -> EngineFailure:
    """Return a failure with the end of the logs."""
    tails = {"log_tail": "OUTCAR", "output_tail": OUTPUT}
    found = {name: tail for name, file in tails.items() if (tail := log_tail(_text(folder / file)))}
    return EngineFailure(cause, message, evidence={**found, **evidence}, where=str(folder))


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""


def ground_key(job: Job) -> str:
    """Return the key of the ground state that a site's cell has without the hole, as its own folder has it."""
    c = job.calculation
    if c.kind is Kind.GROUND:
        return c.key
    return Calculation(Kind.GROUND, c.structure_key, c.engine, c.parameters["ground"]).key


@dataclass(frozen=True, slots=True)
class _State:
    """A self-consistent state that was read."""

    log: Log
    text: str
    run: Run


def _state(folder: Path, key: str, layout: Layout, ground: Ground, *, projected: bool = False) -> _State:
    """Return the self-consistent state of a run, or say why there is none."""
    text, printed = _text(folder / "OUTCAR"), _text(folder / OUTPUT)
    log = read_log(text)
    if not log.finished:
        said = printed + "\n" + text[-20_000:]
        cause = exhausted(said)
        if cause is not None:
            full = "the disk is full" if cause is Cause.DISK_FULL else "it got no memory"
            raise bad(cause, f"VASP ended: {full}", folder)
        words = complaint(said)
        if words and not log.iterations:
            raise bad(Cause.BAD_INPUT, f"VASP refuses the input: {words}", folder)
        where = f"in step {log.iterations} of self-consistency" if log.iterations else "before it began"
        raise bad(Cause.ENGINE_CRASH, f"VASP ended {where}{f': {words}' if words else ''}", folder)
    if log.convergence is Convergence.UNCONVERGED:
        raise bad(
            Cause.SCF_UNCONVERGED, f"self-consistency did not converge in {log.iterations} steps", folder
        )
    if log.system != title(key):
        raise bad(Cause.BAD_OUTPUT, f"OUTCAR is of {log.system!r}, not of calculation {key}", folder)
    try:
        run = read_run(folder / "vasprun.xml", projected=projected)
        _refuse_other(run, key, layout, ground)
        if log.energy_eV is None or abs(run.energy_eV - log.energy_eV) > _SAME_EV:
            raise OutputError(f"vasprun.xml has the energy {run.energy_eV:.6f} eV, OUTCAR {log.energy_eV}")
    except OutputError as error:
        raise bad(Cause.BAD_OUTPUT, str(error), folder) from None
    return _State(log, text, run)


def _refuse_other(run: Run, key: str, layout: Layout, ground: Ground) -> None:
    if run.system.lower() != title(key):  # pymatgen may capitalise words
        raise OutputError(f"vasprun.xml is of {run.system!r}, not of calculation {key}")
    symbols = tuple(layout.cell.symbols[i] for i in layout.order)
    wanted = layout.cell.positions_A[list(layout.order)] @ np.linalg.inv(layout.cell.cell_A)
    if run.symbols != symbols:
        raise OutputError("vasprun.xml has other atoms, or in another order")
    apart = run.fractional - wanted
    volume_A3 = layout.volume_a03 * BOHR_A**3
    if np.abs(apart - np.round(apart)).max() > _SAME_PLACE or abs(run.volume_A3 / volume_A3 - 1) > 1e-4:
        raise OutputError("vasprun.xml has its atoms elsewhere")
    titels = tuple(ground.potcars[element].titel for element, _ in layout.species)
    if tuple(" ".join(t.split()) for t in run.titels) != tuple(" ".join(t.split()) for t in titels):
        raise OutputError(
            f"VASP read the POTCARs {', '.join(run.titels)}; the calculation has {', '.join(titels)}"
        )
    if abs(run.electrons - layout.electrons) > _ELECTRON_ERROR:
        raise OutputError(f"VASP had {run.electrons:g} electrons, the calculation has {layout.electrons:g}")


def energy_of(folder: Path, key: str) -> float | None:
    """Return the total energy (eV, of the cell) by ``OUTCAR`` of a run of ``key`` that converged; else None."""
    log = read_log(_text(folder / "OUTCAR"))
    done = log.finished and log.convergence is Convergence.CONVERGED and log.system == title(key)
    return log.energy_eV if done else None


def ground_result(job: Job, folder: Path, provenance: Provenance) -> GroundResult:
    """Return a ground state.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, OUT_OF_MEMORY, DISK_FULL, ENGINE_CRASH, BAD_INPUT or BAD_OUTPUT.
    """
    ground = ground_from(job.calculation.parameters)
    layout = lay_out(job.structure, ground)
    state = _state(folder, job.calculation.key, layout, ground, projected=True)
    try:
        homo, lumo = state.run.frontier_eV(layout.pairs)
        pdos = _pdos(state.run, layout, len(job.structure), provenance.extra)
    except OutputError as error:
        raise bad(Cause.BAD_OUTPUT, str(error), folder) from None
    return GroundResult(
        convergence=state.log.convergence,
        total_energy_eV=state.run.energy_eV / layout.cell.copies,
        homo_eV=homo,
        lumo_eV=lumo,
        dipole_D=None,
        pdos=pdos,
        provenance=provenance,
        reference=_ZERO,
    )


def _pdos(run: Run, layout: Layout, atoms: int, told: dict[str, Any]) -> Pdos:
    """Return levels and what of them is in the spheres of the atoms.

    The spheres (PAW's) leave room between them and may overlap: of genuine levels they held 0.24 to 1.14. One that they
    count more than once is brought down to 1; how much there was of the fullest and of the emptiest occupied level is
    told. States of f are left out.
    """
    assert run.projections is not None
    full = np.arange(run.levels_eV.shape[1]) < layout.pairs
    f_states = float(run.projections[:, full, :, 3:].sum(axis=(2, 3)).max(initial=0.0))
    if f_states > _MOST_F:
        raise OutputError(f"an occupied level is {f_states:.0%} f; the densities of states know s, p and d")
    held = run.projections[..., :3].sum(axis=(2, 3))
    told |= {
        "most_in_spheres": round(float(held.max()), 3),
        "least_in_spheres": round(float(held[:, full].min()), 3),
    }
    shares = np.maximum(run.projections[..., :3], 0.0) / np.maximum(held, 1.0)[..., None, None]
    points, count = run.levels_eV.shape
    weights = np.zeros((points, count, atoms, len(ANGULAR)))
    for place, index in enumerate(layout.order):
        weights[:, :, layout.cell.origin[index]] += shares[:, :, place]
    levels = run.levels_eV.ravel()
    order = np.argsort(levels, kind="stable")
    share = np.repeat(run.weights / layout.cell.copies, count)
    return Pdos(
        energies_eV=levels[order],
        occupations=np.where(np.tile(full, points), 2.0, 0.0)[order],
        weights=weights.reshape(points * count, atoms, len(ANGULAR))[order],
        shares=None if points * layout.cell.copies == 1 else share[order],
        complete=False,
        complete_to_eV=float(run.levels_eV.max(axis=1).min()),
        spheres=True,
    )


def site_result(job: Job, folder: Path, outcome: Mapping[str, Any], provenance: Provenance) -> CurveResult:
    """Return the spectrum of a site.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, OUT_OF_MEMORY, DISK_FULL, ENGINE_CRASH, BAD_INPUT or BAD_OUTPUT.
    """
    c = job.calculation
    ground, hole = ground_from(c.parameters["ground"]), hole_from(c.parameters["hole"])
    layout = lay_out(job.structure, ground, c.atom, electron=hole.electron)
    state = _state(folder, c.key, layout, ground)
    if state.log.release < _FIRST_RIGHT:
        raise bad(
            Cause.BAD_OUTPUT,
            f"VASP {state.log.version} has no core-level spectra, or wrong ones (see htxas.engines.vasp.outcar)",
            folder,
            needs="VASP 6.2 or later",
        )
    total = _totals(job, outcome, state.run.energy_eV, layout, folder)
    assert c.element is not None
    assert c.edge is not None
    try:
        _, lowest = state.run.frontier_eV(layout.pairs)
        energies, table = read_table(state.text)
        found = absorption(
            energies,
            table,
            volume_a03=layout.volume_a03,
            element=c.element,
            edge=c.edge,
            complete_eV=float(state.run.levels_eV.max(axis=1).min()) - lowest,
            window_eV=hole.window_eV,
            broadening_eV=hole.broadening_eV,
        )
    except OutputError as error:
        raise bad(Cause.BAD_OUTPUT, str(error), folder) from None
    provenance.extra.update({"total_energies_eV": total, "threshold_on_vasp_axis_eV": found.threshold_eV})
    own = f"VASP {state.log.version}, full hole, electron {hole.electron}: "
    shift, scale = 0.0, own + _OWN_AXIS
    if hole.reference_eV is not None:
        shift = total["excited"] - total["ground"] + hole.reference_eV - found.threshold_eV
        scale = f"{own}first peak at the difference of total energies plus {hole.reference_eV:g} eV (reference_eV)"
    curve = found.curve
    return CurveResult(
        convergence=state.log.convergence,
        curve=Curve(curve.energies_eV + shift, curve.intensity),
        background=found.background,
        edge_eV=found.threshold_eV + shift,
        fermi_eV=state.run.fermi_eV,
        lifetime_eV=0.0,
        normalisation=(
            f"1 is the bare atom's K jump, {found.jump:.4g} of oscillator strength per eV; the threshold is the first "
            f"peak; a Gaussian of CH_SIGMA = {hole.broadening_eV:g} eV is in it"
        ),
        scale=scale,
        doubts=found.doubts,
        dos=None,
        provenance=provenance,
    )


def _totals(
    job: Job, outcome: Mapping[str, Any], excited_eV: float, layout: Layout, folder: Path
) -> dict[str, float]:
    """Return the total energies of the cell with the hole and without, eV."""
    told = outcome.get("ground")
    if told is None or told["from"] == GROUND:
        ground = ground_from(job.calculation.parameters["ground"])
        again = _state(folder / GROUND, ground_key(job), lay_out(job.structure, ground), ground)
        if told is None or abs(again.run.energy_eV / layout.cell.copies - told["energy_eV"]) > _SAME_EV:
            raise bad(
                Cause.BAD_OUTPUT, "the ground state is not the one that the run tells of", folder / GROUND
            )
    return {"ground": float(told["energy_eV"]) * layout.cell.copies, "excited": excited_eV}
