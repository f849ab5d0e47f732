from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from htxas.cli.main import _run
from htxas.domain.calculation import Calculation, Convergence, Kind
from htxas.domain.dos import Pdos
from htxas.domain.identity import content_key
from htxas.domain.result import GroundResult, Provenance, SiteResult
from htxas.errors import DatasetError, NotFound
from htxas.learn.data.dataset import freeze
from htxas.learn.data.recipe import Recipe
from htxas.learn.data.records import LeftOut, Method
from htxas.learn.data.source import FileSource, SeveralSources, StoreSource, store_record
from htxas.store.outcomes import done
from htxas.store.records import MoleculeRecord, PlannedCalculation, SiteRef, StructureRecord

pytestmark = pytest.mark.mongo
PARAMETERS = {"preset": "x"}  # as in the synthetic file: the database and the file must agree on the method
MOLECULES = 52
_PROVENANCE = Provenance(
    "fake 1",
    {"numpy": "2"},
    "here",
    "2026-01-01T00:00:00+00:00",
    "2026-01-01T00:00:01+00:00",
    1.0,
    1.0,
    {},
    "/r",
)


def _finish(store: Any, calculation: Calculation, structure: Any, result: Any) -> None:
    (leased,) = store.lease_many([calculation.key], "test")
    outcome = done(leased.lease, calculation, structure, result, sigma_eV=0.5, step_eV=0.1)
    assert store.deliver([outcome]) == ["stored"]


def _site_result(site: Any) -> SiteResult:
    return SiteResult(
        Convergence.CONVERGED, site.sticks, site.excitation_energy_eV, site.ionization_eV, site.scale,
        {"ground": -1.0}, 1.0, site.window_eV, _PROVENANCE,
    )  # fmt: skip


@pytest.fixture
def campaign(store: Any, synthetic: SimpleNamespace) -> Any:
    """Return a store with a campaign of complete synthetic molecules and one molecule without its site."""
    entries = [synthetic.entry(i) for i in range(MOLECULES + 1)]
    molecules, planned = [], []
    for entry in entries:
        key = entry.structure.key
        ground = Calculation(Kind.GROUND, key, "fake", PARAMETERS)
        site = Calculation(Kind.SITE, key, "fake", PARAMETERS, "C", "K", entry.structure.indices_of("C")[0])
        ref = SiteRef(site.key, site.atom or 0, 0, "C", 1, (0,))
        molecules.append(
            MoleculeRecord("synthetic", entry.name, key, ground.key, entry.smiles, entry.file_order, (ref,))
        )
        planned.append((entry, ground, site))
    store.put_campaign(
        "synthetic", {"engine": "fake", "parameters": {"site": PARAMETERS, "ground": PARAMETERS}}
    )
    store.put_structures([StructureRecord(e.structure, e.smiles, {}) for e in entries])
    store.put_calculations("synthetic", [PlannedCalculation(c, 1.0) for _, g, s in planned for c in (g, s)])
    store.put_molecules(molecules)
    for entry, ground, site in planned:
        g = entry.ground
        pdos = Pdos(g.pdos.energies_eV, g.pdos.occupations, g.pdos.weights)
        result = GroundResult(
            Convergence.CONVERGED, g.total_energy_eV, g.homo_eV, g.lumo_eV, g.dipole_D, pdos, _PROVENANCE
        )
        _finish(store, ground, entry.structure, result)
        if entry is not entries[-1]:
            _finish(store, site, entry.structure, _site_result(entry.sites[0]))
    return store


