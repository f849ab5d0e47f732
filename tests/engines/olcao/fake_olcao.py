"""A stand-in for OLCAO's scripts: reads and writes files in their layout, with made-up numbers.

It is called ``makeinput`` or ``olcao``. ``FAKE_OLCAO`` says how it goes: good, unconverged (the hole; it goes on to a
spectrum, as OLCAO does), killed, refused, memory, crashed, few-states (the spectrum is cut off), negative,
other-energy.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

HARTREE_EV = 27.211386245988
ATOM_HARTREE = {"Mg": -199.6, "O": -75.1, "C": -37.8, "N": -54.5}
TRANSITION_EV = {"O": 538.4, "C": 287.9}
OLCAO_DAT = """\
TITLE
{title}
END_TITLE
MAIN_INPUT_DATA
LAST_ITERATION
50
CONVERGENCE_TEST
0.0001
XC_CODE
{functional}
FEEDBACK_LEVEL
2
RELAXATION_FACTOR
0.2
PACS_INPUT_DATA
1                       ! Excited atom number
0.01 0.5               ! PACS delta Energy, PACS sigma factor
5 50               ! Energy slack before onset, energy window
1                    ! Number of possible core orbitals to excite
1 0 1 1 -1 ! QN_n QN_l Init1 Init2 TEDiff
OPTC_INPUT_DATA
"""


def atoms() -> list[str]:
    lines = Path("olcao.skl").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("cart "))
    return [line.split()[0] for line in lines[start + 1 : start + 1 + int(lines[start].split()[1])]]


def makeinput(mode: str, words: list[str]) -> int:
    print(f"Reading in {len(atoms())} atoms.")
    if mode == "refused":
        print("Cannot open mg for reading in the atomic basis database.")
        return 2
    assert words[-2:] == ["-atom", "1"], words
    first = atoms()[0]
    title = Path("olcao.skl").read_text().splitlines()[1]
    text = OLCAO_DAT.format(title=title, functional=words[words.index("-xccode") + 1])
    for folder in (Path.cwd().name, f"{first.lower()}_1"):
        inputs = Path(folder) / "inputs"
        inputs.mkdir(parents=True)
        (inputs / "olcao.dat").write_text(text)
        (inputs / "structure.dat").write_text("CELL_VECTORS\n")
        (inputs / "kp-pscf.dat").write_text("KPOINT_STYLE_CODE\n")
    return 0


def iterations(name: str, basis: str, energy: float, converged: bool, criterion: float) -> None:
    rows = [" Iter. Occ. Energy   El. Error    Convergence     Total Energy\n"]
    for k in range(1, 5):
        change = criterion * (10.0 ** (3.5 - k) if converged else 10.0 ** (4.5 - k))
        rows.append(f"{k:5d}{0.2:13.8f}{1e-5:13.8f}{change:13.8f}{energy + 0.01 * (4 - k):17.8f}\n")
    Path(f"{name}_iter-{basis}.dat").write_text("".join(rows))
    Path(f"{name}_main-{basis}.out").write_text(f" TOTAL ENERGY:            {energy:.10f}\n")


def value(dat: list[str], label: str, distance: int = 1) -> list[float]:
    return [float(v) for v in dat[dat.index(label) + distance].partition("!")[0].split()]


def olcao(mode: str, words: list[str]) -> int:
    import numpy as np

    basis, wide = words[words.index("-scf") + 1], words[words.index("-pscf") + 1]
    dat = Path("inputs/olcao.dat").read_text().splitlines()
    assert Path("inputs/kp-alt.dat").is_file()
    element = Path.cwd().name[0].upper()
    energy = sum(ATOM_HARTREE[t.rstrip("0123456789")] for t in atoms_above())
    transition = TRANSITION_EV[element] * (-1 if mode == "negative" else 1)
    (criterion,) = value(dat, "CONVERGENCE_TEST")
    runtime = Path("runtime")
    runtime.write_text(f"gs_main-{basis}----spin=1-----------------------------\nStart:\n")
    iterations("gs", basis, energy, True, criterion)
    if mode == "killed":
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    if mode in ("memory", "crashed"):
        word = "Error allocating coreCoreOL: Cannot allocate memory\n" if mode == "memory" else ""
        runtime.write_text(runtime.read_text() + word + "Fortran success file missing.  Exiting Script.\n")
        return 0
    iterations("1s", basis, energy + transition / HARTREE_EV, mode != "unconverged", criterion)
    step, width = value(dat, "PACS_INPUT_DATA", 2)
    slack, window = value(dat, "PACS_INPUT_DATA", 3)
    placed = abs(transition) + (12.3 if mode == "other-energy" else 0)
    start = placed - placed % slack
    energies = start + step * np.arange(int(window / step) + 1)
    above = energies - placed
    axes = np.array([1.0, 1.1, 0.9])
    end = 17.0 if mode == "few-states" else window - slack - 25.0
    shape = np.where((above > -width / 2) & (above < end), 1 + 3 * np.exp(-((above - 2) ** 2)), 0.0)
    rows = [f"{'Energy':>15}{'totalXANES':>15}{'xXANES':>15}{'yXANES':>15}{'zXANES':>15}\n"]
    for e, y in zip(energies, shape, strict=True):
        columns = y * axes * 1e-2
        rows.append("".join(f"{v:15.7E}" for v in (e, columns.mean(), *columns)) + "\n")
    Path(f"1s_pacs-{wide}.plot").write_text("".join(rows))
    runtime.write_text(runtime.read_text() + "End:\n")
    return 0


def atoms_above() -> list[str]:
    here = Path.cwd()
    os.chdir("..")
    try:
        return atoms()
    finally:
        os.chdir(here)


def main() -> int:
    assert Path(os.environ["OLCAO_TEMP"]).is_dir()
    assert {
        "OLCAO_DATA",
        "OLCAO_TAR",
        "USER",
        "VASPPOT_DIR",
    } <= os.environ.keys()  # they would not begin without
    assert os.environ["OLCAO_BIN"] in os.environ["PATH"].split(os.pathsep)
    mode = os.environ.get("FAKE_OLCAO", "good")
    return {"makeinput": makeinput, "olcao": olcao}[Path(sys.argv[0]).name](mode, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
