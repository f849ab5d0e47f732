"""A stand-in for CASTEP: reads ``seed.cell`` and ``seed.param``, writes files in CASTEP's layout with made-up numbers.

``FAKE_CASTEP`` says how it ends: good, unconverged, killed, cut (SIGTERM in the middle of the spectrum), refused,
memory, disk, silent, legacy, no-hole, other-string, levels (not converged), no-elements (of the matrix), few (levels).
``FAKE_CASTEP_SEED`` limits that to one seed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from synthetic import Run, bands_text, eels_mat, elnes_bin, log_text, pdos_bin

BOHR_A, HARTREE_EV = 0.529177210903, 27.211386245988
AE = {"H": -12.5, "F": -2713.0, "C": -1027.6, "N": -1479.0, "O": -2039.9, "Mg": -5427.0}
PA = {"H": -12.4, "F": -650.0, "C": -145.9, "N": -264.0, "O": -428.0, "Mg": -1690.0}
Z = {"H": 1, "F": 9, "C": 6, "N": 7, "O": 8, "Mg": 12}
CORE = {"H": 0, "F": 2, "C": 2, "N": 2, "O": 2, "Mg": 2}
TASKS = {"coreloss": "core loss (EELS, XANES, etc)", "dos": "density of states"}
HOLE = {"C": 330.0, "O": 585.0}  # less bound with the hole, all electrons minus pseudo


def block(text: str, name: str) -> list[list[str]]:
    body = text.split(f"%BLOCK {name}\n")[1].split(f"%ENDBLOCK {name}")[0]
    return [line.split() for line in body.splitlines() if line.strip() not in ("", "ANG")]


def main() -> int:
    seed = sys.argv[1]
    mode = os.environ.get("FAKE_CASTEP", "good")
    if os.environ.get("FAKE_CASTEP_SEED", seed) != seed:
        mode = "good"
    folder = Path.cwd()
    param = dict(
        line.split(" : ", 1) for line in (folder / f"{seed}.param").read_text().splitlines() if " : " in line
    )
    text = (folder / f"{seed}.cell").read_text()
    if mode == "refused":
        (folder / f"{seed}.0001.err").write_text(
            "Error in cell_read: unrecognised keyword\n Current trace stack:\n cell_read\n castep\n"
        )
        (folder / f"{seed}.castep").write_text(" | Welcome to Academic Release CASTEP version 20.1 |\n")
        return 1
    lattice = np.array([[float(x) for x in row] for row in block(text, "LATTICE_CART")])
    atoms = block(text, "POSITIONS_ABS")
    strings = {row[0]: row[1] for row in block(text, "SPECIES_POT")}
    divisions = [int(x) for x in text.split("KPOINTS_MP_GRID : ")[1].splitlines()[0].split()]
    order = list(dict.fromkeys(a[0] for a in atoms))
    atoms = sorted(atoms, key=lambda a: order.index(a[0]))  # CASTEP groups them by species
    labels = [a[0] for a in atoms]
    fractional = np.array([[float(x) for x in a[1:]] for a in atoms]) @ np.linalg.inv(lattice) % 1.0
    elements = [label.split(":")[0] for label in labels]
    holes = [label for label in labels if ":" in label]
    hole = holes[0].split(":")[0] if holes else None
    electrons = sum(Z[e] - CORE[e] for e in elements) + len(holes)
    ae = {s: AE[s.split(":")[0]] for s in strings}
    pa = {s: PA[s.split(":")[0]] for s in strings}
    configurations = dict.fromkeys(strings, "1s2 2s2 2p2")
    final = sum(PA[e] for e in elements) - 5.0 * len(elements)
    for s in holes:
        configurations[s] = "1s2 2s2 2p2" if mode == "no-hole" else "1s1 2s2 2p2"
        pa[s] -= 60.0
        ae[s] += HOLE[hole] - 45.0
        final -= 60.0 - 0.9
    strings = {s: "2|1.0|20|23|26|20:21(qc=8)" if t == "C9" else t for s, t in strings.items()}
    if mode == "other-string":
        strings[labels[-1]] = "2|1.0|10|12|13|20:21(qc=7)"
    run = Run(
        title=param["COMMENT"],
        labels=labels,
        fractional=fractional,
        strings=strings,
        all_electron_eV=ae,
        pseudo_eV=pa,
        configurations=configurations,
        final_eV=final,
        entropy_eV=0.1128 if holes and electrons % 2 else 0.0,
        electrons=electrons,
        cutoff_eV=float(param["CUT_OFF_ENERGY"].split()[0]),
        converged=mode != "unconverged",
        task=TASKS[param["SPECTRAL_TASK"]] if param["TASK"] == "SPECTRAL" else None,
        after="Warning: band structure not converged" if mode == "levels" else "",
    )
    whole_log = log_text(run)
    if mode == "no-elements":
        whole_log = "".join(x for x in whole_log.splitlines(keepends=True) if "matrix elements" not in x)
    log = folder / f"{seed}.castep"
    if mode in ("killed", "memory", "disk", "silent"):
        log.write_text(whole_log[: whole_log.index("      5  ") + 30])
        if mode == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "memory":
            (folder / f"{seed}.0001.err").write_text("Error in allocating wvfn in wave_allocate\n")
        if mode == "disk":
            print("forrtl: No space left on device")
        return 0 if mode == "silent" else 1
    if mode == "cut":
        log.write_text(whole_log[: whole_log.index("  Starting k-point") + 10])
        os.kill(os.getpid(), signal.SIGKILL)
    log.write_text(whole_log)
    if run.task is None:
        return 0
    spectrum(folder, seed, mode, run, lattice, divisions, int(param["SPECTRAL_NEXTRA_BANDS"]), holes)
    return 0


def spectrum(folder, seed, mode, run, lattice, divisions, extra, holes) -> None:
    random = np.random.default_rng(7)
    points = int(np.prod(divisions))
    kpoints = random.uniform(-0.5, 0.5, (points, 3)) if points > 1 else np.zeros((1, 3))
    full = int(run.electrons) // 2
    bands = full + extra
    top = 10.0 if mode == "few" else 21.5
    base = np.concatenate([np.linspace(-20, -8, full), np.linspace(-2.0, top, bands - full)])
    levels = (base[None] + random.uniform(0, 0.1, (points, 1))) / HARTREE_EV
    fermi = -2.0 / HARTREE_EV if run.electrons % 2 else -5.0 / HARTREE_EV
    weights = np.full(points, 1 / points)
    (folder / f"{seed}.bands").write_text(
        bands_text(kpoints, weights, levels, run.electrons, fermi, lattice / BOHR_A)
    )
    species = list(dict.fromkeys(run.labels))
    places = []
    for label in run.labels:
        places.append((species.index(label) + 1, sum(p[0] == species.index(label) + 1 for p in places) + 1))
    if holes:
        orbitals = [(s, r, 1, 1) for s, r in places if not run.labels[places.index((s, r))].startswith("H")]
        size = (points, len(orbitals), bands, 3)
        elements = random.normal(size=size) * 0.002 * (1 + 1j)
        writer, end = (eels_mat, "eels_mat") if mode == "legacy" else (elnes_bin, "elnes_bin")
        writer(folder / f"{seed}.{end}", orbitals, elements)
        return
    orbitals = [(s, r, 0) for s, r in places] + [(s, r, 1) for s, r in places for _ in range(3)]
    shares = random.uniform(0.5, 1.0, (points, bands, len(orbitals)))
    shares *= np.where(base < -5, 0.99, 0.1)[None, :, None] / shares.sum(axis=2, keepdims=True)
    shares[:, -1, 0] = -1e-3  # a little below zero, as in genuine ones
    pdos_bin(folder / f"{seed}.pdos_bin", orbitals, kpoints, shares)


if __name__ == "__main__":
    sys.exit(main())
