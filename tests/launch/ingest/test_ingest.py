"""Runs that FEFF left, brought into a real database."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fireworks import LaunchPad

from htxas.campaign.file import gate_document, load_campaign
from htxas.campaign.plan import Plan
from htxas.cli.main import cli
from htxas.domain.calculation import State
from htxas.domain.gate import GateLimits
from htxas.domain.result import CurveResult
from htxas.errors import UserError
from htxas.launch.ingest.bring import Ingested, ingest
from htxas.launch.ingest.folders import find
from htxas.launch.submit import submit
from htxas.learn.data.curve_window import curve_row
from htxas.learn.data.recipe import Align, Recipe, Rows, Window
from htxas.learn.data.source import StoreSource
from htxas.learn.data.targets import target_value
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

RUNS = Path(__file__).parents[2] / "engines/feff/runs"
POSCAR = (
    "MgO\n1.0\n0.0 2.106 2.106\n2.106 0.0 2.106\n2.106 2.106 0.0\nMg O\n1 1\ndirect\n0 0 0\n0.5 0.5 0.5\n"
)
NEGATIVE = "negative density   1  -12.345 - usually harmless precision error\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a folder of runs: sound, doubtful and dead ones, and what is no run."""
    root = tmp_path / "tree"
    for name in ("methane", "unconverged", "killed-in-pot", "killed-in-fms", "refused", "elnes"):
        shutil.copytree(RUNS / name, root / "molecules" / name)
    shutil.copytree(RUNS / "mgo", root / "crystals/MgO/000_O")
    (root / "crystals/MgO/POSCAR").write_text(POSCAR)
    doubtful = shutil.copytree(RUNS / "overlapped", root / "molecules/overlapped")
    output = doubtful / "feff.out"
    output.write_text(output.read_text() + "SCF ITERATION NUMBER 1\n" + NEGATIVE)
    (root / "notes").mkdir()
    (root / "notes/readme.txt").write_text("nothing")
    return root


Bring = Callable[..., Ingested]


@pytest.fixture
def bring(store: Store, launchpad: LaunchPad) -> Bring:
    def call(*paths: Path, campaign: str = "old", jobs: int = 1) -> Ingested:
        return ingest(
            store, launchpad, find(paths), campaign, tolerance_A=0.01, sigma_eV=0.5, step_eV=0.1, jobs=jobs
        )

    return call


def test_good_ones_once_and_the_rest_by_name(tree: Path, bring: Bring, store: Store) -> None:
    told = bring(tree)
    assert (told.folders, told.stored, told.known) == (8, 2, 0)
    assert told.quarantined == {"the density is negative in the last iteration (1 lines)": 1}
    assert {Path(x.folder).name: x.why for x in told.left} == {
        "unconverged": "unconverged",
        "killed-in-pot": "dead",
        "killed-in-fms": "dead",
        "refused": "dead",
        "elnes": "unsupported",
    }
    assert told.campaigns == {"old": 1, "old-2": 1, "old-3": 1}  # three sets of parameters, one element each
    assert {s: n for s, n in store.counts().items() if n} == {State.DONE: 2, State.QUARANTINED: 1}
    again = bring(tree)
    assert (again.stored, again.known, again.refused_before, again.quarantined) == (0, 2, 1, {})
    assert again.campaigns == told.campaigns
    assert not list(store.workers())


def test_numbers_are_the_files(tree: Path, bring: Bring, store: Store) -> None:
    bring(tree)
    records = {r.formula if hasattr(r, "formula") else r.key: r for r in store.find(state=State.DONE)}
    for record in records.values():
        result = store.site_result(record.key)
        assert isinstance(result, CurveResult)
        folder = Path(result.provenance.directory)
        lines = [x.split() for x in (folder / "xmu.dat").read_text().splitlines() if x[0] != "#"]
        table = np.array(lines, dtype=float)
        assert result.curve.energies_eV == pytest.approx(table[:, 0], abs=1e-9)
        assert result.curve.isotropic == pytest.approx(table[:, 3], rel=1e-6)  # single precision
        assert record.directory == str(folder)
        assert record.wall_s is None
        assert result.provenance.extra["adopted"] is True
    (crystal,) = store.molecules("old")
    assert (crystal.name, crystal.ground_key, crystal.sites[0].multiplicity) == ("crystals.MgO", None, 1)


def test_what_a_campaign_wants_is_not_computed_again(
    tree: Path, bring: Bring, store: Store, launchpad: LaunchPad, tmp_path: Path
) -> None:
    document = {
        "campaign": "mine",
        "structures": {"file": "POSCAR_MgO"},
        "site": {"element": "O", "edge": "K"},
        "engine": {
            "name": "feff",
            "preset": "crystal",
            "parameters": {
                "scf": {"radius_A": 3.0783},
                "fms": {"radius_A": 4.312},
                "xanes": {"grid": [["e_grid", -10, 30, 0.5]]},
            },
        },
    }
    (tmp_path / "POSCAR_MgO").write_text(POSCAR)
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(document))
    with Plan(load_campaign(path)) as plan:
        assert submit(store, launchpad, plan).calculations == 1
    told = bring(tree / "crystals")
    assert told.stored == 1
    (record,) = store.find(state=State.DONE)
    assert set(record.campaigns) == {"mine", "old"}
    assert store.counts()[State.READY] == 0


