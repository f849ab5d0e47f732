from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from htxas.assets import workflow
from htxas.campaign.file import load_campaign
from htxas.cli.main import _run
from htxas.domain.calculation import Calculation, Kind
from htxas.errors import DatabaseUnavailable, DatasetError, UserError
from htxas.learn.choose.descriptors import DESCRIPTORS, describe_molecule
from htxas.learn.choose.differences import over_molecules, over_repeats
from htxas.learn.choose.extend import propose, smi_text, write_new
from htxas.learn.choose.halves import run_halves
from htxas.learn.choose.known import Known, gather
from htxas.learn.choose.next_campaign import free_name, write_campaign
from htxas.learn.choose.strategies import Strategy
from htxas.learn.choose.study import (
    ERRORS,
    Plan,
    curve_plot,
    markdown,
    run_study,
    study_targets,
    verdicts,
    write_report,
)
from htxas.learn.data.recipe import Window
from htxas.store.records import MoleculeRecord, PlannedCalculation, SiteRef, StructureRecord
from tests.learn.test_store_source import PARAMETERS, _finish, _site_result

SMILES = [line.split()[0] for line in workflow("reference/molecules.smi").read_text().splitlines()]


@pytest.fixture(scope="module")
def known() -> Known:
    """Real molecules with invented spectra that follow from their descriptors."""
    smiles = tuple(sorted(SMILES[:120]))
    x = np.array([describe_molecule(s) for s in smiles])
    z = (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    rng = np.random.default_rng(0)
    spectra = np.tanh(z @ rng.normal(size=(DESCRIPTORS, 5)) / 8) @ rng.normal(size=(5, 240))
    targets = np.column_stack([spectra[:, 0], spectra[:, 50], spectra[:, 90]])
    return Known(
        names=tuple(f"k{i}" for i in range(len(smiles))),
        smiles=smiles,
        descriptors=x,
        spectra=spectra.astype(np.float32),
        targets=targets,
        target_names=("excitation_energy", "gap", "lumo"),
        element="C",
        left_out={},
        unused=frozenset(),
    )


@pytest.fixture
def candidates(tmp_path: Path) -> Path:
    path = tmp_path / "list.smi"
    path.write_text("".join(f"{s} m{i}\n" for i, s in enumerate(SMILES[100:300])))
    return path


@pytest.mark.parametrize("strategy", list(Strategy))
def test_the_choice_depends_on_the_list_alone(known: Known, candidates: Path, strategy: Strategy) -> None:
    first = propose(known, (), candidates, strategy=strategy, budget=10)
    assert len({c.smiles for c in first.choices}) == 10
    assert not {c.smiles for c in first.choices} & set(known.smiles)
    assert first.candidates == 200
    assert len(first.left_out["already in the campaign or dataset"]) == 20
    assert all(c.nearest in known.names and 0 <= c.similarity <= 1 for c in first.choices)
    lines = candidates.read_text().splitlines(keepends=True)
    candidates.write_text("".join(reversed(lines)))
    again = propose(known, (), candidates, strategy=strategy, budget=10)
    assert again.choices == first.choices
    assert smi_text(first.choices).splitlines()[0] == f"{first.choices[0].smiles} {first.choices[0].name}"


def test_what_waits_counts_as_known(known: Known, candidates: Path) -> None:
    first = propose(known, (), candidates, strategy=Strategy.UNCERTAINTY, budget=3)
    waiting = [first.choices[0].smiles]
    then = propose(known, waiting, candidates, strategy=Strategy.UNCERTAINTY, budget=2)
    assert then.pending == 1
    assert [c.smiles for c in then.choices] == [c.smiles for c in first.choices[1:]]
    total = first.choices[0].score or 0.0
    assert 0 < total < 1
    assert first.choices[0].disagreement is not None


def test_refusals(known: Known, candidates: Path) -> None:
    few = dataclasses.replace(known, names=known.names[:5], smiles=known.smiles[:5])
    with pytest.raises(DatasetError, match="5 computed molecules"):
        propose(few, (), candidates, strategy=Strategy.UNCERTAINTY, budget=3)
    with pytest.raises(UserError, match="fewer than 1000"):
        propose(known, (), candidates, strategy=Strategy.RANDOM, budget=1000)


def test_files_are_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "n.smi"
    write_new(path, "C a\n")
    write_new(path, "C a\n")
    with pytest.raises(UserError, match="another one"):
        write_new(path, "CC b\n")


def test_gather_keeps_each_molecule_once(synthetic: SimpleNamespace) -> None:
    records = synthetic.records(30)
    again = dataclasses.replace(records[3], name="again")
    nameless = dataclasses.replace(records[4], name="nameless", smiles=None)
    short = dataclasses.replace(records[29], complete_to_eV=records[29].excitation_energy_eV + 5)
    source = synthetic.source([*records[:29], again, nameless, short])
    known = gather([source], ("gap",), Window())
    assert list(known.smiles) == sorted(known.smiles)
    assert known.left_out["without a SMILES"] == ["nameless"]
    assert "again" in known.left_out["the same molecule again"]
    assert known.left_out["not complete to 19.9 eV"] == ["m029"]
    row = known.names.index("m005")
    assert known.targets[row, 0] == records[5].ground["gap_eV"]
    other = dataclasses.replace(
        records[0], name="other", method=dataclasses.replace(records[0].method, engine="feff")
    )
    with pytest.raises(DatasetError, match="one model, one method"):
        gather([synthetic.source([*records[:5], other])], (), Window())


CAMPAIGN = """\
campaign: first
structures: {{file: m.smi, geometry: {{method: gfn2-xtb}}}}
site: {{element: C, edge: K}}
engine: {{name: fake, preset: instant{parameters}}}
"""


def test_the_next_campaign_asks_for_the_same_calculations(tmp_path: Path) -> None:
    (tmp_path / "m.smi").write_text("C methane\n")
    (tmp_path / "n.smi").write_text("CC ethane\n")
    path = tmp_path / "c.yaml"
    path.write_text(CAMPAIGN.format(parameters=""))
    document = json.loads(json.dumps(load_campaign(path).document))
    assert write_campaign(tmp_path / "n.yaml", tmp_path / "n.smi", "first-2", document)
    read = load_campaign(tmp_path / "n.yaml")
    assert read.name == "first-2"
    assert [s.path.name for s in read.sources] == ["n.smi"]
    assert json.loads(json.dumps(read.document))["parameters"] == document["parameters"]
    document["parameters"]["site"]["seconds"] = 77  # set by hand: a preset does not give it
    assert not write_campaign(tmp_path / "o.yaml", tmp_path / "n.smi", "first-2", document)
    assert not (tmp_path / "o.yaml").exists()
    assert free_name("a", {"a", "a-2", "a-3"}) == "a-4"


def test_study(known: Known, tmp_path: Path) -> None:
    plan = Plan(start=30, step=15, steps=2, repeats=2)
    curves = run_study(known, plan)
    assert curves.sizes == (30, 45, 60)
    for by in curves.errors.values():
        assert set(by) == set(ERRORS)
        assert all(v.shape == (2, 3) and np.isfinite(v).all() for v in by.values())
    start = [curves.errors[s.value]["structure_spectrum"][:, 0] for s in Strategy]
    assert np.array_equal(start[0], start[1])
    assert np.array_equal(start[0], start[2])
    assert len(verdicts(curves)) == 2 * len(ERRORS)
    assert "random choice" in markdown(curves)
    curve_plot(curves, tmp_path / "c.png")
    assert write_report(curves, tmp_path / "report") == (tmp_path / "report" / "table.md").read_text()
    assert (tmp_path / "report" / "curves.json").read_text() == json.dumps(curves.to_dict(), indent=1) + "\n"
    assert json.loads(json.dumps(curves.to_dict()))["molecules"] == 120
    assert study_targets(("gap",)) == ("excitation_energy", "gap")
    with pytest.raises(DatasetError, match="lower --start"):
        run_study(known, Plan(start=100, step=50))


def test_two_lists_that_were_computed(known: Known) -> None:
    start, chosen, drawn = (known.names[a:b] for a, b in ((0, 30), (30, 62), (62, 120)))
    how = {"test": 20, "step": 15, "repeats": 2, "properties": ("gap", "lumo")}
    curves = run_halves(known, start, [*chosen, "failed"], drawn, **how)
    assert curves.sizes == (30, 45, 60)
    assert list(curves.errors) == ["uncertainty", "random"]
    ours, chance = (curves.errors[s]["structure_energy"] for s in ("uncertainty", "random"))
    assert np.array_equal(ours[:, 0], chance[:, 0])
    assert (ours[:, 1] != chance[:, 1]).all()
    assert len(verdicts(curves)) == len(ERRORS)
    again = run_halves(known, start, chosen, drawn, **how)
    assert np.array_equal(again.errors["random"]["structure_energy"], chance)
    with pytest.raises(
        DatasetError, match="30 molecules to start with, 32 chosen and 58 random ones, 50 of them"
    ):
        run_halves(known, start, chosen, drawn, **how | {"test": 50})


def test_command_on_a_file_without_a_database(
    dataset_file: Path, candidates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smi = tmp_path / "next.smi"
    arguments = ["campaign", "extend", "synthetic", "--by", "uncertainty", "--budget", "4"]
    more = ["--from", str(candidates), "--dataset", str(dataset_file), "-o", str(smi)]
    assert _run([*arguments, *more]) == 0
    shown = capsys.readouterr().out
    assert "synthetic: 4 molecules by uncertainty" in shown
    assert "campaign synthetic is known from synthetic.h5 alone" in shown
    assert "next: copy the campaign file of synthetic with campaign: synthetic-2" in shown
    assert len(smi.read_text().splitlines()) == 4
    assert _run([*arguments, *more, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [f"{c['smiles']} {c['name']}" for c in document["choices"]] == smi.read_text().splitlines()
    assert _run(["campaign", "extend", "other", *arguments[3:], *more]) == 1
    assert "no campaign is called 'other'" in capsys.readouterr().err


def test_command_needs_a_database_for_a_campaign(
    candidates: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from htxas.store.store import Store

    def away() -> None:
        raise DatabaseUnavailable("no database has been started here", hint="htxas db up")

    monkeypatch.setattr(Store, "open", staticmethod(away))
    arguments = ["--by", "random", "--budget", "4", "--from", str(candidates)]
    assert _run(["campaign", "extend", "x", *arguments]) == 1
    assert "htxas db up" in capsys.readouterr().err


@pytest.mark.mongo
def test_command_on_a_campaign(
    store: Any,
    synthetic: SimpleNamespace,
    tmp_path: Path,
    candidates: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(CAMPAIGN.format(parameters=""))
    (tmp_path / "m.smi").write_text("C methane\n")
    _fill(store, synthetic, load_campaign(path).document, count=40, done=30)
    from htxas.store.store import Store

    monkeypatch.setattr(Store, "open", staticmethod(lambda: nullcontext(store)))
    monkeypatch.chdir(tmp_path)
    arguments = ["--by", "uncertainty", "--budget", "5", "--from", str(candidates)]
    assert _run(["campaign", "extend", "first", *arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["known"] + sum(map(len, document["known_left_out"].values())) == 30
    assert document["pending"] > 0
    assert document["next"] == "next: htxas campaign plan first-next.yaml"
    assert load_campaign(tmp_path / "first-next.yaml").name == "first-2"
    _fill(
        store, synthetic, load_campaign(path).document | {"campaign": "later"}, count=45, done=0, name="later"
    )
    both = ["--dataset", "first", "--dataset", "later", "-o", "both.smi", "--json"]
    assert _run(["campaign", "extend", "first", *arguments, *both]) == 0
    assert json.loads(capsys.readouterr().out)["pending"] == document["pending"] + 5  # what waits in either
    assert _run(["campaign", "extend", "frist", *arguments]) == 1
    assert "did you mean first?" in capsys.readouterr().err


def _fill(
    store: Any,
    synthetic: SimpleNamespace,
    document: dict[str, Any],
    *,
    count: int,
    done: int,
    name: str = "first",
) -> None:
    entries = [synthetic.entry(i) for i in range(count)]
    store.put_campaign(name, document)
    store.put_structures([StructureRecord(e.structure, e.smiles, {}) for e in entries])
    for i, entry in enumerate(entries):
        key = entry.structure.key
        site = Calculation(Kind.SITE, key, "fake", PARAMETERS, "C", "K", entry.structure.indices_of("C")[0])
        ref = SiteRef(site.key, site.atom or 0, 0, "C", 1, (0,))
        store.put_calculations(name, [PlannedCalculation(site, 1.0)])
        store.put_molecules(
            [MoleculeRecord(name, entry.name, key, None, entry.smiles, entry.file_order, (ref,))]
        )
        if i < done:
            _finish(store, site, entry.structure, _site_result(entry.sites[0]))


def test_halves_share_no_molecule(known: Known) -> None:
    start, chosen, drawn = (known.names[a:b] for a, b in ((0, 30), (30, 62), (62, 120)))
    how = {"test": 20, "step": 15, "repeats": 2, "properties": ("gap", "lumo")}
    plain = run_halves(known, start, chosen, drawn, **how)
    careless = run_halves(known, [*start, *chosen[:3], *drawn[:5]], chosen, drawn, **how)
    for error, by in plain.errors["random"].items():
        assert np.array_equal(careless.errors["random"][error], by)
    with pytest.raises(DatasetError, match="2 molecules are in both lists"):
        run_halves(known, start, [*chosen, *drawn[:2]], drawn, **how)


def test_more_repeats_of_the_same_molecules_do_not_make_sure() -> None:
    """Two ways that differ by noise alone: twice its error is exceeded about once in twenty, however many repeats."""
    generator = np.random.default_rng(0)
    sizes, sure = np.array([100.0, 150.0]), 0
    for _ in range(200):
        truth = generator.normal(
            1.0, 0.1, (300, 2, 2)
        )  # squared errors of 300 molecules, two ways, two sizes
        held = [generator.permutation(300)[:75] for _ in range(40)]
        ours, chance = (np.array([np.sqrt(truth[h, way].mean(axis=0)) for h in held]) for way in (0, 1))
        found = over_repeats(ours, chance, 75, sizes)
        sure += abs(found.mean) > 2 * found.error
        per_molecule = over_molecules(truth[:, 0], truth[:, 1], 0)
        assert per_molecule.error == pytest.approx(0.1 / np.sqrt(2) / np.sqrt(300), rel=0.25)
    assert sure < 20
