"""A stand-in for VASP: reads INCAR, POSCAR, KPOINTS and POTCAR, writes files in VASP's layout with made-up numbers.

The strength of its transitions is such that the spectrum is 1.3 times the bare atom's on average, flat in energy.
``FAKE_VASP`` says how it ends: good, unconverged, killed, refused, memory, disk, silent, crashed, no-hole,
other-potcar, old (VASP 6.1), blind (without a spectrum), dark (a spectrum a hundred times too weak). ``FAKE_VASP_IN``
limits that to folders of one name.
"""

from __future__ import annotations

import math
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from synthetic import Run, outcar, vasprun

BOHR_A, HARTREE_EV = 0.529177210903, 27.211386245988
CORE_EV = {"C": 276.0, "O": 520.0, "Mg": 1250.0}  # levels are counted from it
JUMP = {"C": 2.34 / 284.2, "O": 2.32 / 543.1, "Mg": 2.28 / 1303.0}  # oscillator strength per eV
AXES = np.array([0.9, 1.0, 1.1]) * 1.3
BOX = """\
 -----------------------------------------------------------------------------
|                                                                             |
|     EEEEEEE  RRRRRR   RRRRRR   OOOOOOO  RRRRRR      ###     ###     ###     |
|     E        R     R  R     R  O     O  R     R     ###     ###     ###     |
|                                                                             |
|     The number of species in POSCAR and POTCAR differ                       |
|                                                                             |
|       ---->  I REFUSE TO CONTINUE WITH THIS SICK JOB ... BYE!!! <----       |
|                                                                             |
 -----------------------------------------------------------------------------
"""


def main() -> int:
    here = Path.cwd()
    mode = os.environ.get("FAKE_VASP", "good")
    if os.environ.get("FAKE_VASP_IN", here.name) != here.name:
        mode = "good"
    incar = dict(line.split(" = ", 1) for line in (here / "INCAR").read_text().splitlines())
    poscar = (here / "POSCAR").read_text().splitlines()
    lattice = np.array([[float(x) for x in line.split()] for line in poscar[2:5]])
    species = list(zip(poscar[5].split(), map(int, poscar[6].split()), strict=True))
    atoms = sum(n for _, n in species)
    fractional = np.array([[float(x) for x in line.split()] for line in poscar[8 : 8 + atoms]])
    divisions = [int(x) for x in (here / "KPOINTS").read_text().splitlines()[3].split()]
    text = (here / "POTCAR").read_text()
    titels = [t.strip() for t in re.findall(r"TITEL\s*=\s*(.*)", text)]
    zval = [float(z) for z in re.findall(r"ZVAL\s*=\s*([\d.]+)", text)]
    print(" running    1 mpi-ranks, on    1 nodes")
    if len(titels) != len(species) or mode == "refused":
        print(BOX)
        return 1
    electrons = sum(z * n for z, (_, n) in zip(zval, species, strict=True))
    hole = incar.get("ICORELEVEL") == "2"
    pairs = round(electrons) // 2
    bands = int(incar["NBANDS"])
    points = max(1, (math.prod(divisions) + 1) // 2)
    random = np.random.default_rng(11)
    levels = np.concatenate([np.linspace(-18, 1, pairs), np.linspace(6.0, 33.0, bands - pairs)])
    levels = levels[None] + random.uniform(0, 0.2, (points, 1))
    occupations = np.zeros((points, bands))
    occupations[:, :pairs] = 1.0
    if hole and mode != "no-hole" and float(incar.get("NELECT", electrons + 1)) > electrons:
        occupations[:, pairs] = 0.5
    run = Run(
        title=incar["SYSTEM"],
        lattice=lattice,
        fractional=fractional,
        species=species,
        titels=[t.replace("2000", "1999") for t in titels] if mode == "other-potcar" else titels,
        weights=np.full(points, 1 / points),
        levels=levels,
        occupations=occupations,
        energy=-6.0 * atoms - (3.2 + 0.1 * fractional[0].sum() if hole else 0.0),
        entropy=0.07 if hole else 0.0,
        fermi=6.1 if hole else 3.5,
        version="6.1.0" if mode == "old" else "6.4.2",
        nelm=int(incar["NELM"]),
        steps=int(incar["NELM"]) if mode == "unconverged" else 12,
        converged=mode != "unconverged",
        incar={k: v for k, v in incar.items() if k in ("SYSTEM", "ALGO", "PREC")},
    )
    if "LORBIT" in incar:
        shares = random.uniform(0.2, 1.0, (points, bands, atoms, 4))
        shares[..., 3] *= 0.01
        held = np.where(np.arange(bands) < pairs, 0.7, 0.2)[None, :, None, None]
        run.projections = held * shares / shares.sum(axis=(2, 3), keepdims=True)
        run.projections[0, 0] *= 1.6  # spheres that overlap
    if incar.get("CH_LSPEC") == ".TRUE." and mode != "blind":
        volume = abs(np.linalg.det(lattice)) / BOHR_A**3
        amplified = float(incar["CH_AMPLIFICATION"]) * (0.01 if mode == "dark" else 1.0)
        run.table = spectrum(levels[:, pairs:], species[0][0], volume, incar) * np.r_[1, [amplified] * 6]
    whole = outcar(run)
    if mode in ("killed", "memory", "disk", "silent", "crashed"):
        (here / "OUTCAR").write_text(whole[: whole.index("Iteration      1(   7)") + 60])
        if mode == "killed":
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        said = {
            "memory": "forrtl: severe (41): insufficient virtual memory",
            "disk": "forrtl: No space left on device",
            "crashed": "Error EDDDAV: Call to ZHEGV failed. Returncode = 12 1 24",
        }
        print(said.get(mode, ""))
        return 0 if mode == "silent" else 1
    (here / "OUTCAR").write_text(whole)
    (here / "vasprun.xml").write_text(vasprun(run))
    (here / "vaspout.h5").write_text(text)  # the genuine one has the POTCAR in it
    return 0


def spectrum(levels: np.ndarray, element: str, volume: float, incar: dict[str, str]) -> np.ndarray:
    """Return energies and the tensor: each transition a Gaussian as VASP's (``exp(-(x / sigma)^2)``)."""
    sigma, n = float(incar["CH_SIGMA"]), int(incar["CH_NEDOS"])
    transitions = levels + CORE_EV[element]
    grid = np.linspace(transitions.min() - 2.0, transitions.max() + 8.0, n)
    spacing = np.diff(levels, axis=1).mean()
    density = np.zeros(n)
    for energy in transitions.ravel():
        density += np.exp(-(((grid - energy) / sigma) ** 2)) / (sigma * math.sqrt(math.pi)) / len(levels)
    strength = JUMP[element] * spacing * density[:, None] * AXES  # per eV
    imaginary = 2 * math.pi**2 * strength * HARTREE_EV / (grid[:, None] / HARTREE_EV) / volume
    return np.column_stack([grid, imaginary, 0.1 * imaginary])


if __name__ == "__main__":
    sys.exit(main())
