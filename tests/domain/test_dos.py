"""How far up a PDOS is known, and that no curve of it goes on beyond."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from htxas.domain.dos import Pdos
from htxas.errors import DatasetError

WEIGHTS = np.full((3, 1, 3), 1.0 / 3.0)
PDOS = Pdos(np.array([-9.0, -1.0, 4.0]), np.array([2.0, 0.0, 0.0]), WEIGHTS)
# Plane waves with few empty bands, as Quantum ESPRESSO gave CO: complete to 2.5 eV above the LUMO.
BANDS = replace(PDOS, complete=False, complete_to_eV=1.5)


def test_a_basis_of_functions_of_atoms_has_an_end_of_its_own() -> None:
    assert (PDOS.known_to_eV, PDOS.curve_to_eV()) == (math.inf, math.inf)
    assert PDOS.curve([-9.0, 80.0], atoms=[0])[1] == 0.0


def test_a_grid_ends_where_levels_are_missing() -> None:
    assert BANDS.known_to_eV == 1.5
    assert BANDS.curve_to_eV(sigma_eV=0.5, zero_eV=-9.0) == 1.5 + 9.0 - 2.0
    grid = np.arange(-5.0, 8.51, 0.1)
    found = BANDS.curve(grid, atoms=[0], zero_eV=-9.0)
    # what a code with all levels would say, whatever they are
    more = Pdos(
        np.append(PDOS.energies_eV, 1.5001), np.append(PDOS.occupations, 0.0), np.full((4, 1, 3), 1.0 / 3.0)
    )
    np.testing.assert_allclose(found, more.curve(grid, atoms=[0], zero_eV=-9.0), atol=4e-4)
    message = (
        "molecule carbon monoxide: the grid of the PDOS goes to 15.00 eV, its levels are known to 10.50 eV; "
        "broadened by 0.5 eV they tell of no more than 8.50 eV"
    )
    with pytest.raises(DatasetError) as caught:
        BANDS.curve([-5.0, 15.0], atoms=[0], zero_eV=-9.0, where="molecule carbon monoxide")
    assert message in str(caught.value)
    assert "more empty levels" in str(caught.value)
    with pytest.raises(DatasetError):
        BANDS.curve([8.6], atoms=[0], zero_eV=-9.0)
    assert BANDS.curve([], atoms=[0]).shape == (0,)


def test_projections_that_do_not_tell_are_not_taken_for_complete() -> None:
    """Results of versions that had no such number: one k point, then several."""
    untold = replace(BANDS, complete_to_eV=None)
    assert untold.known_to_eV == 4.0
    assert replace(untold, shares=np.array([0.5, 0.25, 0.25])).known_to_eV == -1.0
    with pytest.raises(DatasetError):
        untold.curve([5.0], atoms=[0])
