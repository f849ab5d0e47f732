from __future__ import annotations

import numpy as np
import pytest

from htxas.domain.structure import Structure
from htxas.engines.feff.cluster import cut, radius_of
from htxas.engines.feff.parameters import FeffParameters, Sphere
from htxas.engines.feff.write import lay_out

# Shells of rock salt around an anion, in half lattice constants: 6 cations, 12 anions, 8, 6, 24, 24, 12 ...
SHELLS = [1, 7, 19, 27, 33, 57, 81, 93]


def test_a_crystal_is_cut_at_whole_shells(mgo: Structure) -> None:
    oxygen = mgo.indices_of("O")[0]
    for atoms in SHELLS[1:]:
        cluster = cut(mgo, oxygen, radius_of(mgo, oxygen, atoms))
        assert len(cluster) == atoms
    near = cut(mgo, oxygen, radius_of(mgo, oxygen, 30))
    assert len(near) in (27, 33)
    first = cut(mgo, oxygen, 2.2)
    assert first.numbers.tolist() == [8, *[12] * 6]
    assert first.distances_A[1:] == pytest.approx([2.106] * 6)
    assert first.kinds().tolist() == [0, *[1] * 6]


def test_neither_the_cell_nor_the_origin_matters(mgo: Structure) -> None:
    a = 4.212
    symbols = ["Mg"] * 4 + ["O"] * 4
    mg = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    positions = np.concatenate([mg, mg + np.array([0.5, 0, 0])]) * a + 0.3
    conventional = Structure.from_atoms(symbols, positions, np.eye(3) * a)[0]
    one = cut(mgo, mgo.indices_of("O")[0], 9.0)
    for oxygen in conventional.indices_of("O"):
        other = cut(conventional, oxygen, 9.0)
        assert other.positions_A == pytest.approx(one.positions_A, abs=1e-5)
        assert (other.numbers == one.numbers).all()


def test_stoichiometry_is_of_the_cell_or_the_molecule(mgo: Structure, ethylene: Structure) -> None:
    crystal = cut(mgo, mgo.indices_of("O")[0], 4.5).potentials(mgo)
    assert [(p.tag, p.stoichiometry) for p in crystal] == [("O", 0.01), ("O", 1), ("Mg", 1)]
    molecule = cut(ethylene, ethylene.indices_of("C")[0], None).potentials(ethylene)
    assert [(p.tag, p.stoichiometry) for p in molecule] == [("C", 1), ("H", 4), ("C", 1)]


def test_spheres_around_every_kind_are_in_the_cluster(mgo: Structure) -> None:
    oxygen = mgo.indices_of("O")[0]
    around_each = FeffParameters(scf=Sphere(radius_A=4.0), fms=Sphere(radius_A=4.5))
    layout = lay_out(mgo, oxygen, around_each)
    assert 6.6 < layout.cluster.distances_A[-1] < 4.0 + 2.98  # the nearest other oxygen is 2.98 A away
    alone = around_each.model_copy(update={"scf": Sphere(radius_A=4.0, center="absorber")})
    assert lay_out(mgo, oxygen, alone).cluster.distances_A[-1] <= 4.5


def test_a_molecule_is_whole_and_keeps_its_axes(ethylene: Structure) -> None:
    carbon = ethylene.indices_of("C")[0]
    parameters = FeffParameters(scf=Sphere(whole=True, center="absorber"), fms=Sphere(whole=True))
    layout = lay_out(ethylene, carbon, parameters)
    assert len(layout.cluster) == 6
    distances = np.sqrt(((ethylene.positions_A[:, None] - ethylene.positions_A[None]) ** 2).sum(axis=-1))
    assert (
        layout.scf_A == layout.fms_A == pytest.approx(distances.max() + 1.5)
    )  # the sphere of any atom holds all
    delta = ethylene.positions_A - ethylene.positions_A[carbon]
    assert {tuple(np.round(x, 4)) for x in delta} == {
        tuple(np.round(x, 4)) for x in layout.cluster.positions_A
    }


def test_a_crystal_needs_a_radius(mgo: Structure) -> None:
    with pytest.raises(ValueError, match="needs a radius"):
        lay_out(mgo, 0, FeffParameters())
    with pytest.raises(ValueError, match="only a molecule"):
        lay_out(mgo, 0, FeffParameters(scf=Sphere(whole=True)))
