"""Outputs in CASTEP's layout with made-up numbers: no CASTEP has written any of this.

That the layout is the genuine one is tested where genuine files are at hand: the same functions, given the numbers of
those, must write the same lines (``test_genuine.py``).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RULE = "-" * 72 + " <-- SCF"


@dataclass
class Run:
    """What a log says."""

    title: str
    labels: Sequence[str]
    fractional: Floats
    strings: Mapping[str, str]
    all_electron_eV: Mapping[str, float]
    pseudo_eV: Mapping[str, float]
    configurations: Mapping[str, str]
    final_eV: float
    entropy_eV: float
    electrons: float
    charge: float = 0.0
    cutoff_eV: float = 500.0
    cycles: int = 11
    converged: bool = True
    task: str | None = "core loss (EELS, XANES, etc)"  # of spectroscopy; None: total energy only
    after: str = ""  # said after the last k point
    version: str = "20.1"
    seconds: float = 26.35
    atoms_again: bool = True
    valences: Mapping[str, str] = field(default_factory=dict)


def log_text(run: Run) -> str:
    """Return a ``.castep`` with the lines that are read, and some of those that are not."""
    lines = [" | Welcome to Academic Release CASTEP version " + run.version + " |          ", " "]
    for label, ae in run.all_electron_eV.items():
        lines += [
            f" Atomic calculation performed for {label}: {run.configurations[label]}",
            " ",
            f" Converged in 65 iterations to an ae energy of {ae:.3f} eV",
            " ",
        ]
    lines += _pseudo(run)
    lines += [f" {'*' * 36} Title {'*' * 36}", f" {run.title}", " "]
    kind = "Electronic Spectroscopy" if run.task else "single point energy"
    lines += [
        " ***************************** General Parameters ******************************",
        f" type of calculation                            : {kind}",
        f" plane wave basis set cut-off                   :   {run.cutoff_eV:.4f}   eV",
        f" number of  electrons                           :  {run.electrons:.2f}    ",
        f" net charge of system                           : {_signed(run.charge)}    ",
        " treating system as non-spin-polarized",
    ]
    if run.task:
        lines.append(f" spectroscopy calculation                       : {run.task}")
    ranks: dict[str, int] = {}
    lines.append("            x  Element    Atom        Fractional coordinates of atoms  x")
    for label, (u, v, w) in zip(run.labels, run.fractional, strict=True):
        ranks[label] = ranks.get(label, 0) + 1
        lines.append(f"            x  {label:<10s}{ranks[label]:4d}      {u:11.6f}{v:11.6f}{w:11.6f}   x ")
    lines.append("                          Files used for pseudopotentials:")
    lines += [f"{' ' * 36}{label} {run.strings[label]}" for label in dict.fromkeys(run.labels)]
    lines += [
        " ",
        RULE,
        "SCF loop      Energy           Fermi           Energy gain       Timer   <-- SCF",
        RULE,
    ]
    lines += [
        f"{n:7d}  {_exponent(run.final_eV)}  3.75749186E+000   7.31489327E+001 {n + 10:10.2f}  <-- SCF"
        for n in range(1, run.cycles + 1)
    ]
    lines.append(RULE)
    if not run.converged:
        lines += [
            " *Warning* max. SCF cycles performed but system has not reached the groundstate.",
            " ",
        ]
    lines += [
        " ",
        f"Final energy, E             =  {run.final_eV:.8f}     eV",
        f"Final free energy (E-TS)    =  {run.final_eV - run.entropy_eV:.8f}     eV",
        "(energies not corrected for finite basis set)",
        " ",
        f"NB est. 0K energy (E-0.5TS)      =  {run.final_eV - run.entropy_eV / 2:.8f}     eV",
        " ",
    ]
    if run.task:
        lines += [
            "  +                 Calculation of Spectral Properties                +",
            "  Starting k-point:        1 of        1 on this process      |<-- SPEC",
            *run.after.splitlines(),
        ]
    if run.task and "core loss" in run.task:
        lines.append("  Total time to compute matrix elements              3.24 sec |<-- SPEC")
    lines += _pseudo(run) if run.atoms_again else []
    lines += [f"Total time          = {run.seconds:9.2f} s", "Peak Memory Use     = 1134444 kB", ""]
    return "\n".join(lines)


def _exponent(value: float) -> str:
    mantissa, power = f"{value:.8E}".split("E")
    return f"{mantissa}E{power[0]}{int(power[1:]):03d}"


def _signed(charge: float) -> str:
    return f"{charge:+.3f}" if charge else " 0.000"


def _pseudo(run: Run) -> list[str]:
    lines = []
    for label, pa in run.pseudo_eV.items():
        valence = run.valences.get(label) or " ".join(run.configurations[label].split()[1:])
        lines += [
            f" Pseudo atomic calculation performed for {label} {valence}",
            " ",
            f" Converged in 17 iterations to a total energy of {pa:.4f} eV",
            " ",
        ]
    return lines


def bands_text(
    kpoints: Floats, weights: Floats, levels_Ha: Floats, electrons: float, fermi_Ha: float, cell_Bohr: Floats
) -> str:
    """Return a ``.bands``."""
    lines = [
        f"Number of k-points {len(kpoints):8d}",
        "Number of spin components 1",
        f"Number of electrons  {electrons:.2f}    "
        if electrons >= 10
        else f"Number of electrons  {electrons:.3f}    ",
        f"Number of eigenvalues {levels_Ha.shape[1]:8d}",
        f"Fermi energy (in atomic units) {fermi_Ha:12.6f}",
        "Unit cell vectors",
    ]
    lines += ["".join(f"{x:12.6f}" for x in row) for row in cell_Bohr]
    for k, (point, weight) in enumerate(zip(kpoints, weights, strict=True)):
        lines.append(f"K-point {k + 1:8d}" + "".join(f"{x:12.8f}" for x in (*point, weight)))
        lines.append("Spin component 1")
        lines += [f"{e:14.8f}" for e in levels_Ha[k]]
    return "\n".join(lines) + "\n"


def record(*parts: bytes) -> bytes:
    """Return one record of an unformatted sequential file, big-endian."""
    body = b"".join(parts)
    return struct.pack(">i", len(body)) + body + struct.pack(">i", len(body))


def whole(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(int(n) for n in numbers))


def header(words: str = "Generated by nobody") -> bytes:
    return record(struct.pack(">d", 1.0)) + record(words.ljust(80).encode())


def elnes_bin(
    path: Path, orbitals: Sequence[Sequence[int]], elements: npt.NDArray[np.complex128], head: bytes = b""
) -> None:
    """Write an ``.elnes_bin``: species, rank, shell, channel of each orbital; elements (k, orbitals, bands, 3)."""
    k, n, bands, _ = elements.shape
    parts = [head or header(), *(record(whole(x)) for x in (n, bands, k, 1))]
    parts += [record(whole(*column)) for column in zip(*orbitals, strict=True)]
    parts += [record(elements[i].transpose(2, 1, 0).astype(">c16").tobytes()) for i in range(k)]
    path.write_bytes(b"".join(parts))


def eels_mat(path: Path, orbitals: Sequence[Sequence[int]], elements: npt.NDArray[np.complex128]) -> None:
    """Write the form of older versions."""
    k, n, bands, _ = elements.shape
    parts = [record(whole(x)) for x in (n, bands, k, 1)]
    parts += [record(whole(*column)) for column in zip(*orbitals, strict=True)]
    for one in elements.reshape(-1, 3):
        parts.append(record(one.astype(">c16").tobytes()))
    path.write_bytes(b"".join(parts))


def pdos_bin(path: Path, orbitals: Sequence[Sequence[int]], kpoints: Floats, weights: Floats) -> None:
    """Write a ``.pdos_bin``: species, rank, l of each orbital; weights (k, bands, orbitals)."""
    k, bands, n = weights.shape
    parts = [header(), *(record(whole(x)) for x in (k, 1, n, bands))]
    parts += [record(whole(*column)) for column in zip(*orbitals, strict=True)]
    for i in range(k):
        parts.append(record(whole(i + 1), struct.pack(">3d", *kpoints[i])))
        parts += [record(whole(1)), record(whole(bands))]
        parts += [record(row.astype(">f8").tobytes()) for row in weights[i]]
    path.write_bytes(b"".join(parts))
