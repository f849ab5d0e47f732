"""Continuous spectra, of sites that stand alone: from a result to a molecule's spectrum."""

from __future__ import annotations

from dataclasses import asdict, replace

import bson
import numpy as np
import pytest
from pymongo.errors import WriteError

from htxas.domain.calculation import Kind, State
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.spectrum import Curve, Quantity, combine, smear
from htxas.errors import NotFound, StoreError, UserError
from htxas.store import documents as d
from htxas.store.outcomes import decode, done, encode, quarantined
from htxas.store.records import Lease

GRID = {"sigma_eV": 0.5, "step_eV": 0.1}


def through(document):
    return bson.decode(bson.encode(document))


def what(world, key, result):
    return world.calculations[key], world.structure_of(key), result


@pytest.fixture
def lease(curves):
    return Lease(curves.site_key, 1, "host-1-abc")


# ---- documents


@pytest.mark.parametrize("with_dos", [True, False])
def test_a_curve_comes_back_as_it_was(curves, with_dos):
    result = curves.curve_result(doubts=("potentials changed",))
    if not with_dos:
        result = replace(result, dos=None)
    document = through(d.site_document("k", 1, result, result.spectrum()))
    assert "sticks" not in document
    assert document["curve"]["intensity"]["shape"] == [len(result.background), 1]  # x, y and z are the same
    back = d.site_from(document, d.plain(asdict(result.provenance)))
    assert back.curve.energies_eV.tolist() == result.curve.energies_eV.tolist()
    np.testing.assert_allclose(back.curve.intensity, result.curve.intensity, rtol=1e-7)
    np.testing.assert_allclose(back.background, result.background, rtol=1e-7)
    for name in ("convergence", "edge_eV", "fermi_eV", "lifetime_eV", "normalisation", "scale", "doubts"):
        assert getattr(back, name) == getattr(result, name)
    assert (back.onset_eV, back.window_eV) == (285.0, result.window_eV)
    if with_dos:
        assert (back.dos.kinds, back.dos.broadening_eV) == (("C*", "C", "H"), 0.5)
        assert back.dos.density.tolist() == result.dos.density.tolist()
        assert back.dos.charges.tolist() == pytest.approx([0.2, -0.1, 0.0])
    else:
        assert back.dos is None


def test_polarisations_that_differ_are_all_kept(curves):
    plain = curves.curve_result()
    factors = np.array([1.0, 0.5, 0.25])
    result = replace(plain, curve=Curve(plain.curve.energies_eV, plain.curve.intensity * factors))
    document = through(d.site_document("k", 1, result, None))
    assert document["curve"]["intensity"]["shape"][1] == 3
    np.testing.assert_allclose(d.curve_from(document).intensity, result.curve.intensity, rtol=1e-7)


def test_a_grid_says_what_it_is_in_and_an_old_one_is_of_sticks(curves, world):
    for result in (curves.curve_result(), world.site_result()):
        document = through(d.spectrum_document(result.spectrum()))
        assert d.spectrum_from(document).quantity is result.spectrum().quantity
    del document["quantity"]
    assert d.spectrum_from(document).quantity is Quantity.OSCILLATOR_STRENGTH


def test_a_molecule_without_a_ground_state_comes_back(curves):
    molecule = curves.molecules[0]
    assert molecule.ground_key is None
    assert d.molecule_from(through(d.molecule_document(molecule))) == molecule


# ---- outcomes


def test_what_an_accepted_curve_tells_in_numbers(curves, lease):
    outcome = curves.outcome(lease)
    white = float(curves.curve_result().curve.isotropic.max())
    assert outcome.fields["scalars"] == {"edge_eV": 285.0, "fermi_eV": -7.25, "white_line": white}
    assert decode(encode(outcome)) == outcome
    collection, arrays = outcome.arrays
    assert (collection, arrays["grid"]["quantity"]) == ("spectra", "normalised_absorption")
    assert d.spectrum_from(arrays["grid"]).start == curves.curve_result().spectrum().start


