from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from htxas.domain.spectrum import Spectrum
from htxas.errors import DatasetError, NotFound
from htxas.learn.data.dataset import load
from htxas.learn.data.recipe import Recipe
from htxas.learn.data.source import FileSource
from htxas.learn.runs.config import read_plan
from htxas.learn.runs.run import WEIGHTS
from htxas.learn.runs.training import Trained, freeze_plan, train_plan
from htxas.learn.serve.predict import Model, find_model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, dataset_file: Path) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    path = folder / "t.yaml"
    path.write_text(
        f"name: t\ndataset:\n  source: {{file: {dataset_file}}}\ntargets: [gap]\n"
        "network: {widths: [16], members: 3, epochs: 80, patience: 80, learning_rate: 5.0e-3}\n"
    )
    plan = read_plan(path)
    return train_plan(plan, freeze_plan(plan, folder / "sets"), folder / "models" / "t", workers=0)


def _model(trained: Trained, kind: str = "A") -> Model:
    return Model.load(find_model(f"t/gap-{kind}", trained.out_dir.parent))


def _csv(path: Path, spectrum: Spectrum, column: str = "f_per_eV") -> Path:
    rows = zip(spectrum.energies_eV, spectrum.total, strict=True)
    path.write_text(f"energy_eV,{column}\n" + "".join(f"{e:.4f},{v:.9g}\n" for e, v in rows))
    return path


def _wide(synthetic: SimpleNamespace, index: int) -> Spectrum:
    """Return the synthetic spectrum with zeros added below, as a measurement would have."""
    s = synthetic.record(index).spectrum
    return Spectrum(s.start - 20, s.step_eV, np.vstack([np.zeros((20, 3)), s.intensity]), s.sigma_eV)


def test_a_saved_model_repeats_its_own_test_predictions(trained: Trained) -> None:
    for kind in "AB":
        model = _model(trained, kind)
        by_name = {p.name: p for p in model.predict_dataset(load(trained.dataset.path))}
        card = trained.cards[f"gap-{kind}"]
        test = card["test"]
        for name, true, expected in zip(
            test["ids"], test["true"]["gap"], test["predicted"]["gap"]["net"], strict=True
        ):
            assert by_name[name].value == pytest.approx(expected, abs=1e-6)
            assert by_name[name].true == true


def test_molecule_csv_and_dataset_give_the_same_number(
    trained: Trained, synthetic: SimpleNamespace, dataset_file: Path, tmp_path: Path
) -> None:
    record = next(r for r in FileSource(dataset_file).records(Recipe(())) if r.name == "m003")
    model = _model(trained, "B")
    expected = {p.name: p for p in model.predict_dataset(trained.dataset)}["m003"]
    one = model.predict_record(record)
    assert one.value == pytest.approx(expected.value, abs=1e-5)
    assert one.warnings == ()
    path = _csv(tmp_path / "m3.csv", _wide(synthetic, 3))
    measured = model.predict_csv(
        path, excitation_energy_eV=record.excitation_energy_eV, composition=record.structure.composition
    )
    assert measured.value == pytest.approx(expected.value, abs=0.02)
    assert "broadening of the file" in measured.warnings[-1]


def test_what_does_not_fit_the_model_is_refused(
    trained: Trained, synthetic: SimpleNamespace, dataset_file: Path
) -> None:
    record = next(iter(FileSource(dataset_file).records(Recipe(()))))
    model = _model(trained)
    for changes, words in [
        ({"method": dataclasses.replace(record.method, edge="L1")}, "is fake C L1 .*trained on fake C K"),
        ({"spectrum": dataclasses.replace(record.spectrum, sigma_eV=0.8)}, "sigma 0.8 eV"),
        ({"excitation_energy_eV": record.excitation_energy_eV + 30}, "the window at 19.9 eV"),
    ]:
        with pytest.raises(DatasetError, match=words):
            model.predict_record(dataclasses.replace(record, **changes))


def test_csv_mistakes(trained: Trained, synthetic: SimpleNamespace, tmp_path: Path) -> None:
    model, model_b = _model(trained), _model(trained, "B")
    good = _csv(tmp_path / "good.csv", _wide(synthetic, 3))
    onset = synthetic.truth(3).onset_eV
    narrow = _csv(tmp_path / "narrow.csv", synthetic.record(3).spectrum)
    arbitrary = _csv(tmp_path / "arbitrary.csv", _wide(synthetic, 3), "intensity")
    coarse = tmp_path / "coarse.csv"
    coarse.write_text("energy_eV,f_per_eV\n" + "".join(f"{280 + i},0.1\n" for i in range(60)))
    text = tmp_path / "text.csv"
    text.write_text("energy_eV,f_per_eV\n280,0.1\n281,abc\n")
    for chosen, path, energy, words in [
        (model, good, None, "--excitation-energy"),
        (model_b, good, onset, "--formula"),
        (model, narrow, onset, r"starts at -3.\d eV, the window at -4.0"),
        (model, good, onset + 25, "ends at"),
        (model, arbitrary, onset, "must name energy_eV and f_per_eV, not energy_eV,intensity.*scale: area"),
        (model, coarse, onset, "1.00 eV apart"),
        (model, text, onset, r"text.csv:3: not a number"),
        (model, tmp_path / "none.csv", onset, "no such file"),
    ]:
        with pytest.raises(DatasetError, match=words):
            chosen.predict_csv(path, excitation_energy_eV=energy, composition=None)


def test_strange_input_is_predicted_with_a_warning(
    trained: Trained, synthetic: SimpleNamespace, dataset_file: Path, tmp_path: Path
) -> None:
    spectrum = _wide(synthetic, 3)
    loud = dataclasses.replace(spectrum, intensity=50 * spectrum.intensity)
    model = _model(trained, "B")
    got = model.predict_csv(
        _csv(tmp_path / "loud.csv", loud),
        excitation_energy_eV=synthetic.truth(3).onset_eV,
        composition={"C": 4, "Si": 1},
    )
    text = " ".join(got.warnings)
    assert "r.m.s. z-score" in text
    assert "no training molecule contains Si" in text


def test_models_are_found_by_name_with_suggestions(trained: Trained, tmp_path: Path) -> None:
    folder = find_model("t/gap-A", trained.out_dir.parent)
    assert folder == find_model(str(folder), tmp_path)
    assert folder == find_model(str(trained.out_dir / "gap-A"), tmp_path)
    with pytest.raises(NotFound, match=r"did you mean 'gap-[AB]'"):
        find_model("t/gap-C", trained.out_dir.parent)
    with pytest.raises(NotFound, match="trainings here: t"):
        find_model("u/gap-A", trained.out_dir.parent)


def test_a_damaged_model_is_refused(trained: Trained, tmp_path: Path) -> None:
    source = find_model("t/gap-A", trained.out_dir.parent)
    (tmp_path / "card.json").write_bytes((source / "card.json").read_bytes())
    (tmp_path / WEIGHTS).write_bytes((source / WEIGHTS).read_bytes()[:50])
    with pytest.raises(DatasetError, match="not a trained model"):
        Model.load(tmp_path)


def test_a_dataset_made_otherwise_is_refused(trained: Trained, training_file: Path, tmp_path: Path) -> None:
    training_file.write_text(training_file.read_text().replace("points: 240", "points: 200"))
    other = freeze_plan(read_plan(training_file), tmp_path / "sets")
    with pytest.raises(DatasetError, match="differ from the model"):
        _model(trained).predict_dataset(other)
