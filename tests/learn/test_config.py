from __future__ import annotations

from pathlib import Path

import pytest

from htxas.errors import CampaignFileError
from htxas.learn.data.recipe import Align, ModelKind, Scale
from htxas.learn.nets.network import Network
from htxas.learn.runs.config import read_plan


def test_defaults_are_the_published_settings(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("name: x\ndataset:\n  source: {campaign: demo}\ntargets: [gap]\n")
    plan = read_plan(path)
    assert plan.dataset.campaigns == ("demo",)
    assert plan.dataset.files == ()
    assert plan.dataset.recipe is not None
    window = plan.dataset.recipe.window
    assert (window.points, window.step_eV, window.start_eV) == (240, 0.1, -4.0)
    assert window.align is Align.EXCITATION_ENERGY
    assert window.scale is Scale.ABSOLUTE
    assert plan.models == (ModelKind.A, ModelKind.B)
    assert plan.network == Network()


def test_files_are_found_beside_the_training_file(training_file: Path, dataset_file: Path) -> None:
    link = training_file.parent / "here.h5"
    link.symlink_to(dataset_file)
    training_file.write_text(training_file.read_text().replace(str(dataset_file), "here.h5"))
    assert read_plan(training_file).dataset.files == (link,)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "targets:",
            "  curves: [{name: gap}]\ntargets:",
            r":6: dataset.curves.0.name: gap is the name of a target",
        ),
        ("homo", "gap", r":6: targets: names one thing twice"),
        ("seed: 1", "sead: 1", r":5: dataset.split.sead: unknown key.*'seed'"),
        ("homo", "hommo", r":6: targets.1: no target is called 'hommo'.*'homo'"),
        ("[A, B]", "[A, C]", r":7: models.1: 'C' is not one of A, B"),
        ("[A, B]", "[A, A]", r":7: models: names one thing twice"),
        ("points: 240", "points: many", r":4: dataset.window.points: a number is needed"),
        ("start_eV: -4.0", "start_eV: -4 eV", r":4: dataset.window.start_eV: a number in eV is needed"),
        ("excitation_energy", "onset", r":4: dataset.window.align: 'onset' is not one of"),
        ("test: 0.2", "test: 0.9", r":5: dataset.split.test: .*0.4"),
        ("source: {", "source: {frozen: c, ", r":3: dataset.source: give campaigns and files, or frozen"),
        ("gap, homo", "gap, qm9_mu", r":6: targets.1: qm9_mu needs dataset.qm9.properties"),
        ("name: synthetic", "name: ../up", r":1: name: "),
        (".h5}", ".h5x}", r":3: dataset.source.file: there is no file"),
    ],
)
def test_each_mistake_is_one_line_with_file_line_and_key(
    training_file: Path, old: str, new: str, words: str
) -> None:
    text = training_file.read_text()
    assert old in text
    training_file.write_text(text.replace(old, new, 1))
    with pytest.raises(CampaignFileError, match=words) as caught:
        read_plan(training_file)
    assert "\n" not in str(caught.value)
    assert str(training_file) in str(caught.value)
