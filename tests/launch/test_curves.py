"""An engine of continuous spectra without ground states, from the file to the figures, through real agents."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from fireworks import LaunchPad

from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.cli.main import cli
from htxas.domain.calculation import Kind, State
from htxas.domain.result import CurveResult, SiteResult
from htxas.domain.spectrum import Curve, Quantity, smear
from htxas.errors import Cause, DatasetError, UserError
from htxas.launch.disk.keeper import pack_finished
from htxas.launch.estimates import compare, measured
from htxas.launch.preview import preview
from htxas.launch.run import run_workers
from htxas.launch.submit import submit
from htxas.learn.data.dataset import freeze
from htxas.learn.data.recipe import Align, Recipe, Rows, Window
from htxas.learn.data.source import StoreSource
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

CURVES = {"spectrum": "curve", "ground": False}


@pytest.fixture
def htxas(store: Store, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Call a command on the test's own database, in a folder of its own."""
    real = Store.open
    monkeypatch.setattr(Store, "open", staticmethod(lambda **kw: real(**{"name": store.name, **kw})))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


def test_a_whole_campaign(
    htxas: Callable[..., str], write: Callable[..., Path], store: Store, launchpad: LaunchPad, tmp_path: Path
) -> None:
    path = str(write(**CURVES))
    planned = json.loads(htxas("campaign", "plan", path, "--json"))
    assert (planned["molecules"], planned["sites"], planned["calculations"], planned["new"]) == (3, 6, 6, 6)
    told = htxas("campaign", "plan", path)
    assert "6: one per site" in told
    assert "ground" not in told
    assert "6 calculations" in htxas("campaign", "submit", path)
    assert "nothing to add" in htxas("campaign", "submit", path)
    waiting = json.loads(htxas("molecule", "show", "c2", "--json"))
    assert (waiting["complete"], len(waiting["missing"]), waiting["ground"]) == (False, 2, None)
    htxas("run", "-j", "2", "--campaign", "chains")
    assert store.counts("chains")[State.DONE] == 6
    assert store._db["molecular_spectra"].count_documents({}) == 3  # added up by the agent
    assert store._db["dos"].count_documents({}) == 0
    seen = json.loads(htxas("status", "chains", "--json"))["campaigns"][0]
    assert (seen["counts"]["done"], seen["kinds"]["ground"]["done"]) == (6, 0)
    for text in (htxas("status", "chains"), htxas("molecule", "show", "c2"), htxas("site", "show", "c2/0")):
        assert "ground" not in text
    assert "complete  2 of 2 sites" in htxas("molecule", "show", "c2")
    shown = htxas("site", "show", "c2/0")
    assert "threshold" in shown
    assert "fake: from a hash" in shown
    document = json.loads(htxas("site", "show", "c2/0", "--json"))
    assert len(document["result"]["curve"]["energies_eV"]) == len(
        document["result"]["curve"]["absorption_xyz"]
    )
    whole = json.loads(htxas("molecule", "show", "c2", "--json"))
    assert (whole["complete"], whole["missing"], whole["spectrum"]["quantity"]) == (
        True,
        [],
        "normalised_absorption",
    )
    rows = json.loads(htxas("query", "-c", "chains", "--sort", "energy", "--json"))
    energies = [row["onset_eV"] for row in rows]
    assert len(energies) == 6
    assert energies == sorted(energies)
    assert {row["kind"] for row in rows} == {"site"}
    for command in (("site", "plot", "c2/0", "-o", "s.png"), ("molecule", "plot", "c3", "-o", "m.png")):
        htxas(*command)
    assert (tmp_path / "s.png").stat().st_size > 10_000
    assert (tmp_path / "m.png").stat().st_size > 10_000
    with pytest.raises(UserError, match="hdf5 holds transitions"):
        htxas("export", "chains", "--format", "hdf5")
    assert not (tmp_path / "chains_hdf5").exists()
    assert "3 molecules, 6 sites" in htxas("export", "chains", "--format", "parquet")
    table = pq.read_table(tmp_path / "chains_parquet" / "sites.parquet").to_pylist()
    by_key = {row["key"]: row for row in table}
    assert len(by_key) == 6
    for key, row in by_key.items():
        result = store.site_result(key)
        assert isinstance(result, CurveResult)
        assert row["edge_eV"] == result.edge_eV
        np.testing.assert_allclose(row["curve_absorption"], result.curve.isotropic, rtol=1e-6)
        np.testing.assert_allclose(row["background"], result.background, rtol=1e-6)
    with pytest.raises(DatasetError, match="its spectrum is continuous: such spectra are taken site by site"):
        next(iter(StoreSource(store, "chains").records(Recipe(()))))
    assert "ground" not in htxas("estimates")
    assert {c.kind for c in compare(store)} <= {Kind.SITE}
    packed = pack_finished(store)  # nothing is kept for a site that could still read it
    assert (packed.calculations, packed.waiting, packed.problems) == (6, 0, [])


