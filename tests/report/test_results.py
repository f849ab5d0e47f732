"""Finding sites and molecules, and putting them together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from htxas.domain.spectrum import broaden, combine
from htxas.errors import NotFound, UserError
from htxas.report.results import load_molecule, load_site, molecular_spectrum


def test_site_by_any_of_its_atoms(results: Any) -> None:
    first, second = load_site(results, "propanone/0"), load_site(results, "propanone/2")
    assert first.record.key == second.record.key
    assert (first.label, first.multiplicity) == ("C0", 2)
    assert first.title == "propanone, C0 K edge"


def test_site_by_key_prefix_gets_its_name(results: Any, world: Any) -> None:
    key = world.molecules["ethanol"].sites[0].key
    view = load_site(results, key[:10])
    assert (view.record.key, view.molecule, view.file_atom) == (key, "ethanol", 1)
    assert view.result is not None


def test_failed_site_has_no_result(results: Any) -> None:
    assert load_site(results, "propanone/1").result is None


def test_wrong_site_names(results: Any, world: Any) -> None:
    with pytest.raises(NotFound, match=r"no site at atom 0 .*C1 C2"):
        load_site(results, "ethanol/0")
    with pytest.raises(UserError, match="not an atom index"):
        load_site(results, "ethanol/C1")
    with pytest.raises(NotFound, match="no molecule is called"):
        load_site(results, "nobody/0")
    with pytest.raises(UserError, match="ground state, not a site"):
        load_site(results, world.molecules["ethanol"].ground_key)


def test_completeness(results: Any) -> None:
    assert load_molecule(results, "ethanol").complete
    propanone = load_molecule(results, "propanone")
    assert not propanone.complete
    assert [s.label for s in propanone.missing] == ["C1"]


def test_molecular_spectrum_is_the_weighted_mean(results: Any, world: Any) -> None:
    view = load_molecule(results, "ethanol")
    spectrum = molecular_spectrum(view)
    assert spectrum is not None
    sites = [world.sites[s.key].sticks for s in world.molecules["ethanol"].sites]
    wanted = combine([broaden(s) for s in sites], [1.0, 1.0])
    np.testing.assert_array_equal(spectrum.columns, wanted.columns)
    assert molecular_spectrum(load_molecule(results, "methane")) is None