@pytest.mark.parametrize(
    "curve",
    [
        Curve(np.zeros(0), np.zeros((0, 3))),
        Curve(np.array([285.0]), np.ones((1, 3))),
        Curve(np.array([285.0, 286.0]), np.ones((2, 3))),  # too short to be broadened
        Curve(np.array([285.0, np.nan, 300.0]), np.ones((3, 3))),
        Curve(np.array([285.0, 285.0, 300.0]), np.ones((3, 3))),
        Curve(np.linspace(280.0, 320.0, 50), np.full((50, 3), np.nan)),
    ],
)
def test_any_refused_curve_is_kept_as_evidence(curves, lease, curve):
    result = replace(curves.curve_result(), curve=curve, background=np.zeros(len(curve.energies_eV)))
    rejection = inspect(result, GateLimits())
    outcome = quarantined(lease, *what(curves, lease.key, result), rejection, **GRID)
    assert outcome.arrays[1]["grid"] is None
    assert decode(encode(outcome)).state is State.QUARANTINED
    back = d.site_from(through(outcome.arrays[1]), d.plain(asdict(result.provenance)))
    assert len(back.curve.energies_eV) == len(curve.energies_eV)


def test_a_curve_that_can_never_be_added_to_others_is_not_done(curves, lease):
    with pytest.raises(StoreError, match=r"cannot be broadened by 9.0 eV: the curve is too short"):
        done(lease, *what(curves, lease.key, curves.curve_result()), sigma_eV=9.0, step_eV=0.1)


# ---- the database


