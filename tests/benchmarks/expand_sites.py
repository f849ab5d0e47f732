"""Count and time the symmetry-unique sites of a file of molecules.

    python tests/benchmarks/expand_sites.py MOLECULES.xyz.gz [--element C] [--peer-sample 200]

Beside our count stand plain comparison of sorted interatomic-distance fingerprints (what a quick script does), and
pymatgen's PointGroupAnalyzer on a random sample, for the number of sites and the time per molecule.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from htxas.domain.structure import Structure
from htxas.structures.read import expand, read_molecules
from htxas.structures.symmetry import DEFAULT_TOLERANCE_A, unique_sites

TOLERANCES_A = (1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2)


def by_fingerprint(structure: Structure, element: str, tolerance_A: float) -> int:
    """Atoms whose distances to all others, sorted within elements, agree with no earlier atom's."""
    delta = structure.positions_A[:, None] - structure.positions_A[None]
    distance = np.sqrt((delta**2).sum(axis=-1))
    offset = 1e3 * np.array(structure.atomic_numbers)
    seen: list[np.ndarray] = []
    for row in np.sort(distance + offset, axis=1)[list(structure.indices_of(element))]:
        if not any(np.abs(row - other).max() <= tolerance_A for other in seen):
            seen.append(row)
    return len(seen)


def by_pymatgen(structure: Structure, element: str, tolerance_A: float) -> int:
    """Equivalence classes of pymatgen's PointGroupAnalyzer."""
    from pymatgen.core import Molecule
    from pymatgen.symmetry.analyzer import PointGroupAnalyzer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        molecule = Molecule(structure.symbols, structure.positions_A)
        classes = PointGroupAnalyzer(molecule, tolerance=tolerance_A).get_equivalent_atoms()["eq_sets"]
    return sum(structure.symbols[next(iter(members))] == element for members in classes.values())


def timed(
    count: Callable[[Structure, str, float], int],
    molecules: list[Structure],
    element: str,
    tolerance_A: float,
):
    start = time.perf_counter()
    counts = [count(m, element, tolerance_A) for m in molecules]
    return counts, time.perf_counter() - start


def ours(structure: Structure, element: str, tolerance_A: float) -> int:
    return len(unique_sites(structure, element, tolerance_A))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--element", default="C")
    parser.add_argument("--peer-sample", type=int, default=200)
    options = parser.parse_args()
    element, console = options.element, Console(width=110)

    start = time.perf_counter()
    total = Counter[str]()
    for source in read_molecules(options.path):
        if element in source.structure.composition:
            found = expand(source, element)
            total.update(molecules=1, atoms=sum(s.multiplicity for s in found), sites=len(found))
    whole_s = time.perf_counter() - start
    peak_MB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    console.print(
        f"{total['molecules']:,} molecules, {total['atoms']:,} {element} atoms -> {total['sites']:,} unique sites at "
        f"{DEFAULT_TOLERANCE_A} A: read, canonical order and sites in {whole_s:.1f} s, peak {peak_MB:.0f} MB"
    )

    molecules = [m.structure for m in read_molecules(options.path) if element in m.structure.composition]
    table = Table(
        "tolerance (A)", "unique sites", "s", "by fingerprint", "s", "molecules that differ", "time ratio"
    )
    for tolerance in TOLERANCES_A:
        mine, mine_s = timed(ours, molecules, element, tolerance)
        plain, plain_s = timed(by_fingerprint, molecules, element, tolerance)
        differ = sum(a != b for a, b in zip(mine, plain, strict=True))
        table.add_row(
            f"{tolerance:g}", f"{sum(mine):,}", f"{mine_s:.2f}", f"{sum(plain):,}", f"{plain_s:.2f}", f"{differ:,}",
            f"{mine_s / plain_s:.2f}",
        )  # fmt: skip
    console.print(table)

    sample = random.Random(1).sample(molecules, min(options.peer_sample, len(molecules)))
    symmetric = [m for m in molecules if ours(m, element, 0.05) < len(m.indices_of(element))]
    symmetric = random.Random(1).sample(symmetric, min(options.peer_sample, len(symmetric)))
    peers = Table(
        "molecules",
        "tolerance (A)",
        "ours",
        "pymatgen",
        "molecules that differ",
        "ours ms",
        "pymatgen ms",
        "ratio",
    )
    for label, chosen in (("random", sample), ("symmetric", symmetric)):
        for tolerance in (0.05, 0.2):
            mine, mine_s = timed(ours, chosen, element, tolerance)
            theirs, their_s = timed(by_pymatgen, chosen, element, tolerance)
            peers.add_row(
                f"{len(chosen)} {label}", f"{tolerance:g}", f"{sum(mine):,}", f"{sum(theirs):,}",
                str(sum(a != b for a, b in zip(mine, theirs, strict=True))),
                f"{1e3 * mine_s / len(chosen):.3f}", f"{1e3 * their_s / len(chosen):.2f}", f"{their_s / mine_s:.0f}",
            )  # fmt: skip
    console.print(peers)


if __name__ == "__main__":
    main()
