"""A stand-in for WIEN2k's scripts: reads and writes files in their layout, with made-up numbers.

It is called ``init_lapw``, ``run_lapw`` or ``x_lapw``, in the folder of a case, as those are. ``FAKE_WIEN2K`` says how
it goes: good, complex, metal, unconverged, silent (run_lapw says nothing of its end), killed, refused, memory, ghost,
warned, cut-basis, merged, moved, other-mesh, stubborn (it computes without the hole), spheres, no-spectrum, few-bands,
new (as WIEN2k 23 words it). ``FAKE_WIEN2K_CASE`` limits that to one case.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

RYDBERG_EV = 13.605693122994
Z_CORE = {1: 0, 8: 2, 12: 2, 6: 2, 7: 2, 14: 10}
ATOM_RY = {6: -76.0, 7: -109.9, 8: -150.4, 12: -400.6, 14: -580.1}
TRANSITION_EV = {6: 288.5, 8: 537.25, 12: 1308.0}
VERSION = "using WIEN2k_19.1 (Release 25/6/2019) in /opt/wien2k"


def atoms_of(struct: str) -> list[tuple[str, str, int]]:
    """Return the line of the position, the name's line and the atomic number of each atom."""
    lines = struct.splitlines()
    found = []
    for index, line in enumerate(lines):
        if "NPT=" in line:
            found.append((lines[index - 2], line, round(float(line.split("Z:")[1]))))
    return found


def init_lapw(case: str, mode: str, words: list[str]) -> int:
    struct = Path(f"{case}.struct").read_text()
    print(f"  init_lapw {' '.join(words)}")
    if mode == "refused":
        Path("nn.error").write_text("Error in NN\n 'NN' - overlapping spheres\n")
        print("error: command   nn nn.def   failed")
        return 9
    lines, atoms = struct.splitlines(), atoms_of(struct)
    number = lambda a: a[2]  # noqa: E731
    if mode == "merged":
        atoms = atoms[:-1]
    first = atoms[0]
    others = {z: [a for a in atoms[1:] if number(a) == z] for z in dict.fromkeys(map(number, atoms[1:]))}
    if first[1][2] != "1" and number(first) in others:  # a label splits it off
        others[number(first)].insert(0, first)
        groups = sorted(others.values(), key=lambda g: first not in g)
    else:
        groups = [[first], *others.values()]
    made = [lines[0], f"{lines[1][:4]}LATTICE,NONEQUIV.ATOMS:{len(groups):3d} 99 P1", *lines[2:4]]
    for index, group in enumerate(groups, 1):
        for n, (place, _, _) in enumerate(group):
            head = "ATOM" if n == 0 else "    "
            if mode == "moved":
                place = re.sub(r"X=0\.\d", "X=0.2", place)
            made.append(f"{head}{-index:4d}{place[8:]}")
            if n == 0:
                made.append(f"          MULT={len(group):2d}          ISPLIT= 8")
        radius = 1.95 if mode == "spheres" else 1.90
        name = group[0][1][:2].ljust(2) + str(index)
        made.append(f"{name:<10} NPT=  781  R0=0.00010000 RMT= {radius:.2f}        Z:{number(group[0]):5.1f}")
        made += [
            "LOCAL ROT MATRIX:    1.0000000 0.0000000 0.0000000",
            "                     0.0000000 1.0000000 0.0000000",
            "                     0.0000000 0.0000000 1.0000000",
        ]
    made += ["   1      NUMBER OF SYMMETRY OPERATIONS", " 1 0 0 0.00000000", " 0 1 0 0.00000000"]
    made += [" 0 0 1 0.00000000", "       1"]
    Path(f"{case}.struct").write_text("\n".join(made) + "\n")
    valence = sum(number(a) - Z_CORE[number(a)] for a in atoms)
    c = "c" if mode == "complex" else ""
    inc = []
    for group in groups:
        shells = ["1,-1,2", "2,-1,2", "2, 1,2", "2,-2,4"][: 1 if Z_CORE[number(group[0])] == 2 else 4]
        inc.append(f"{len(shells):2d} 0.00  0  NUMBER OF ORBITALS (EXCLUDING SPIN), SHIFT, IPRINT")
        inc += [f"{s}               ( N,KAPPA,OCCUP)" for s in shells]
    Path(f"{case}.inc").write_text("\n".join([*inc, " 0"]) + "\n")
    rkmax = words[words.index("-rkmax") + 1]
    Path(f"{case}.in0").write_text("TOT   XC_PBE     (XC_LDA,XC_PBESOL,XC_WC,XC_MBJ,XC_SCAN)\n")
    Path(f"{case}.in1{c}").write_text(
        "WFFIL  EF=.500000000000   (WFFIL, WFPRI, ENFIL, SUPWF)\n"
        f"  {rkmax}       10    4 (R-MT*K-MAX; MAX L IN WF, V-NMT\n"
        "K-VECTORS FROM UNIT:4   -9.0       1.5    61   emin / de (emax=Ef+de) / nband\n"
    )
    Path(f"{case}.in2{c}").write_text(
        "TOT             (TOT,FOR,QTL,EFG,FERMI)\n"
        f"  -9.00  {valence:6.2f}   0.50 0.05  1   EMIN, NE, ESEPERMIN, ESEPER0, iqtlsave\n"
        "TETRA    0.000      (GAUSS,ROOT,TEMP,TETRA,ALL      eval)\n"
    )
    Path(f"{case}.inm").write_text(
        "MSR1   0.0   YES  (BROYD/PRATT, extra charge (+1 for additional e), norm)\n"
        "0.20            mixing FACTOR for BROYD/PRATT scheme\n"
        "1.00  1.00      PW and CLM-scaling factors\n"
        "9999  8         idum, HISTORY\n"
    )
    for program in ("nn", "symmetry", "lstart", "dstart"):
        Path(f"{program}.error").write_text("")
    return 0