@pytest.mark.mongo
class TestStored:
    @pytest.fixture
    def molecule(self, store, curves):
        curves.submit(store)
        return curves.molecules[0]

    def finish_all(self, store, curves, molecule, **options):
        for shift, site in enumerate(molecule.sites):
            assert curves.finish(store, site.key, energy_eV=285.0 + 3 * shift, **options)

    def test_a_site_is_served_as_it_was_computed(self, store, curves, molecule):
        self.finish_all(store, curves, molecule)
        wanted = curves.curve_result()
        back = store.site_result(curves.site_key)
        np.testing.assert_allclose(back.curve.intensity, wanted.curve.intensity, rtol=1e-7)
        assert back.dos.kinds == wanted.dos.kinds
        grid = store.spectrum(curves.site_key)
        assert grid.quantity is Quantity.ABSORPTION
        np.testing.assert_allclose(grid.intensity, wanted.spectrum().intensity, rtol=1e-6)

    def test_molecules_are_put_once_and_found_by_name(self, store, curves, molecule):
        assert store.put_molecules(curves.molecules) == 0
        assert store.molecule("demo", "mol_0") == molecule
        assert store.molecule("demo", "mol_0").ground_key is None
        other = replace(molecule, structure_key=curves.molecules[1].structure_key)
        with pytest.raises(UserError, match="two different molecules are called 'mol_0'"):
            store.put_molecules([other])
        named = store.named_site(curves.site_key)
        assert (named["name"], named["file_atom"]) == ("mol_0", molecule.sites[0].file_atom)

    def test_a_molecule_covers_what_all_its_sites_cover(self, store, curves, molecule):
        self.finish_all(store, curves, molecule)
        found = store.assemble(molecule)
        sites = [curves.curve_result(285.0 + 3 * i).spectrum() for i in range(2)]
        expected = combine(sites, [1.0, 2.0])
        assert (found.spectrum.start, len(found.spectrum.intensity)) == (
            sites[1].start,
            len(expected.intensity),
        )
        assert len(expected.intensity) == len(sites[0].intensity) - 30
        np.testing.assert_allclose(found.spectrum.intensity, expected.intensity, rtol=1e-5)
        assert (found.complete, found.ground_key) == (True, None)
        assert found.spectrum.quantity is Quantity.ABSORPTION
        (again,) = store.molecular_spectra("demo")
        assert again.spectrum.intensity.tolist() == found.spectrum.intensity.tolist()
        assert again.spectrum.quantity is Quantity.ABSORPTION

    def test_many_at_once(self, store, curves, molecule):
        self.finish_all(store, curves, molecule)
        assert store.assemble_complete(curves.molecules, **GRID) == 1
        kept = store._db["molecular_spectra"].find_one()
        assert (kept["ground_key"], kept["grid"]["quantity"]) == (None, "normalised_absorption")

    def test_another_broadening_starts_from_the_curve(self, store, curves, molecule):
        self.finish_all(store, curves, molecule)
        wide = store.assemble(molecule, sigma_eV=1.0, step_eV=0.05).spectrum
        sites = [
            smear(curves.curve_result(285.0 + 3 * i).curve, sigma_eV=1.0, step_eV=0.05) for i in range(2)
        ]
        expected = combine(sites, [1.0, 2.0])
        assert (wide.start, wide.sigma_eV) == (expected.start, 1.0)
        np.testing.assert_allclose(wide.intensity, expected.intensity, rtol=1e-5)
        with pytest.raises(UserError, match="cannot be added: the curve is too short to be broadened"):
            store.assemble(molecule, sigma_eV=10.0, step_eV=0.1)
        assert store.assemble_complete(curves.molecules, sigma_eV=10.0, step_eV=0.1) == 0

    def test_spectra_with_no_energy_in_common_are_not_added(self, store, curves, molecule):
        for energy, site in zip((285.0, 385.0), molecule.sites, strict=True):
            curves.finish(store, site.key, energy_eV=energy)
        with pytest.raises(UserError, match="cannot be added: the spectra have no energy in common"):
            store.assemble(molecule)

    def test_sticks_and_curves_are_not_added(self, store, curves, molecule, world):
        assert curves.finish(store, molecule.sites[0].key)
        key = molecule.sites[1].key
        lease = curves.lease(store, key)
        store.deliver([done(lease, *what(curves, key, world.site_result()), **GRID)])
        with pytest.raises(
            UserError, match="cannot be added: oscillator_strength_per_eV and normalised_absorption"
        ) as e:
            store.assemble(molecule)
        assert e.value.where == "mol_0"
        assert store.assemble_complete([molecule], **GRID) == 0

    def test_a_refused_curve_is_served_only_as_evidence(self, store, curves, molecule):
        lease = curves.lease(store, curves.site_key)
        result = replace(curves.curve_result(), doubts=("the potentials are not of this cluster",))
        rejection = inspect(result, GateLimits())
        store.deliver([quarantined(lease, *what(curves, lease.key, result), rejection, **GRID)])
        with pytest.raises(NotFound, match="quarantined: gate_rejected"):
            store.site_result(lease.key)
        kept = store.site_result(lease.key, include_quarantined=True)
        assert kept.doubts == ("the potentials are not of this cluster",)

    def test_questions_of_energy_mean_the_threshold(self, store, curves, molecule, world):
        self.finish_all(store, curves, molecule)
        found = store.find(min_energy_eV=286.0, max_energy_eV=290.0)
        assert [r.onset_eV for r in found] == [288.0]
        both = store.find(kind=Kind.SITE, state=State.DONE, sort="-energy")
        assert [r.onset_eV for r in both] == [288.0, 285.0]
        world = world.make(campaign="sticks")
        world.submit(store, "sticks")
        world.finish(store, world.site_key, energy_eV=287.0)
        assert sorted(r.onset_eV for r in store.find(min_energy_eV=286.0)) == [287.0, 288.0]

    def test_nothing_waits_for_a_ground_state(self, store, curves, molecule):
        kinds = store.progress("demo")["kinds"]
        assert sum(kinds["ground"].values()) == 0
        assert sum(kinds["site"].values()) == 4

    @pytest.mark.parametrize("lost", ["edge_eV", "curve", "doubts", "dos"])
    def test_half_a_document_is_refused(self, store, curves, molecule, lost):
        document = d.site_document(curves.site_key, 1, curves.curve_result(), None)
        del document[lost]
        with pytest.raises(WriteError, match="validation"):
            store._db["spectra"].insert_one(document)

    def test_documents_of_older_versions_are_valid(self, store, world):
        result = world.site_result()
        document = d.site_document(world.site_key, 1, result, result.spectrum())
        del document["grid"]["quantity"]
        store._db["spectra"].insert_one(document)
        both = {**d.site_document("x", 1, world.curve_result(), None), **document, "_id": "both"}
        with pytest.raises(WriteError, match="validation"):
            store._db["spectra"].insert_one(both)
