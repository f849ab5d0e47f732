from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from htxas.domain.structure import Structure
from htxas.engines.cells import Box, Mesh, Supercell, nearest_image_A
from htxas.errors import UnsupportedInput

ROCK_SALT_A = 4.212
PRIMITIVE = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * ROCK_SALT_A
MGO = Structure.from_atoms(["Mg", "O"], [[0, 0, 0], [ROCK_SALT_A / 2, 0, 0]], PRIMITIVE)[0]
CO = Structure.from_atoms(["C", "O"], [[0, 0, 0], [0, 0, 1.13]])[0]


def test_a_molecule_lies_in_the_middle_of_its_box() -> None:
    cell = Box(side_A=15.0).build(CO)
    assert cell.cell_A.tolist() == (15 * np.eye(3)).tolist()
    assert cell.positions_A.mean(axis=0).tolist() == [7.5, 7.5, 7.5]
    assert (cell.positions_A[1] - cell.positions_A[0]).tolist() == pytest.approx([0, 0, 1.13])
    assert (cell.copies, cell.origin) == (1, (0, 1))
    assert Box(vacuum_A=8.0).build(CO).cell_A[0, 0] == pytest.approx(9.13)


def test_a_box_too_small_is_refused() -> None:
    with pytest.raises(UnsupportedInput, match="touches its own images"):
        Box(side_A=5.0).build(CO)
    with pytest.raises(UnsupportedInput, match="is periodic"):
        Box(side_A=15.0).build(MGO)


def test_a_supercell_keeps_images_apart() -> None:
    cell = Supercell(distance_A=8.4).build(MGO)
    assert nearest_image_A(cell.cell_A) >= 8.4
    assert nearest_image_A(cell.cell_A) == pytest.approx(3 * ROCK_SALT_A / np.sqrt(2))
    assert (len(cell), cell.copies) == (54, 27)
    assert cell.symbols[:2] == MGO.symbols
    published = Supercell(repeats=(4, 4, 4)).build(MGO)
    assert len(published) == 128
    # each atom is its origin, moved by a vector of the crystal
    moved = (published.positions_A - MGO.positions_A[list(published.origin)]) @ np.linalg.inv(PRIMITIVE)
    assert np.abs(moved - moved.round()).max() < 1e-9
    spread = np.linalg.norm(published.positions_A[:, None] - published.positions_A[None], axis=-1)
    assert spread[~np.eye(128, dtype=bool)].min() == pytest.approx(ROCK_SALT_A / 2)


def test_a_long_cell_is_repeated_where_it_is_short() -> None:
    layered = Structure.from_atoms(["C"], [[0, 0, 0]], np.diag([2.5, 2.5, 9.0]))[0]
    cell = Supercell(distance_A=9.0).build(layered)
    assert np.diag(cell.cell_A).tolist() == [10.0, 10.0, 9.0]


def test_images_of_a_skewed_cell() -> None:
    assert nearest_image_A(np.array([[5.0, 0, 0], [4.9, 1.0, 0], [0, 0, 5.0]])) == pytest.approx(
        np.sqrt(1.01)
    )


def test_a_mesh_is_as_dense_as_asked() -> None:
    assert Mesh(spacing_invA=0.5).build(np.eye(3) * 15.0) == (1, 1, 1)
    assert Mesh(spacing_invA=0.5).build(np.diag([4.0, 4.0, 8.0])) == (4, 4, 2)
    assert Mesh(divisions=(2, 2, 1)).build(np.eye(3)) == (2, 2, 1)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (Box, {}),
        (Box, {"side_A": 15.0, "vacuum_A": 8.0}),
        (Supercell, {"repeats": (0, 1, 1)}),
        (Mesh, {"divisions": (1, 1, 100)}),
        (Mesh, {"spacing": 0.3}),
    ],
)
def test_what_says_too_little_or_too_much_is_refused(model: type, values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        model(**values)


def test_a_molecule_has_no_supercell() -> None:
    with pytest.raises(UnsupportedInput, match="is a molecule"):
        Supercell(distance_A=8.0).build(CO)