def in2_of(case: str) -> str:
    return next(p for p in (Path(f"{case}.in2c"), Path(f"{case}.in2")) if p.is_file()).read_text()


def scf2(case: str, electrons: float, mode: str) -> str:
    struct = Path(f"{case}.struct").read_text()
    z = [round(float(line.split("Z:")[1])) for line in struct.splitlines() if "NPT=" in line]
    mult = [int(m) for m in re.findall(r"MULT=\s*(\d+)", struct)]
    valence = sum((n - Z_CORE[n]) * m for n, m in zip(z, mult, strict=True))
    full = valence // 2
    more = electrons - valence  # in the band above
    fermi = 0.31 if not more and mode != "metal" else 0.71
    partly = 1.0 if mode == "metal" else more
    return "\n".join(
        [
            ":KPT   :      NUMBER OF K-POINTS:     2",
            "         Bandranges (emin - emax) and occupancy:",
            *(
                f":BAN{n:05d}: {n:3d}{0.2 + 0.001 * (n - full):12.6f}    0.310000  2.00000000"
                for n in (full - 1, full)
            ),
            f":BAN{full + 1:05d}: {full + 1:3d}    0.690000    0.901000  {partly:.8f}",
            f":BAN{full + 2:05d}: {full + 2:3d}    0.720000    0.951000  0.00000000",
            "",
            f":NOE  : NUMBER OF ELECTRONS          ={electrons:8.3f}",
            "",
            f":FER  : F E R M I - ENERGY(TETRAH.M.)={fermi:15.10f}",
            "",
        ]
    )


def run_lapw(case: str, mode: str, words: list[str]) -> int:
    title = Path(f"{case}.struct").read_text().splitlines()[0].strip()
    struct = Path(f"{case}.struct").read_text()
    z = [round(float(line.split("Z:")[1])) for line in struct.splitlines() if "NPT=" in line]
    mult = [int(m) for m in re.findall(r"MULT=\s*(\d+)", struct)]
    nuclear = sum(n * m for n, m in zip(z, mult, strict=True))
    electrons = float(in2_of(case).splitlines()[1].split()[1])
    inc = Path(f"{case}.inc").read_text()
    core = sum(Z_CORE[n] * m for n, m in zip(z, mult, strict=True)) - ("1,-1,1" in inc and mode != "stubborn")
    energy = sum(ATOM_RY[n] * m for n, m in zip(z, mult, strict=True))
    if case != "ground":
        energy += TRANSITION_EV[z[0]] / RYDBERG_EV
        if Path(f"{case}.inm").read_text()[5:10] == " -1.0":
            energy += 0.37
    rkmax = 5.31 if mode == "cut-basis" else float(words_of_in1(case))
    done = mode != "unconverged"
    n = 3
    word_of_energy = "*WARNING**" if mode == "warned" else "**********"
    log, scf = [f"Calculating {case} in /scratch"], [f":LABEL3: {VERSION}", ""]
    for cycle in range(1, n + 1):
        last = cycle == n
        log += [f"    cycle {cycle} \t(Wed Nov 25 10:00:0{cycle} UTC 2026) \t({n - cycle}/99 to go)", ""]
        log += [f">   {p} \t(10:00:0{cycle}) 1.0u 0.0s 0:01.00" for p in ("lapw0", "lapw1", "lapw2", "lcore")]
        if mode == "killed" and cycle == 2:
            Path(f"{case}.dayfile").write_text("\n".join(log[:-2]) + "\n")
            Path("lapw1.error").write_text("Error in LAPW1\n")
            print("\n".join([" LAPW0 END", " LAPW1 END", " LAPW2 END", " LAPW0 END"]), flush=True)
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        if mode in ("ghost", "memory") and cycle == 2:
            words_of_error = {
                "ghost": "Error in LAPW2\n 'LAPW2' - semicore band-ranges too large, ghostbands ?\n",
                "memory": "Error in LAPW1\n Error allocating the matrix: Cannot allocate memory\n",
            }[mode]
            Path("lapw2.error" if mode == "ghost" else "lapw1.error").write_text(words_of_error)
            Path(f"{case}.dayfile").write_text("\n".join([*log, "", ">   stop error", ""]))
            print("\n>   stop error")
            return 9
        scf += [
            "            ---------",
            f":ITE{cycle:03d}:{cycle:3d}. ITERATION",
            "            ---------",
            "",
            f":NATO :   {len(z):2d} INDEPENDENT AND  {sum(mult):3d} TOTAL ATOMS IN UNITCELL",
            f"       SUBSTANCE: {title:<60}",
            "",
            f":RKM  : MATRIX SIZE  849LOs:  80  RKM={rkmax:5.2f}  WEIGHT= 8.00  PGR:    ",
            scf2(case, electrons, mode),
            *([":WARN : Core leaks out of the sphere"] if mode == "warned" and last else []),
            f":NEC01: NUCLEAR AND ELECTRONIC CHARGE {nuclear:12.5f}{core + electrons + 0.001:12.5f}",
            f":DIS  :  CHARGE DISTANCE       ( 0.0000122 for atom    1 spin 1)      {10.0**-cycle / 100:.7f}",
            "",
            f":ENE  : {word_of_energy} TOTAL ENERGY IN Ry ={energy + 0.1 * (n - cycle):21.8f}",
            "",
        ]
        flags = "1 1" if done and last else "0 0"
        word = f"ec cc fc and str_conv {flags} 1 1" if mode == "new" else f"ec cc and fc_conv {flags} 1"
        log += [
            f">   mixer \t(10:00:0{cycle}) 0.1u",
            f":ENERGY convergence:  {flags[0]} 0.00001 .00000{cycle}",
            word,
        ]
        print(" LAPW0 END\n LAPW1 END\n LAPW2 END\n CORE  END\n MIXER END\n" + word)
    if mode == "unconverged":
        log += [">   energy in SCF NOT CONVERGED"]
    if mode != "silent":
        log += ["", ">   stop"]
        print("\n>   stop")
    Path(f"{case}.dayfile").write_text("\n".join(log) + "\n")
    Path(f"{case}.scf").write_text("\n".join(scf) + "\n")
    Path(f"{case}.scf2").write_text(scf2(case, electrons, mode))
    Path(f"{case}.clmsum").write_text("density\n")
    Path(f"{case}.vector").write_text("large\n")
    for program in ("lapw0", "lapw1", "lapw2", "lcore", "mixer"):
        Path(f"{program}.error").write_text("")
    return 0


