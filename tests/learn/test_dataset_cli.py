"""Recipe files, ``htxas dataset``, names of datasets, and training on one that is frozen already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from htxas.cli.main import _run
from htxas.errors import CampaignFileError, DatasetError, NotFound
from htxas.learn.data.config import read_recipe
from htxas.learn.data.dataset import freeze
from htxas.learn.data.door import find_dataset, name_dataset, named_datasets, open_dataset
from htxas.learn.data.recipe import Align, Part, Rows, Scale, Zero
from htxas.learn.data.source import FileSource
from htxas.learn.runs.config import read_plan
from htxas.learn.runs.training import plan_runs

RECIPE = """\
rows: site
window: {start_eV: -2.0, points: 100, step_eV: 0.1, align: absolute, scale: area}
sigma_eV: 0.6
targets: [gap, homo]
curves:
  - {name: empty, part: unoccupied, zero: midgap, scale: absolute, angular: [p]}
split: {validation: 0.1, test: 0.2, seed: 7}
drop_uncovered: true
qm9: {properties: qm9.csv}
"""
SMALL = "targets: [gap, molecular_weight]\nwindow: {points: 200}\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    (tmp_path / "qm9.csv").write_text("gdb_id,mu\n1,0.0\n")
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_a_recipe_file_says_everything(recipe: Path) -> None:
    read, qm9 = read_recipe(recipe)
    assert read.rows is Rows.SITE
    assert (read.window.align, read.window.scale, read.window.points) == (Align.ABSOLUTE, Scale.AREA, 100)
    assert (read.sigma_eV, read.validation, read.test, read.seed, read.drop_uncovered) == (
        0.6,
        0.1,
        0.2,
        7,
        True,
    )
    (curve,) = read.curves
    assert (curve.part, curve.zero, curve.scale) == (Part.UNOCCUPIED, Zero.MIDGAP, Scale.ABSOLUTE)
    assert curve.angular == ("p",)
    assert qm9 is not None
    assert qm9.properties == recipe.parent / "qm9.csv"
    assert type(read).from_dict(json.loads(json.dumps(read.to_dict()))) == read


def test_the_template_is_a_recipe() -> None:
    read, qm9 = read_recipe(Path(__file__).parents[2] / "templates" / "dataset.yaml")
    assert qm9 is None
    assert [c.name for c in read.curves] == ["pdos"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("rows: site", "rows: atom", r":1: rows: 'atom' is not one of molecule, site"),
        ("rows:", "row:", r":1: row: unknown key.*'rows'"),
        ("points: 100", "points: 1", r":2: window.points: "),
        ("align: absolute", "align: onset", r":2: window.align: 'onset' is not one of"),
        ("sigma_eV: 0.6", "sigma_eV: 0", r":3: sigma_eV: "),
        ("homo]", "hommo]", r":4: targets.1: no target is called 'hommo'.*'homo'"),
        ("homo]", "gap]", r":4: targets: names one thing twice"),
        ("homo]", "qm9_muu]", r":4: targets.1: no target is called 'qm9_muu'.*'qm9_mu'"),
        ("name: empty", "name: gap", r":6: curves.0.name: gap is the name of a target"),
        ("name: empty", "name: Empty", r":6: curves.0.name: "),
        ("part: unoccupied", "part: open", r":6: curves.0.part: 'open' is not one of both, occupied, unocc"),
        ("zero: midgap", "zero: fermi", r":6: curves.0.zero: 'fermi' is not one of homo, midgap"),
        ("angular: [p]", "angular: [p, f]", r":6: curves.0.angular.1: 'f' is not one of s, p, d"),
        ("angular: [p]", "angular: [p, p]", r":6: curves.0.angular.1: 'p' is not one of s, p, d, each once"),
        ("angular: [p]", "angular: []", r":6: curves.0.angular: "),
        ("test: 0.2", "test: 0.6", r":7: split.test: "),
        ("qm9.csv", "none.csv", r":9: qm9.properties: there is no file .*none.csv"),
        ("{properties: qm9.csv}", "{}", r":9: qm9: give properties, molecules or both"),
    ],
)
def test_each_mistake_in_a_recipe_is_one_line(recipe: Path, old: str, new: str, words: str) -> None:
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new, 1))
    with pytest.raises(CampaignFileError, match=words) as caught:
        read_recipe(recipe)
    assert "\n" not in str(caught.value)


def test_a_recipe_has_something_to_learn(recipe: Path) -> None:
    recipe.write_text("rows: molecule\n")
    with pytest.raises(CampaignFileError, match="targets: say what is to be learned"):
        read_recipe(recipe)
    recipe.write_text("targets: [qm9_mu]\nqm9: {molecules: qm9.csv}\n")
    with pytest.raises(CampaignFileError, match=r"qm9_mu needs qm9.properties"):
        read_recipe(recipe)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = _run(list(arguments))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert _run(list(arguments)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_freeze_list_and_show(small: Path, dataset_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no datasets; htxas dataset freeze NAME" in shown(capsys, "dataset", "list")
    assert json.loads(shown(capsys, "dataset", "list", "--json")) == {}
    out = shown(capsys, "dataset", "freeze", "mine", "--from", str(dataset_file), "--recipe", str(small))
    assert "120 molecules of" in out
    assert "split scaffold" in out
    again = ("dataset", "freeze", "mine", "--from", str(dataset_file), "--recipe", str(small), "--json")
    card = json.loads(shown(capsys, *again))
    assert card["counts"]["rows"] == 120
    listed = json.loads(shown(capsys, "dataset", "list", "--json"))
    assert list(listed) == ["mine"]
    assert listed["mine"]["key"] == card["key"]
    assert listed["mine"]["learns"] == ["gap", "molecular_weight"]
    assert "mine" in shown(capsys, "dataset", "list")
    for name in ("mine", card["key"][:6], card["path"]):
        assert json.loads(shown(capsys, "dataset", "show", name, "--json"))["key"] == card["key"]
    words = " ".join(shown(capsys, "dataset", "show", "mine").split())
    assert "oscillator strength / eV / atom" in words
    assert "target gap LUMO minus HOMO" in words


def test_a_name_stays_with_its_dataset(
    small: Path, dataset_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    freeze_it = ("dataset", "freeze", "mine", "--from", str(dataset_file), "--recipe", str(small))
    shown(capsys, *freeze_it)
    small.write_text(SMALL.replace("200", "210"))
    assert "'mine' is another dataset" in refused(capsys, *freeze_it)
    assert "choose another name" in refused(capsys, *freeze_it)
    # It is frozen all the same, without a name.
    assert len(json.loads(shown(capsys, "dataset", "list", "--json"))) == 2


def test_errors_are_one_line(small: Path, dataset_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, "dataset", "show", "none")
    assert "no dataset 'none'" in error
    assert "htxas dataset freeze NAME" in error
    error = refused(
        capsys,
        "dataset",
        "freeze",
        "x",
        "--from",
        str(dataset_file),
        "--recipe",
        str(small.parent / "no.yaml"),
    )
    assert "no.yaml: cannot be read" in error
    text = small.parent / "text.h5"
    text.write_text("not HDF5")
    error = refused(capsys, "dataset", "freeze", "x", "--from", str(text), "--recipe", str(small))
    assert "not a readable HDF5 file" in error


def test_names_are_links_and_never_replace(small: Path, dataset_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    data = freeze(FileSource(dataset_file), read_recipe(small)[0], folder)
    assert named_datasets(folder) == {data.path.name: data.path}
    name_dataset(data, "one", folder)
    name_dataset(data, "one", folder)
    name_dataset(data, "two", folder)
    assert set(named_datasets(folder)) == {"one", "two"}
    (folder / "taken").mkdir()
    with pytest.raises(DatasetError, match="this name is taken"):
        name_dataset(data, "taken", folder)
    assert find_dataset("one", folder).key == data.key
    with pytest.raises(NotFound, match="there are: one two"):
        find_dataset("three", folder)


def test_molecules_alone_go_with_published_files(
    small: Path, dataset_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small.parent / "m.csv").write_text("gdb_id,smiles\n1,C\n")
    small.write_text(SMALL + "qm9: {molecules: m.csv}\n")
    error = refused(capsys, "dataset", "freeze", "x", "--from", str(dataset_file), "--recipe", str(small))
    assert "qm9.molecules alone is for files of the published layout" in error


# --- training


def training(folder: Path, dataset: str, rest: str = "") -> Path:
    path = folder / "train.yaml"
    path.write_text(
        f"name: frozen\ndataset:\n  source: {{frozen: {dataset}}}\n{rest}targets: [gap]\nmodels: [A]\n"
    )
    return path


def test_training_on_a_frozen_dataset(
    small: Path, dataset_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = json.loads(
        shown(
            capsys, "dataset", "freeze", "mine", "--from", str(dataset_file), "--recipe", str(small), "--json"
        )
    )
    folder = Path(card["path"]).parent
    plan = read_plan(training(tmp_path, "mine"))
    data = open_dataset(plan.dataset, folder)
    assert data.key == card["key"]
    assert [s.dataset_key for s in plan_runs(plan, data)] == [card["key"]]
    assert len(list(folder.glob("*/card.json"))) == 2  # the folder and its name: nothing was frozen anew
    other = training(tmp_path, "mine")
    other.write_text(other.read_text().replace("[gap]", "[homo]"))
    with pytest.raises(DatasetError, match="no target 'homo', only gap molecular_weight"):
        open_dataset(read_plan(other).dataset, folder)
    with pytest.raises(NotFound, match=r"no dataset 'nothing'.*there are: mine"):
        open_dataset(read_plan(training(tmp_path, "nothing")).dataset, folder)


def test_a_frozen_dataset_is_not_changed_by_a_training_file(tmp_path: Path) -> None:
    with pytest.raises(CampaignFileError, match=r":4: dataset.window: a frozen dataset says this itself"):
        read_plan(training(tmp_path, "mine", "  window: {points: 100}\n"))
    path = training(tmp_path, "mine")
    path.write_text(path.read_text().replace("frozen: mine", "frozen: mine, campaign: x"))
    with pytest.raises(CampaignFileError, match="give campaigns and files, or frozen"):
        read_plan(path)