def test_two_folders_of_one_site(tree: Path, bring: Bring) -> None:
    shutil.copytree(tree / "molecules/methane", tree / "molecules/methane-again")
    told = bring(tree / "molecules/methane", tree / "molecules/methane-again", tree / "molecules/methane")
    assert (told.folders, told.stored) == (2, 1)
    assert [(Path(x.folder).name, x.why) for x in told.left] == [("methane-again", "equivalent")]


def test_a_sound_twin_takes_the_place_of_a_refused_one(tree: Path, bring: Bring, store: Store) -> None:
    folder = tree / "molecules/overlapped"
    assert bring(folder).quarantined
    sound = shutil.copytree(RUNS / "overlapped", tree / "sound/overlapped")
    again = bring(tree / "molecules/overlapped", sound)
    assert (again.stored, again.refused_before) == (1, 0)
    assert store.counts()[State.DONE] == 1
    assert store.counts()[State.QUARANTINED] == 0


def test_twins_that_contradict_each_other_are_told(tree: Path, bring: Bring) -> None:
    other = shutil.copytree(RUNS / "methane", tree / "molecules/methane-again")
    path = other / "xmu.dat"
    lines = path.read_text().splitlines(keepends=True)
    doubled = [
        x
        if x[0] == "#"
        else " ".join((*x.split()[:3], str(1.1 * float(x.split()[3])), *x.split()[4:])) + "\n"
        for x in lines
    ]
    path.write_text("".join(doubled))
    told = bring(tree / "molecules/methane", other)
    assert [(x.why, told.stored) for x in told.left] == [("contradicts", 1)]


def test_a_campaign_shares_what_was_adopted(
    tree: Path, bring: Bring, store: Store, launchpad: LaunchPad, tmp_path: Path
) -> None:
    """The other way round, and one with a gate of its own is refused in both."""
    bring(tree / "crystals")

    def plan(name: str, **gate: float) -> Plan:
        document = {
            "campaign": name,
            "structures": {"file": "POSCAR_MgO"},
            "site": {"element": "O", "edge": "K"},
            "gate": gate,
            "engine": {
                "name": "feff",
                "preset": "crystal",
                "parameters": {
                    "scf": {"radius_A": 3.0783},
                    "fms": {"radius_A": 4.312},
                    "xanes": {"grid": [["e_grid", -10, 30, 0.5]]},
                },
            },
        }
        (tmp_path / "POSCAR_MgO").write_text(POSCAR)
        (tmp_path / f"{name}.yaml").write_text(json.dumps(document))
        return Plan(load_campaign(tmp_path / f"{name}.yaml"))

    with plan("mine") as usual:
        assert submit(store, launchpad, usual).known == 1
    with plan("strict", window_eV=25.0) as strict, pytest.raises(UserError, match="judged with other limits"):
        submit(store, launchpad, strict)


