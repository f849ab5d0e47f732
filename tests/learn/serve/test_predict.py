from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from htxas.errors import DatasetError, NotFound, UserError
from htxas.learn.data.dataset import load
from htxas.learn.data.door import open_dataset
from htxas.learn.data.recipe import Recipe
from htxas.learn.data.source import FileSource
from htxas.learn.runs.config import read_plan
from htxas.learn.runs.run import WEIGHTS
from htxas.learn.runs.training import Trained
from htxas.learn.serve.answers import Prediction
from htxas.learn.serve.curves import plot_curve, write_curve
from htxas.learn.serve.formats.measured import Intensity, MeasuredSpectrum
from htxas.learn.serve.model import Model, find_model
from htxas.learn.serve.neighbours import nearest
from htxas.learn.serve.options import Normalise, Options
from htxas.learn.serve.predict import predict_dataset, predict_measured, predict_record

ModelOf = Callable[[str], Model]
Measured = Callable[..., MeasuredSpectrum]


def _by_name(predictions: list[Prediction]) -> dict[str, Prediction]:
    return {p.name: p for p in predictions}


@pytest.mark.parametrize("kind", ["A", "B"])
def test_a_saved_model_repeats_its_own_test_predictions(
    trained: Trained, model_of: ModelOf, kind: str
) -> None:
    found = _by_name(predict_dataset(model_of(f"gap-{kind}"), load(trained.dataset.path)))
    test = trained.cards[f"gap-{kind}"]["test"]
    rows = zip(
        test["ids"],
        test["true"]["gap"],
        test["predicted"]["gap"]["net"],
        test["half_width"]["gap"],
        strict=True,
    )
    for name, true, predicted, half in rows:
        (e,) = found[name].estimates
        assert (e.value, e.true) == (pytest.approx(predicted, abs=1e-6), true)
        assert e.high is not None
        assert e.high - e.value == pytest.approx(half, abs=1e-6)


def test_molecule_file_and_dataset_give_the_same_number(
    trained: Trained, model_of: ModelOf, measured: Measured, dataset_file: Path
) -> None:
    record = next(r for r in FileSource(dataset_file).records(Recipe(targets=())) if r.name == "m003")
    model = model_of("gap-B")
    expected = _by_name(predict_dataset(model, trained.dataset))["m003"].estimates[0]
    (one,) = predict_record(model, record)
    assert one.estimates[0].value == pytest.approx(expected.value, abs=1e-5)
    assert one.notes == ()
    assert one.familiarity.inside
    options = Options(excitation_energy_eV=record.excitation_energy_eV)
    got = predict_measured(model, measured(3), options, composition=record.composition)
    assert got.estimates[0].value == pytest.approx(expected.value, abs=0.02)
    assert "calibrated on computed spectra" in got.notes[0]
    assert "taken to be C K" in got.notes[-1]
    document = json.loads(json.dumps(got.to_dict()))
    assert [s["step"] for s in document["preparation"]][-1] == "resampling"
    assert document["estimates"][0]["low"] < document["estimates"][0]["value"]


def test_an_onset_that_was_found_widens_the_interval(
    trained: Trained, model_of: ModelOf, measured: Measured
) -> None:
    model = model_of("gap-A")
    got = predict_measured(
        model, measured(3, element="C", edge="K"), Options(auto_onset=True), dataset=trained.dataset
    )
    assert got.prepared is not None
    assert len(got.if_onset) == 2
    every = [got.estimates[0], *(e for es in got.if_onset.values() for e in es)]
    assert got.estimates[0].low == min(e.low for e in every)  # type: ignore[type-var]
    assert "spans those at both ends" in got.notes[0]
    assert len(got.to_dict()["if_onset_eV"]) == 2