def words_of_in1(case: str) -> str:
    path = next(p for p in (Path(f"{case}.in1c"), Path(f"{case}.in1")) if p.is_file())
    return path.read_text().splitlines()[1].split()[0]


def x_lapw(case: str, mode: str, words: list[str]) -> int:
    program = words[0]
    if program == "kgen":
        answers = sys.stdin.read().split()
        a, b, c = (int(n) for n in answers[1:4])
        if mode == "other-mesh":
            a += 1
        total = a * b * c
        Path(f"{case}.klist").write_text(
            f"         1         0         0         0{a:10d}  1.0 -7.0  1.5{total:10d} "
            f"k, div: ({a:3d}{b:3d}{c:3d})\nEND\n"
        )
    if program in ("lapw1", "lapw2"):
        assert ("-c" in words) == Path(f"{case}.in1c").is_file(), words
    if program == "lapw2":
        electrons = float(in2_of(case).splitlines()[1].split()[1])
        Path(f"{case}.scf2").write_text(scf2(case, electrons, mode))
    if program == "xspec" and mode != "no-spectrum":
        import numpy as np

        rows = Path(f"{case}.inxs").read_text().splitlines()
        low, step, high = (float(v) for v in rows[5].split()[0].split(","))
        assert rows[6].startswith("ABS"), rows
        fermi = float(re.findall(r":FER.*=\s*([\d.]+)", Path(f"{case}.scf2").read_text())[-1])
        gap = (0.69 - fermi) * RYDBERG_EV if fermi < 0.69 else 0.0
        if mode == "few-bands":
            high -= 8.0
        energies = low + step * np.arange(round((high - low) / step))
        above = energies - gap
        shape = np.where(above > 0, np.sqrt(np.maximum(above, 0)), 0)
        shape = 6e-4 * shape * (1 + 2 * np.exp(-((above - 4) ** 2) / 3)) / (1 + 0.3 * shape)
        table = "".join(
            f"{e:10.5f}{v:14.5E}{v:14.5E}{0:14.5E}\n" for e, v in zip(energies, shape, strict=True)
        )
        Path(f"{case}.txspec").write_text(table)
        Path(f"{case}.xspec").write_text(table)
    Path(f"{program}.error").write_text("")
    print(f" {program.upper()} END")
    return 0


def main() -> int:
    name, words, case = Path(sys.argv[0]).name, sys.argv[1:], Path.cwd().name
    assert os.environ["SCRATCH"] == "./"
    assert os.environ["WIENROOT"]
    mode = os.environ.get("FAKE_WIEN2K", "good")
    if os.environ.get("FAKE_WIEN2K_CASE", case) != case:
        mode = "good"
    return {"init_lapw": init_lapw, "run_lapw": run_lapw, "x_lapw": x_lapw}[name](case, mode, words)


if __name__ == "__main__":
    sys.exit(main())
