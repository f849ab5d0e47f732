"""The surroundings of a site, where everybody knows them."""

from __future__ import annotations

import numpy as np
import pytest

from htxas.domain.structure import Structure
from htxas.errors import DatasetError
from htxas.learn.data.site_targets import SITE_TARGETS, site_value
from htxas.learn.data.targets import describe

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
PEROVSKITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def crystal(symbols: list[str], fractional: list[list[float]], cell: np.ndarray) -> Structure:
    return Structure.from_atoms(symbols, np.array(fractional) @ cell, cell)[0]


def found(structure: Structure, symbol: str) -> dict[str, float]:
    atom = structure.indices_of(symbol)[0]
    return {name: site_value(name, structure, atom, "x")[0] for name in SITE_TARGETS}


CRYSTALS = {
    "copper": (crystal(["Cu"], [[0, 0, 0]], 3.615 * FCC), "Cu", 12, 3.615 / np.sqrt(2), 29),
    "rock salt": (crystal(["Mg", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]], 4.212 * FCC), "Mg", 6, 2.106, 8),
    "zinc blende": (
        crystal(["Cu", "Cl"], [[0, 0, 0], [0.25, 0.25, 0.25]], 5.42 * FCC),
        "Cu",
        4,
        5.42 * np.sqrt(3) / 4,
        17,
    ),
    "perovskite": (crystal(["Sr", "Ti", "O", "O", "O"], PEROVSKITE, 3.905 * np.eye(3)), "Ti", 6, 1.9525, 8),
}


@pytest.mark.parametrize("name", CRYSTALS)
def test_crystals(name: str) -> None:
    structure, symbol, number, distance, neighbour = CRYSTALS[name]
    values = found(structure, symbol)
    assert values["coordination_number"] == number
    assert values["mean_bond_length"] == pytest.approx(distance, abs=1e-4)
    assert values["nearest_neighbour_distance"] == pytest.approx(distance, abs=1e-4)
    assert values["bond_length_deviation"] == pytest.approx(0.0, abs=1e-4)
    assert values["mean_neighbour_number"] == neighbour
    assert "CrystalNN" in site_value("coordination_number", structure, 0, "x")[1]


def test_a_larger_cell_is_the_same_crystal() -> None:
    small = CRYSTALS["rock salt"][0]
    corners = [[i, j, k] for i in (0, 0.5) for j in (0, 0.5) for k in (0, 0.5)]
    halves = [[i + 0.25, j + 0.25, k + 0.25] for i, j, k in corners]
    large = crystal(["Mg"] * 8 + ["O"] * 8, [*corners, *halves], 2 * 4.212 * FCC)
    assert found(large, "Mg") == pytest.approx(found(small, "Mg"), abs=1e-5)


def test_a_molecule() -> None:
    carbon = [[0, 0, 0], [1.33, 0, 0]]
    hydrogen = [[-0.56, 0.92, 0], [-0.56, -0.92, 0], [1.89, 0.92, 0], [1.89, -0.92, 0]]
    ethylene = Structure.from_atoms(["C"] * 2 + ["H"] * 4, carbon + hydrogen)[0]
    values = found(ethylene, "C")
    ch = np.hypot(0.56, 0.92)
    assert values == pytest.approx(
        {
            "coordination_number": 3,
            "mean_bond_length": (1.33 + 2 * ch) / 3,
            "nearest_neighbour_distance": ch,
            "bond_length_deviation": np.std([1.33, ch, ch]),
            "mean_neighbour_number": 8 / 3,
        },
        abs=1e-5,
    )
    assert site_value("coordination_number", ethylene, 0, "x")[1] == "1.25 covalent radii"


def test_an_atom_without_neighbours_has_none() -> None:
    apart = Structure.from_atoms(["C", "O"], [[0, 0, 0], [5.0, 0, 0]])[0]
    assert site_value("coordination_number", apart, 0, "x")[0] == 0
    assert site_value("nearest_neighbour_distance", apart, 0, "x")[0] == pytest.approx(5.0)
    with pytest.raises(DatasetError, match="no neighbours, and no mean_bond_length") as told:
        site_value("mean_bond_length", apart, 0, "site x")
    assert told.value.where == "site x"
    with pytest.raises(DatasetError, match="an atom by itself"):
        site_value("coordination_number", Structure.from_atoms(["C"], [[0, 0, 0]])[0], 0, "x")


def test_units() -> None:
    assert {name: describe(name).unit for name in SITE_TARGETS} == {
        "coordination_number": "1",
        "mean_bond_length": "A",
        "nearest_neighbour_distance": "A",
        "bond_length_deviation": "A",
        "mean_neighbour_number": "1",
    }
