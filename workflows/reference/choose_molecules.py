"""Choose molecules for a training set from a list with SMILES, stratified; nested: the first N of a longer choice stay.

    python choose_molecules.py ck_molecules.csv --count 500 > molecules.smi

The list is a CSV with a column ``smiles`` and a name column ``gdb_id``. Strata: number of heavy atoms, rings, pi
systems (any multiple or aromatic bond), N, O. Strata take turns, each as often as the cube root of its size asks for,
so that rare kinds are over-represented against their share, and common ones still lead. Inside a stratum the order is
that of a hash, so it depends on nothing but the SMILES. Charged, open-shell and carbon-free molecules are left out;
those that RDKit cannot embed are left out by ``on_error: skip`` in the campaign file.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from rdkit import Chem, RDLogger


def stratum(mol: Chem.Mol) -> tuple[int, bool, bool, bool, bool]:
    """Return heavy atoms, ring, pi, N, O."""
    symbols = {a.GetSymbol() for a in mol.GetAtoms()}
    pi = any(b.GetBondTypeAsDouble() > 1 for b in mol.GetBonds())
    return mol.GetNumHeavyAtoms(), mol.GetRingInfo().NumRings() > 0, pi, "N" in symbols, "O" in symbols


def suitable(mol: Chem.Mol | None) -> bool:
    """Closed-shell, neutral everywhere, with carbon."""
    return (
        mol is not None
        and all(a.GetFormalCharge() == 0 and a.GetNumRadicalElectrons() == 0 for a in mol.GetAtoms())
        and any(a.GetSymbol() == "C" for a in mol.GetAtoms())
    )


def suitable_rows(table: Path) -> Iterator[tuple[str, str, Chem.Mol]]:
    """Yield canonical SMILES, name and molecule of what is suitable in a list, each SMILES once."""
    seen = set()
    with table.open(newline="") as lines:
        for row in csv.DictReader(lines):
            mol = Chem.MolFromSmiles(row["smiles"])
            if not suitable(mol):
                continue
            smiles = Chem.MolToSmiles(mol)
            if smiles not in seen:
                seen.add(smiles)
                yield smiles, f"gdb_{row['gdb_id']}", mol


def order(seed: str, smiles: str) -> str:
    """Return what molecules are sorted by: a hash, so that it depends on nothing but the SMILES."""
    return hashlib.sha256(f"{seed} {smiles}".encode()).hexdigest()


def turns(
    strata: dict[tuple[int, bool, bool, bool, bool], list[tuple[str, str]]],
) -> Iterator[tuple[str, str]]:
    """Yield molecules, strata taking turns by the cube root of their size."""
    waiting = {key: (0.0, 1.0 / len(rows) ** (1 / 3), list(reversed(rows))) for key, rows in strata.items()}
    while waiting:
        key = min(waiting, key=lambda k: (waiting[k][0] + waiting[k][1], k))
        clock, pace, rows = waiting.pop(key)
        yield rows.pop()
        if rows:
            waiting[key] = (clock + pace, pace, rows)


def main() -> None:
    """Write ``SMILES name`` lines to standard output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", default="htxas-reference-1")
    arguments = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    strata = defaultdict(list)
    for smiles, name, mol in suitable_rows(arguments.table):
        strata[stratum(mol)].append((smiles, name))
    for rows in strata.values():
        rows.sort(key=lambda r: order(arguments.seed, r[0]))
    for count, (smiles, name) in enumerate(turns(dict(strata))):
        if count == arguments.count:
            break
        sys.stdout.write(f"{smiles} {name}\n")


if __name__ == "__main__":
    main()