def test_a_collection_of_an_older_version_goes_on(
    tree: Path, bring: Bring, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gate had another limit of the strength, which continuous spectra do not meet."""
    older = {k: v for k, v in gate_document(GateLimits()).items() if k != "strength_ratio"}
    with monkeypatch.context() as patch:
        patch.setattr(
            "htxas.launch.ingest.bring.gate_document", lambda _: {**older, "strength_range": [0.05, 1.0]}
        )
        assert bring(tree).stored == 2
    told = bring(tree)
    assert (told.stored, told.known, told.refused_before) == (0, 2, 1)
    assert {c["name"] for c in store.campaigns()} == {"old", "old-2", "old-3"}


def test_what_a_strict_campaign_wants_is_not_judged_by_others(
    tree: Path, bring: Bring, store: Store, launchpad: LaunchPad, tmp_path: Path
) -> None:
    document = {
        "campaign": "strict",
        "structures": {"file": "methane.xyz"},
        "site": {"element": "C", "edge": "K"},
        "gate": {"window_eV": 25.0},
        "engine": {
            "name": "feff",
            "preset": "molecule",
            "parameters": {"xanes": {"grid": [["e_grid", -10, 30, 0.5]]}},
        },
    }
    d = 0.629118
    atoms = ["C 0 0 0", f"H {d} {d} {d}", f"H {-d} {-d} {d}", f"H {d} {-d} {-d}", f"H {-d} {d} {-d}"]
    (tmp_path / "methane.xyz").write_text("\n".join(["5", "methane", *atoms, ""]))
    (tmp_path / "strict.yaml").write_text(json.dumps(document))
    with Plan(load_campaign(tmp_path / "strict.yaml")) as plan:
        submit(store, launchpad, plan)
    with pytest.raises(UserError, match="campaign strict wants some of these"):
        bring(tree / "molecules/methane")
    assert store.counts()[State.READY] == 1


def test_a_spectrum_too_short_for_the_broadening_stops_nothing(
    tree: Path, store: Store, launchpad: LaunchPad
) -> None:
    told = ingest(store, launchpad, find([tree]), "old", tolerance_A=0.01, sigma_eV=6.0, step_eV=0.1, jobs=1)
    assert told.stored == 0
    assert sum(x.why == "short" for x in told.left) == 2


def test_folders_within_folders_and_unreadable_ones(tree: Path, bring: Bring) -> None:
    shutil.copy(RUNS / "methane/feff.inp", tree / "feff.inp")  # left over
    told = bring(tree)
    assert (told.folders, told.stored) == (9, 2)
    said: list[tuple[str, str]] = []
    import os

    def walk(top: Path, onerror: Any) -> Any:
        onerror(PermissionError(13, "Permission denied", str(top)))
        return iter(())

    real, os.walk = os.walk, walk  # type: ignore[assignment]
    try:
        assert not list(find([tree], None, lambda *what: said.append(what)))
    finally:
        os.walk = real
    assert said == [(str(tree), "Permission denied")]


def test_killed_in_the_middle(
    tree: Path, bring: Bring, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Store, "deliver", kill)
        with pytest.raises(Killed):
            bring(tree)
    assert store.counts()[State.RUNNING] == 1
    assert bring(tree).stored == 2
    assert store.counts()[State.RUNNING] == 0


def test_several_processes_read_the_same(tree: Path, bring: Bring) -> None:
    told = bring(tree, jobs=2)
    assert (told.stored, len(told.left)) == (2, 5)


def test_a_campaign_of_another_kind_keeps_its_name(
    tree: Path, bring: Bring, submitted: Callable[..., Any]
) -> None:
    submitted("old", sizes=(1,))
    assert bring(tree / "crystals").campaigns == {"old-2": 1}


def test_a_name_that_another_structure_has(tree: Path, bring: Bring, store: Store) -> None:
    bring(tree / "crystals")
    shutil.copytree(tree / "crystals", tree / "others")
    (tree / "others/MgO/POSCAR").write_text(POSCAR.replace("0.5 0.5 0.5", "0.5 0.5 0.50001"))
    told = bring(tree / "others")
    assert (told.known, told.stored) == (0, 0)
    assert [(x.why, x.message) for x in told.left] == [("name", "two different molecules are called 'MgO'")]
    assert store.counts()[State.RUNNING] == 0


def test_the_command(
    tree: Path, store: Store, launchpad: LaunchPad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.open
    monkeypatch.setattr(Store, "open", staticmethod(lambda **kw: real(**{"name": store.name, **kw})))

    def call(*words: str) -> str:
        done = CliRunner().invoke(cli, ["ingest", *words], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    dry = call(str(tree), "-c", "old", "-j", "1", "--dry-run")
    assert dry.startswith("8 runs: 2 sound, 1 refused by the gate, 5 left out\n")
    assert sum(store.counts().values()) == 0
    out = call(str(tree), "-c", "old", "-j", "1", "--report", str(tmp_path / "left.csv"))
    assert out.startswith("8 runs: 2 stored, 1 refused by the gate, 5 left out\n")
    assert "3 ended before its end" in out or "3 ended before their end" in out
    with (tmp_path / "left.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 5
    assert json.loads(call(str(tree), "-c", "old", "-j", "1", "--json"))["known"] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "-c", "old"], "no such folder"),
        (["notes", "-c", "old"], "no run folders in it"),
        ([".", "-c", "../old"], "cannot be a name"),
    ],
)
def test_the_command_refuses(
    tree: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    with pytest.raises(UserError, match=message):
        CliRunner().invoke(cli, ["ingest", *words], catch_exceptions=False)


def test_a_run_that_was_brought_in_is_a_row_with_its_surroundings(
    tree: Path, bring: Bring, store: Store
) -> None:
    bring(tree / "crystals")
    recipe = Recipe((), window=Window(-3.0, 40, 0.25, Align.EDGE), rows=Rows.SITE)
    (record,) = StoreSource(store, "old").records(recipe)
    (site,) = record.sites
    assert record.name == "MgO"
    assert site.continuum is not None
    result = store.site_result(site.key)
    assert isinstance(result, CurveResult)
    row = curve_row(site.continuum, recipe, "x")
    expected = np.interp(
        result.edge_eV - 3.0 + 0.25 * np.arange(40), result.curve.energies_eV, result.curve.isotropic
    )
    np.testing.assert_allclose(row, expected, rtol=1e-5)
    values = {
        name: target_value(name, record, site)[0] for name in ("coordination_number", "mean_bond_length")
    }
    assert values == pytest.approx({"coordination_number": 6, "mean_bond_length": 2.106}, abs=1e-4)