def test_a_campaign_and_its_export_freeze_to_the_same_numbers(
    campaign: Any, synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    recipe = Recipe(targets=("gap", "dipole", "excitation_energy", "sp3_ratio"))
    stored = freeze(StoreSource(campaign, "synthetic"), recipe, tmp_path)
    assert stored.card["counts"]["molecules"] == MOLECULES  # the incomplete one is not served
    assert stored.card["query"] == {"campaign": "synthetic"}
    filed = freeze(FileSource(synthetic.write_file(tmp_path / "x.h5", MOLECULES)), recipe, tmp_path)
    assert np.allclose(stored.spectra, filed.spectra, rtol=1e-5, atol=1e-7)
    assert np.allclose(stored.targets, filed.targets, rtol=1e-6)
    assert stored.card["method"] == filed.card["method"]
    assert stored.card["method"] == dataclasses.asdict(Method("fake", "C", "K", content_key(PARAMETERS)))
    assert stored.key != filed.key


def test_an_incomplete_molecule_is_refused(campaign: Any) -> None:
    name = f"m{MOLECULES:03d}"
    molecule = campaign.molecule("synthetic", name)
    with pytest.raises(NotFound, match="no site"):
        campaign.assemble(molecule)
    whole = campaign.assemble(campaign.molecule("synthetic", "m001"))
    torn = dataclasses.replace(whole, complete=False, missing=whole.site_keys)
    with pytest.raises(DatasetError, match="1 of 1 sites are not done"):
        store_record(campaign, torn)


def test_unknown_campaign(campaign: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        freeze(StoreSource(campaign, "synthetik"), Recipe(targets=("gap",)), tmp_path)


def test_a_model_from_a_file_predicts_a_molecule_of_the_database(
    campaign: Any,
    training_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from htxas.store.store import Store

    monkeypatch.setattr(Store, "open", staticmethod(lambda: nullcontext(campaign)))
    assert _run(["train", str(training_file), "--workers", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["registered"] == 6
    assert (
        _run(["predict", "synthetic/gap-B", "--molecule", "m005", "--campaign", "synthetic", "--json"]) == 0
    )
    prediction = json.loads(capsys.readouterr().out)["predictions"][0]
    assert prediction["name"] == "m005"
    assert prediction["preparation"] is None
    # a training molecule that the database knows leads to its site, and from there to its folder
    known = [n for n in prediction["neighbours"] if int(n["name"][1:]) < MOLECULES]
    assert known
    for neighbour in known:
        (site,) = neighbour["sites"]
        calculation = campaign.calculation(site["key"])
        assert calculation.structure_key == neighbour["key"]
        assert site["campaigns"] == ["synthetic"]
        assert (site["host"], site["directory"]) == (calculation.host, calculation.directory)
    assert _run(["predict", "synthetic/gap-B", "--molecule", "m005"]) == 0
    shown = capsys.readouterr().out
    assert "htxas site show SITE" in shown
    assert known[0]["sites"][0]["key"][:8] in shown


def test_a_campaign_and_what_extends_it_are_one_dataset(
    campaign: Any, synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    recipe = Recipe(targets=("gap", "excitation_energy"))
    stored = StoreSource(campaign, "synthetic")
    file = FileSource(synthetic.write_file(tmp_path / "more.h5", MOLECULES + 5))
    both = freeze(SeveralSources.of([stored, file]), recipe, tmp_path)
    assert both.card["counts"]["molecules"] == MOLECULES + 5
    assert both.card["counts"]["left_out"] == {"in two sources, taken once": MOLECULES}
    assert both.card["query"]["sources"] == [dict(s.query) for s in SeveralSources.of([file, stored]).sources]
    assert freeze(SeveralSources.of([file, stored]), recipe, tmp_path).key == both.key
    alone = freeze(file, recipe, tmp_path)
    assert np.allclose(both.spectra, alone.spectra, rtol=1e-5, atol=1e-7)
    assert both.ids == alone.ids


def test_one_source_twice_is_refused(campaign: Any) -> None:
    with pytest.raises(DatasetError, match="two sources are the same"):
        SeveralSources.of([StoreSource(campaign, "synthetic")] * 2)


def test_what_two_sources_computed_differently_is_not_taken_once(
    synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    records = synthetic.records(60)
    other = [dataclasses.replace(r, method=dataclasses.replace(r.method, engine="other")) for r in records]
    both = SeveralSources((synthetic.source(records), synthetic.source(other)))
    with pytest.raises(DatasetError, match="one dataset, one method"):
        freeze(both, Recipe(targets=("gap",)), tmp_path)
    more = [dataclasses.replace(r, sites=r.sites[:0], missing=("0",)) for r in records]
    assert [
        r.reason
        for r in SeveralSources((synthetic.source(records), synthetic.source(more))).records(
            Recipe(targets=("gap",))
        )
        if isinstance(r, LeftOut)
    ] == ["in two sources, taken once"] * 60