def test_any_unit_of_intensity_gives_the_same_by_area(
    trained: Trained, model_of: ModelOf, measured: Measured, synthetic: SimpleNamespace
) -> None:
    options = Options(excitation_energy_eV=synthetic.truth(3).onset_eV, normalise=Normalise.AREA)
    values = [
        predict_measured(model_of("gap-A"), measured(3, Intensity.ARBITRARY, factor), options)
        .estimates[0]
        .value
        for factor in (1.0, 5e4)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_what_does_not_fit_the_model_is_refused(model_of: ModelOf, dataset_file: Path) -> None:
    record = next(iter(FileSource(dataset_file).records(Recipe(targets=()))))
    assert record.spectrum is not None
    model = model_of("gap-A")
    for changes, words in [
        ({"method": dataclasses.replace(record.method, edge="L1")}, "is fake C L1 .*trained on fake C K"),
        ({"spectrum": dataclasses.replace(record.spectrum, sigma_eV=0.8)}, "sigma 0.8 eV"),
        (
            {"excitation_energy_eV": record.excitation_energy_eV + 30},
            r"is known to .*the window goes from -4 to 19.9 eV",
        ),
    ]:
        with pytest.raises(DatasetError, match=words):
            predict_record(model, dataclasses.replace(record, **changes))  # type: ignore[arg-type]


def test_what_must_be_said_of_a_spectrum(
    model_of: ModelOf, measured: Measured, synthetic: SimpleNamespace
) -> None:
    options = Options(excitation_energy_eV=synthetic.truth(3).onset_eV)
    with pytest.raises(DatasetError, match="--formula"):
        predict_measured(model_of("gap-B"), measured(3), options)
    with pytest.raises(DatasetError, match="leave --counts out"):
        predict_measured(model_of("gap-A"), measured(3), options, counts=100.0)
    with pytest.raises(DatasetError, match="they have gone"):
        predict_measured(model_of("gap-A"), measured(3), Options(auto_onset=True))
    smoothed = predict_measured(model_of("gap-A"), measured(3), dataclasses.replace(options, smooth_eV=0.5))
    assert "the model was trained on spectra not smoothed" in smoothed.notes


def test_strange_input_is_predicted_with_a_verdict(
    model_of: ModelOf, measured: Measured, synthetic: SimpleNamespace
) -> None:
    options = Options(excitation_energy_eV=synthetic.truth(3).onset_eV)
    loud = predict_measured(
        model_of("gap-B"), measured(3, factor=50.0), options, composition={"C": 4, "Si": 1}
    ).familiarity
    assert not loud.inside
    assert loud.percentile == 100.0
    assert loud.verdict.startswith("OUTSIDE THE TRAINING DOMAIN")
    assert "no training molecule contains Si" in loud.verdict
    usual = predict_measured(model_of("gap-A"), measured(3), options).familiarity
    assert usual.inside
    assert usual.verdict.startswith("inside")


def test_the_nearest_training_spectrum_of_a_training_spectrum_is_itself(
    trained: Trained, model_of: ModelOf
) -> None:
    model = model_of("gap-A")
    train = trained.dataset.rows(0)  # type: ignore[arg-type]
    row = int(train[7])
    prediction = predict_dataset(model, trained.dataset)[row]
    near = nearest(model, trained.dataset, prediction.z)
    assert len(near) == 3
    assert near[0].name == trained.dataset.ids[row]
    assert near[0].key == trained.dataset.documents[row]
    assert near[0].molecule == trained.dataset.groups[row]
    assert near[0].distance == pytest.approx(0.0, abs=1e-3)
    assert near[0].true == {"gap": trained.dataset.target("gap")[row]}
    assert near[0].distance <= near[1].distance <= near[2].distance
    assert {n.name for n in near} <= {trained.dataset.ids[i] for i in train}


def test_a_curve_comes_with_its_band_as_table_and_picture(
    trained: Trained, model_of: ModelOf, measured: Measured, synthetic: SimpleNamespace, tmp_path: Path
) -> None:
    model = model_of("pdos-A")
    options = Options(excitation_energy_eV=synthetic.truth(3).onset_eV)
    got = predict_measured(model, measured(3), options)
    assert got.estimates == ()
    curve = got.curve
    assert curve is not None
    assert curve.low is not None
    assert curve.energies_eV[[0, -1]] == pytest.approx([-15.0, 4.9])
    assert (curve.low <= curve.value).all()
    write_curve(curve, tmp_path / "c.csv")
    table = np.genfromtxt(tmp_path / "c.csv", delimiter=",", names=True)
    assert table.dtype.names == ("energy_eV", "pdos", "low", "high")
    assert table["pdos"] == pytest.approx(curve.value, rel=1e-4, abs=1e-6)
    known = predict_dataset(model, trained.dataset)[3].curve
    assert known is not None
    assert known.true is not None
    write_curve(known, tmp_path / "k.csv")
    assert (tmp_path / "k.csv").read_text().startswith("energy_eV,pdos,low,high,computed\n")
    plot_curve(known, tmp_path / "k.png", title="m003")
    assert (tmp_path / "k.png").stat().st_size > 10_000
    with pytest.raises(UserError, match=r"use .png"):
        plot_curve(known, tmp_path / "k.gif", title="m003")
    with pytest.raises(UserError, match="cannot write"):
        write_curve(known, tmp_path / "none" / "k.csv")
    wide = predict_measured(model, measured(3), Options(auto_onset=True), dataset=trained.dataset).curve
    assert wide is not None
    assert wide.high is not None
    assert wide.low is not None
    assert (wide.high - wide.low).mean() > (curve.high - curve.low).mean()  # type: ignore[operator]


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


def test_the_dataset_is_found_beside_the_model_in_its_place_or_elsewhere_or_it_has_gone(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = find_model("t/gap-A", trained.out_dir.parent)
    assert Model.load(folder).dataset().key == trained.dataset.key
    copy = Model.load(Path(shutil.copytree(folder, tmp_path / "copy")))
    with pytest.raises(NotFound, match=r"its dataset .* is no longer on this machine"):
        copy.dataset()
    assert copy.dataset(lambda _: trained.dataset.path).key == trained.dataset.key
    with pytest.raises(NotFound):
        copy.dataset(lambda _: tmp_path)
    monkeypatch.setenv("HTXAS_HOME", str(trained.dataset.path.parent.parent))
    trained.dataset.path.parent.rename(trained.dataset.path.parent.parent / "datasets")
    try:
        assert copy.dataset().key == trained.dataset.key
    finally:
        (trained.dataset.path.parent.parent / "datasets").rename(trained.dataset.path.parent)


def test_a_dataset_made_otherwise_is_refused(model_of: ModelOf, training_file: Path, tmp_path: Path) -> None:
    training_file.write_text(training_file.read_text().replace("points: 240", "points: 200"))
    other = open_dataset(read_plan(training_file).dataset, tmp_path / "sets")
    with pytest.raises(DatasetError, match="differ from the model"):
        predict_dataset(model_of("gap-A"), other)
