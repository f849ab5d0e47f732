"""What is of one molecule is of one group, however it is named, drawn or placed."""

from __future__ import annotations

import numpy as np

from htxas.domain.structure import Structure
from htxas.learn.data.chemistry import canonical_smiles
from htxas.learn.data.together import Molecule, bond_graph, together

WATER = (["O", "H", "H"], [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
METHANOL = (
    ["C", "O", "H", "H", "H", "H"],
    [[0, 0, 0], [1.43, 0, 0], [-0.36, 1.03, 0], [-0.36, -0.51, 0.89], [-0.36, -0.51, -0.89], [1.75, 0.9, 0]],
)


def of(key: str, smiles: str | None = None, graph: str | None = None) -> Molecule:
    return Molecule(key, None if smiles is None else canonical_smiles(smiles), None, graph)


def structure(symbols: list[str], positions: list[list[float]]) -> Structure:
    return Structure.from_atoms(symbols, np.array(positions, dtype=float))[0]


def test_conformers_and_names_of_a_molecule_stay_together() -> None:
    assert together([of("a", "OC"), of("b", "CO"), of("c", "CC")]) == ["CO", "CO", "CC"]
    assert together([of("a"), of("b"), of("a")]) == ["a", "b", "a"]


def test_one_without_a_smiles_does_not_part_the_others() -> None:
    assert together([of("a", "OC"), of("b", "CO"), of("x")]) == ["CO", "CO", "x"]


def test_stereoisomers_stay_together() -> None:
    left, right, plain = "C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O", "CC(N)C(=O)O"
    assert len(set(together([of("a", left), of("b", right), of("c", plain)]))) == 1
    assert len(set(together([of("a", "C/C=C/C"), of("b", r"C/C=C\C")]))) == 1


def test_a_geometry_without_a_smiles_is_known_by_its_bonds() -> None:
    water, methanol = (bond_graph(structure(*m)) for m in (WATER, METHANOL))
    assert together([of("a", "O"), of("b", "CO"), of("x", graph=methanol), of("y", graph=water)]) == [
        "O",
        "CO",
        "CO",
        "O",
    ]


def test_the_bond_graph_does_not_depend_on_the_order() -> None:
    symbols, positions = METHANOL
    order = [3, 0, 5, 1, 4, 2]
    again = structure([symbols[i] for i in order], [positions[i] for i in order])
    assert bond_graph(again) == bond_graph(structure(symbols, positions))
