from __future__ import annotations

import numpy as np
import pytest

from htxas.domain.elements import SYMBOLS
from htxas.domain.strength import bare_atom_density, bare_atom_strength

# Jumps of the photoabsorption at the K edge, oscillator strength per eV: of Elam, Ravel and Sieber (2002) in xraydb
# 4.5.8, mu(E_K) (1 - 1 / jump ratio) times the mass of an atom over 1.0976e-16 cm^2 eV. Lithium: the tables of
# Chantler (1995), extrapolated to the edge.
JUMPS = {
    "Li": 3.30e-2, "Be": 2.178e-2, "B": 1.296e-2, "C": 8.26e-3, "N": 5.54e-3, "O": 4.214e-3, "F": 3.349e-3,
    "Ne": 2.728e-3, "Na": 2.047e-3, "Mg": 1.833e-3, "Al": 1.466e-3, "Si": 1.224e-3, "S": 8.98e-4, "Ca": 5.475e-4,
    "Ti": 4.37e-4, "Fe": 2.99e-4, "Cu": 2.305e-4, "Ge": 1.865e-4, "Mo": 9.65e-5, "Sn": 6.45e-5, "Ba": 4.9e-5,
    "W": 2.4e-5, "U": 1.25e-5,
}  # fmt: skip


@pytest.mark.parametrize("element", JUMPS)
def test_the_jump_is_that_of_the_tables(element: str) -> None:
    found = bare_atom_strength(element, "K", 1e-3)
    assert found is not None
    assert found / 1e-3 == pytest.approx(JUMPS[element], rel=0.32 if element == "Li" else 0.05)


def test_it_is_what_feff_finds() -> None:
    """FEFF 9.9.1's mu0 of copper 50 eV above its K edge: 2.34e-4 to 2.56e-4 A^2 in 3,457 spectra, median 2.46e-4."""
    upper, lower = bare_atom_strength("Cu", "K", 50.5), bare_atom_strength("Cu", "K", 49.5)
    assert upper is not None
    assert lower is not None
    assert (upper - lower) * 1.0976 == pytest.approx(2.46e-4, rel=0.05)


def test_every_k_edge_has_one_and_no_other() -> None:
    values = [bare_atom_strength(s, "K", 20.0) for s in SYMBOLS[3:93]]
    assert all(v is not None for v in values)
    assert values == sorted(values, key=lambda v: -(v or 0.0))
    assert 0.5 < (values[0] or 0.0) < 0.8
    assert (values[-1] or 0.0) == pytest.approx(2.56e-4, rel=0.01)
    assert (bare_atom_strength("C", "K", 1e6) or 0.0) < 2.0  # no more than there are electrons
    for element, edge in (("H", "K"), ("He", "K"), ("Np", "K"), ("Cu", "L3"), ("Cu", None), (None, "K")):
        assert bare_atom_strength(element, edge, 20.0) is None


def test_a_density_adds_up_to_the_strength() -> None:
    above = np.linspace(0, 20, 2001)
    density = bare_atom_density("C", "K", above)
    assert density is not None
    assert np.trapezoid(density, above) == pytest.approx(bare_atom_strength("C", "K", 20.0), rel=1e-5)
    assert bare_atom_density("C", "K", np.array([-1.0])) == pytest.approx(0.0)
    assert bare_atom_density("C", "L3", above) is None
