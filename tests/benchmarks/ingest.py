"""How fast run folders of FEFF are read, beside pymatgen in the same run, and whether each number is that of the file.

    python tests/benchmarks/ingest.py FOLDER [--jobs 2] [--limit N]

Reading is all but the database: input, structure, site, log, spectrum, symmetry, the gate.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np

from htxas.domain.gate import GateLimits, inspect
from htxas.launch.ingest.folders import RunFolder, find, read_all

_PEER_MOST = 400  # it is slow, and no faster later


def ours(folders: list[RunFolder], jobs: int) -> tuple[float, Counter[str], int]:
    """Return seconds, what came of the folders, and how many numbers differ from the files."""
    start = time.perf_counter()
    parts = list(read_all(iter(folders), 0.01, jobs))
    seconds = time.perf_counter() - start
    told: Counter[str] = Counter()
    wrong = 0
    for found in (f for part in parts for f in part):
        if found.adopted is None:
            told[str(found.why)] += 1
            continue
        result, c = found.adopted.result, found.adopted.calculation
        rejection = inspect(result, GateLimits(), element=c.element, edge=c.edge)
        told["sound" if rejection is None else "refused by the gate"] += 1
        for name in result.provenance.extra.get("warnings", {}):
            told[f"(warned of {name.replace('_', ' ')})"] += 1
        wrong += differing(found.folder.path, result)
    return seconds, told, wrong


def differing(folder: Path, result: object) -> int:
    """Return how many numbers of a result are not those of ``xmu.dat``, read line by line."""
    lines = [x.split() for x in (folder / "xmu.dat").read_text().splitlines() if not x.startswith("#")]
    table = np.array([[float(w) for w in line] for line in lines])
    curve = result.curve  # type: ignore[attr-defined]
    pairs = (
        (curve.energies_eV, table[:, 0]),
        (curve.isotropic, table[:, 3]),
        (result.background, table[:, 4]),
    )  # type: ignore[attr-defined]
    return int(sum((np.abs(a - b) > 1e-12 * np.abs(b)).sum() for a, b in pairs))


def peer(folders: list[RunFolder]) -> float:
    """Return seconds in which pymatgen reads structure, cluster, cards and spectrum."""
    from pymatgen.io.feff.inputs import Atoms, Header, Tags
    from pymatgen.io.feff.outputs import Xmu

    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for folder in folders:
            deck = str(folder.path / "feff.inp")
            Header.from_file(deck)
            Atoms.cluster_from_file(deck)
            Tags.from_file(deck)
            Xmu.from_file(str(folder.path / "xmu.dat"), deck)
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    folders = list(islice(find([options.folder]), options.limit))
    seconds, told, wrong = ours(folders, options.jobs)
    some = folders[:_PEER_MOST]
    peer_s = peer(some)
    rate, peer_rate = len(folders) / seconds, len(some) / peer_s
    print("| measured | |\n|---|---|")
    print(f"| run folders | {len(folders):,} |")
    for name, count in told.most_common():
        print(f"| {name} | {count:,} |")
    print(f"| numbers that differ from the files | {wrong} |")
    print(f"| read and judged, {options.jobs} processes | {rate:,.0f} per second |")
    print(f"| pymatgen, one process, input and spectrum only | {peer_rate:,.0f} per second |")
    print(f"| ratio | {rate / peer_rate:.1f} |")


if __name__ == "__main__":
    main()
