from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from htxas.domain.spectrum import broaden, combine
from htxas.errors import NotFound, UserError

pytestmark = pytest.mark.mongo


@pytest.fixture
def molecule(store, world):
    world.submit(store)
    return world.molecules[0]


def finish_all(store, world, molecule, **options):
    for shift, site in enumerate(molecule.sites):
        assert world.finish(store, site.key, energy_eV=285.0 + shift, **options)


def test_sites_are_weighted_by_multiplicity(store, world, molecule):
    finish_all(store, world, molecule)
    found = store.assemble(molecule)
    sites = [broaden(world.site_result(285.0 + i).sticks) for i in range(2)]
    expected = combine(sites, [1.0, 2.0])
    assert found.spectrum.start == expected.start
    np.testing.assert_allclose(found.spectrum.intensity, expected.intensity, rtol=1e-5, atol=1e-8)
    assert (found.complete, found.missing, found.multiplicities) == (True, (), (1, 2))
    peak = found.spectrum.energies_eV[found.spectrum.total.argmax()]
    assert peak == pytest.approx(286.0, abs=0.6)


def test_an_incomplete_molecule_says_so_and_is_not_served(store, world, molecule):
    with pytest.raises(NotFound, match="no site of this molecule is done"):
        store.assemble(molecule)
    world.finish(store, molecule.sites[0].key)
    found = store.assemble(molecule)
    assert (found.complete, found.missing) == (False, (molecule.sites[1].key,))
    assert store._db["molecular_spectra"].count_documents({}) == 0
    assert list(store.molecular_spectra("demo")) == []


def test_complete_ones_are_stored_once_and_read_back(store, world, molecule):
    finish_all(store, world, molecule)
    (first,) = store.molecular_spectra("demo")
    (second,) = store.molecular_spectra("demo")
    again = store.assemble(molecule)
    assert store._db["molecular_spectra"].count_documents({}) == 1
    assert first.key == second.key == again.key
    assert (first.name, first.campaign, first.ground_key) == ("mol_0", "demo", molecule.ground_key)
    assert first.spectrum.intensity.tolist() == second.spectrum.intensity.tolist()
    assert second.spectrum.intensity.tolist() == again.spectrum.intensity.tolist()


def test_many_at_once_are_those_that_are_complete(store, world, molecule):
    world.finish(store, molecule.sites[0].key)
    assert store.assemble_complete(world.molecules, sigma_eV=0.5, step_eV=0.1) == 0
    finish_all(store, world, replace(molecule, sites=molecule.sites[1:]))
    assert store.assemble_complete(world.molecules, sigma_eV=0.5, step_eV=0.1) == 1
    (kept,) = store._db["molecular_spectra"].find()
    assert store.assemble_complete(world.molecules, sigma_eV=0.5, step_eV=0.1) == 0
    store._db["molecular_spectra"].delete_many({})
    assert store.assemble(molecule, sigma_eV=0.5, step_eV=0.1).complete
    assert store._db["molecular_spectra"].find_one() == kept


def test_another_broadening_starts_from_the_sticks(store, world, molecule):
    finish_all(store, world, molecule)
    narrow = store.assemble(molecule, sigma_eV=0.2, step_eV=0.05)
    assert (narrow.spectrum.sigma_eV, narrow.spectrum.step_eV) == (0.2, 0.05)
    assert narrow.key != store.assemble(molecule).key
    area = narrow.spectrum.total.sum() * 0.05
    assert area == pytest.approx(store.assemble(molecule).spectrum.total.sum() * 0.1, rel=1e-4)
    assert [m.key for m in store.molecular_spectra("demo", sigma_eV=0.2, step_eV=0.05)] == [narrow.key]
    with pytest.raises(UserError, match="both broadening and step"):
        store.assemble(molecule, sigma_eV=0.2)
    with pytest.raises(UserError, match="both broadening and step"):
        next(store.molecular_spectra("demo", step_eV=0.2))


def test_grids_of_different_broadening_are_never_mixed(store, world, molecule):
    world.finish(store, molecule.sites[0].key, sigma_eV=0.5)
    world.finish(store, molecule.sites[1].key, sigma_eV=0.6)
    with pytest.raises(UserError, match="different broadening"):
        store.assemble(molecule)
    assert store.assemble(molecule, sigma_eV=0.5, step_eV=0.1).complete


def test_multiplicities_are_part_of_the_identity(store, world, molecule):
    finish_all(store, world, molecule)
    swapped = tuple(replace(s, multiplicity=3 - s.multiplicity) for s in molecule.sites)
    assert store.assemble(replace(molecule, sites=swapped)).key != store.assemble(molecule).key