def test_sites_of_a_campaign_of_curves_are_frozen_one_by_one(
    store: Store,
    submitted: Callable[..., Any],
    compute_all: Callable[[], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a molecule that lacks a site the others are used; the lacking one is counted."""
    monkeypatch.setattr("htxas.learn.data.collect.MIN_MOLECULES", 10)
    submitted(sizes=tuple(range(2, 12)), fail={"C2F:1": "crash"}, **CURVES)
    compute_all()
    recipe = Recipe(
        ("coordination_number", "edge_energy"), Window(2.0, 40, 0.25, Align.EDGE), Rows.SITE, sigma_eV=0.75
    )
    data = freeze(StoreSource(store, "chains"), recipe, tmp_path / "sets")
    assert (len(data), len(set(data.groups))) == (64, 10)
    assert data.card["left_out"] == {"not computed": ["c2/1"]}
    assert "c2/0" in data.ids
    assert data.card["input"]["unit"].startswith("normalised absorption")
    assert list(data.splits) == ["molecule", "row", "size"]
    for row in (0, 17, 63):
        result = store.site_result(data.documents[row])
        assert isinstance(result, CurveResult)
        assert data.target("edge_energy")[row] == result.edge_eV
        from_edge = Curve(result.curve.energies_eV - result.edge_eV, result.curve.intensity)
        spectrum = smear(from_edge, sigma_eV=0.75, step_eV=0.25)
        at = np.rint((2.0 + 0.25 * np.arange(40)) / 0.25).astype(int) - spectrum.start
        np.testing.assert_allclose(data.spectra[row], spectrum.total[at], rtol=1e-5)
    assert freeze(StoreSource(store, "chains"), recipe, tmp_path / "sets").path == data.path


def test_curves_may_have_ground_states_and_sticks_may_do_without(
    store: Store, submitted: Callable[..., Any], compute_all: Callable[[], Any]
) -> None:
    assert submitted("curves", sizes=(2,), spectrum="curve").calculations == 3
    assert submitted("sticks", sizes=(2,)).calculations == 2  # the ground state is the same
    assert submitted("alone", sizes=(2,), ground=False).calculations == 2
    compute_all()
    assert store.counts()[State.DONE] == 7
    kinds = {}
    for name in ("curves", "sticks", "alone"):
        (spectrum,) = store.molecular_spectra(name)
        results = [store.site_result(key) for key in spectrum.site_keys]
        kinds[name] = (spectrum.spectrum.quantity, spectrum.ground_key is None, {type(r) for r in results})
    assert kinds == {
        "curves": (Quantity.ABSORPTION, False, {CurveResult}),
        "sticks": (Quantity.OSCILLATOR_STRENGTH, False, {SiteResult}),
        "alone": (Quantity.OSCILLATOR_STRENGTH, True, {SiteResult}),
    }


def test_a_dear_molecule_without_a_ground_state_is_split_into_batches_that_wait_for_nothing(
    store: Store, launchpad: LaunchPad, write: Callable[..., Path], compute_all: Callable[[], Any]
) -> None:
    path = write(sizes=(4,), batch={"target_s": 0.004, "split_above_s": 0.004, "at_least": 1}, **CURVES)
    with Plan(load_campaign(path)) as plan:
        before = preview(plan, store)
        assert submit(store, launchpad, plan).batches == before.batches == 2
        assert before.to_dict(plan)["calibration"]["ground"] is None
    assert all(batch["after"] is None for batch in store._db["batches"].find())
    assert [w["state"] for w in launchpad.workflows.find()] == ["READY"] * 2
    compute_all()
    assert store.counts("chains")[State.DONE] == 4
    assert measured(store, load_campaign(path)).ground is None


def test_a_doubtful_curve_is_quarantined_and_its_molecule_stays_incomplete(
    store: Store,
    submitted: Callable[..., Any],
    compute_all: Callable[[], Any],
    htxas: Callable[..., str],
) -> None:
    submitted(sizes=(2,), fail={"C2F:0": "hole_left", "C2F:1": "crash"}, **CURVES)
    compute_all()
    found = {r.state: r for r in store.find(campaign="chains")}
    refused = found[State.QUARANTINED]
    assert (refused.cause, refused.message) == (Cause.GATE_REJECTED, "the hole is on another atom")
    kept = store.site_result(refused.key, include_quarantined=True)
    assert isinstance(kept, CurveResult)
    assert kept.doubts == ("the hole is on another atom",)
    assert found[State.FAILED].cause is Cause.ENGINE_CRASH
    whole = json.loads(htxas("molecule", "show", "c2", "--json"))
    assert (whole["complete"], len(whole["missing"]), whole["spectrum"]) == (False, 2, None)
    assert "2 calculations are ready again" in htxas("retry", "chains")


def test_a_curve_too_short_for_the_campaigns_broadening_fails_by_name(
    store: Store, launchpad: LaunchPad, write: Callable[..., Path], compute_all: Callable[[], Any]
) -> None:
    path = write(sizes=(1,), **CURVES)
    path.write_text(json.dumps({**json.loads(path.read_text()), "spectrum": {"sigma_eV": 9.0}}))
    with Plan(load_campaign(path)) as plan:
        submit(store, launchpad, plan)
    compute_all()
    (record,) = store.find(campaign="chains")
    assert (record.state, record.cause) == (State.FAILED, Cause.BAD_OUTPUT)
    assert record.message is not None
    assert "cannot be broadened by 9.0 eV: the curve is too short" in record.message


def test_an_engine_that_is_not_here_is_left_alone(
    store: Store,
    launchpad: LaunchPad,
    home: Path,
    tmp_path: Path,
    write: Callable[..., Path],
    monkeypatch: Any,
) -> None:
    """FEFF is the user's own: a node without it must not fail all its sites."""
    monkeypatch.delenv("HTXAS_FEFF", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    document = {
        "campaign": "scattered",
        "structures": {"file": "chains.xyz"},
        "site": {"element": "C", "edge": "K"},
        "engine": {"name": "feff", "preset": "molecule"},
    }
    for path in (write(sizes=(2,)), tmp_path / "scattered.yaml"):
        if path.name == "scattered.yaml":
            path.write_text(json.dumps(document))
        with Plan(load_campaign(path)) as plan:
            submit(store, launchpad, plan)
    with pytest.raises(
        UserError, match=r"scattered: engine feff: there is no FEFF: it is the user's own \(name"
    ):
        run_workers(store, launchpad, jobs=1, campaign="scattered")
    run_workers(store, launchpad, jobs=1)
    assert store.counts("scattered")[State.READY] == 2
    assert store.counts("chains")[State.DONE] == 3


def test_an_engine_of_a_newer_version_is_left_alone(
    store: Store, launchpad: LaunchPad, home: Path, write: Callable[..., Path], monkeypatch: Any
) -> None:
    """An agent goes on for days; meanwhile somebody upgrades, and submits what it has never heard of."""
    for name, size in (("chains", 2), ("newer", 3)):
        with Plan(load_campaign(write(name, sizes=(size,)))) as plan:
            submit(store, launchpad, plan)
    engines = {"chains": "fake", "newer": "unheard-of"}
    monkeypatch.setattr(Store, "campaign_engines", lambda _: engines)
    run_workers(store, launchpad, jobs=1)
    assert store.counts("newer")[State.READY] > 0
    assert store.counts("chains")[State.DONE] == 3
