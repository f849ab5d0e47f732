"""Draw molecules from a list at random, to compare a choice with; nested: the first N of a longer draw stay.

    python draw_random.py ck_molecules.csv --count 265 --without molecules.smi --first 300 > random.smi

What is suitable is what `choose_molecules.py` takes; the order is that of a hash of the SMILES.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from choose_molecules import order, suitable_rows
from rdkit import RDLogger


def main() -> None:
    """Write ``SMILES name`` lines to standard output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--without", type=Path, required=True, help="a list of what is there already")
    parser.add_argument("--first", type=int, help="only so many of its lines")
    parser.add_argument("--seed", default="htxas-reference-2-random")
    arguments = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    lines = arguments.without.read_text().splitlines()[: arguments.first]
    there = {line.split()[0] for line in lines if line.strip()}
    rows = [(s, name) for s, name, _ in suitable_rows(arguments.table) if s not in there]
    rows.sort(key=lambda r: order(arguments.seed, r[0]))
    for smiles, name in rows[: arguments.count]:
        sys.stdout.write(f"{smiles} {name}\n")


if __name__ == "__main__":
    main()
