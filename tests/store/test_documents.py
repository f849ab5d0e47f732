from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import bson
import mongomock
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from htxas.domain.calculation import State
from htxas.errors import InternalError, StoreError
from htxas.store import documents as d

shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5)


@given(hnp.arrays(np.float64, shapes))
def test_double_arrays_come_back_bit_by_bit(array):
    document = bson.decode(bson.encode(d.pack(array, d.DOUBLE)))
    back = d.unpack(document)
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(hnp.arrays(np.float64, shapes, elements=st.floats(-1e6, 1e6)))
def test_single_arrays_keep_seven_digits(array):
    back = d.unpack(bson.decode(bson.encode(d.pack(array))))
    np.testing.assert_allclose(back, array, rtol=1e-7, atol=1e-30)


def test_non_finite_numbers_survive_but_overflow_is_refused():
    back = d.unpack(d.pack([np.nan, np.inf]))
    assert np.isnan(back[0])
    assert np.isinf(back[1])
    with pytest.raises(InternalError, match="too large"):
        d.pack([1e300])


@pytest.mark.parametrize("change", [{"shape": [3]}, {"dtype": "<i4"}, {"data": b"abc"}])
def test_a_damaged_array_is_noticed(change):
    with pytest.raises(StoreError, match="damaged"):
        d.unpack({**d.pack([1.0, 2.0]), **change})


def test_arrays_are_little_endian_and_small():
    packed = d.pack(np.array([1.0], dtype=">f8"))
    assert bytes(packed["data"]) == b"\x00\x00\x80?"


def test_plain_unwraps_what_engines_hand_over():
    value = {
        1: np.float32(1.5),
        "a.b": (np.int64(2), State.DONE),
        "path": Path("/x"),
        "array": np.eye(2),
        "flag": np.bool_(True),
        "f64": np.float64(0.1),
    }
    expected = {
        "1": 1.5,
        "a.b": [2, "done"],
        "path": "/x",
        "array": [[1.0, 0.0], [0.0, 1.0]],
        "flag": True,
        "f64": 0.1,
    }
    assert d.plain(value) == expected
    assert type(d.plain(np.float64(0.1))) is float
    assert bson.decode(bson.encode(d.plain(value))) == expected
    with pytest.raises(InternalError, match="object"):
        d.plain(object())


def test_a_structure_keeps_its_key(world):
    record = next(iter(world.structures.values()))
    document = bson.decode(bson.encode(d.structure_document(record)))
    back = d.structure_from(document)
    assert back.structure == record.structure
    assert (back.smiles, back.provenance) == (record.smiles, record.provenance)
    document["symbols"][0] = "Si"
    with pytest.raises(StoreError, match="not what its key says"):
        d.structure_from(document)


def test_a_structure_keeps_its_moments(world):
    record = next(iter(world.structures.values()))
    assert "moments_muB" not in d.structure_document(record)
    s = record.structure
    moments = np.arange(len(s)) / 4
    magnetic = replace(
        record, structure=type(s).from_atoms(s.symbols, s.positions_A, s.cell_A, moments_muB=moments)[0]
    )
    document = bson.decode(bson.encode(d.structure_document(magnetic)))
    back = d.structure_from(document).structure
    assert back == magnetic.structure
    assert back.moments_muB.tolist() == moments.tolist()
    del document["moments_muB"]
    with pytest.raises(StoreError, match="not what its key says"):
        d.structure_from(document)


def test_a_site_comes_back_as_it_was(world):
    result = replace(world.site_result(), ionization_eV=None)
    document = bson.decode(bson.encode(d.site_document("k", 1, result, None)))
    from dataclasses import asdict

    back = d.site_from(document, d.plain(asdict(result.provenance)))
    assert back.energies_eV == result.energies_eV
    assert back.sticks.energies_eV.tolist() == result.sticks.energies_eV.tolist()
    np.testing.assert_allclose(back.sticks.strengths, result.sticks.strengths, rtol=1e-7)
    assert (back.convergence, back.ionization_eV, back.scale) == (result.convergence, None, result.scale)
    assert back.provenance.extra == {"cycles": 12, "trace": [1.0, 2.0]}


def test_a_ground_state_comes_back_as_it_was(world):
    from dataclasses import asdict

    result = world.ground_result()
    document = bson.decode(bson.encode(d.ground_document("k", 1, result)))
    back = d.ground_from(document, d.plain(asdict(result.provenance)))
    assert back.total_energy_eV == result.total_energy_eV
    assert back.gap_eV == result.gap_eV
    assert back.dipole_D.tolist() == [0.0, 3.0, 4.0]
    assert back.pdos.energies_eV.tolist() == result.pdos.energies_eV.tolist()
    assert back.pdos.weights.shape == (4, 4, 3)
    np.testing.assert_allclose(back.pdos.weights.sum(axis=(1, 2)), 1.0, atol=1e-6)


def test_a_ground_state_of_plane_waves_comes_back_as_it_was(world):
    from dataclasses import asdict

    plain = world.ground_result()
    pdos = replace(
        plain.pdos, shares=np.linspace(0.1, 1.0, 4), complete=False, complete_to_eV=12.5, spheres=True
    )
    result = replace(plain, dipole_D=None, reference="average potential", pdos=pdos)
    document = bson.decode(bson.encode(d.ground_document("k", 1, result)))
    back = d.ground_from(document, d.plain(asdict(result.provenance)))
    assert (back.dipole_D, back.reference, back.pdos.complete) == (None, "average potential", False)
    assert back.pdos.shares.tolist() == pdos.shares.tolist()
    assert back.pdos.complete_to_eV == 12.5
    assert back.pdos.spheres


def test_a_ground_state_of_an_older_version_is_whole(world):
    from dataclasses import asdict

    result = world.ground_result()
    document = d.ground_document("k", 1, result)
    for name in ("shares", "complete", "complete_to_eV", "spheres"):
        del document["pdos"][name]
    del document["reference"]
    back = d.ground_from(document, d.plain(asdict(result.provenance)))
    assert (back.reference, back.pdos.complete, back.pdos.shares) == ("vacuum", True, None)
    assert back.pdos.complete_to_eV is None
    assert not back.pdos.spheres


def test_a_molecule_comes_back_as_it_was(world):
    molecule = world.molecules[0]
    assert d.molecule_from(bson.decode(bson.encode(d.molecule_document(molecule)))) == molecule


def test_a_changed_calculation_is_noticed(world):
    calculation = world.calculations[world.site_key]
    document = {
        "_id": calculation.key,
        "kind": "site",
        "structure_key": calculation.structure_key,
        "engine": "fake",
        "element": "C",
        "edge": "K",
        "atom": calculation.atom,
    }
    assert d.calculation_from(document, calculation.parameters) == calculation
    with pytest.raises(StoreError, match="not what its key says"):
        d.calculation_from({**document, "atom": 2 + (calculation.atom or 0)}, calculation.parameters)


def test_documents_go_through_a_collection_and_back(world):
    """One process, no server: mongomock stands in for a collection that stores and finds by key."""
    collection = mongomock.MongoClient()["htxas"]["structures"]
    for record in world.structures.values():
        collection.insert_one(d.structure_document(record))
    for key, record in world.structures.items():
        back = d.structure_from(collection.find_one({"_id": key}))
        assert back.structure == record.structure
        assert back.smiles == record.smiles
    assert collection.count_documents({}) == len(world.structures)
