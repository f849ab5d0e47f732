"""A saved model, and what it says of a molecule, a measured spectrum or a dataset."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.torch import load_file

from htxas.errors import DatasetError, NotFound
from htxas.learn.data.dataset import CARD, Dataset
from htxas.learn.data.features import resample, window_row
from htxas.learn.data.recipe import Align, ModelKind, Recipe, Scale
from htxas.learn.data.records import Method, SpectrumRecord
from htxas.learn.data.targets import ratios
from htxas.learn.runs.model import TrainedNet
from htxas.learn.runs.run import WEIGHTS
from htxas.learn.runs.spec import RunSpec
from htxas.learn.runs.summary import METRICS

__all__ = ["Model", "Prediction", "find_model"]

FloatArray = npt.NDArray[np.float64]
_CSV_INTENSITY = {Scale.ABSOLUTE: "f_per_eV", Scale.AREA: "intensity"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """One predicted number.

    Attributes
    ----------
    name
        Molecule or file.
    value, unit
        Mean over the ensemble.
    spread
        Standard deviation over the members; not a calibrated uncertainty.
    test_mae
        Mean absolute error on the model's own test molecules.
    warnings
        Why the number may not be trusted: outside the training domain, and how.
    true
        Known value, where there is one.
    """

    name: str
    value: float
    unit: str
    spread: float
    test_mae: float
    warnings: tuple[str, ...] = ()
    true: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A trained model read from its folder.

    Attributes
    ----------
    path
        The folder.
    card
        Its JSON card.
    net
        What it computes.
    """

    path: Path
    card: dict[str, Any]
    net: TrainedNet

    @classmethod
    def load(cls, path: Path) -> Model:
        """Read a model folder.

        Raises
        ------
        DatasetError
            If its files are missing or damaged.
        """
        try:
            card = json.loads((path / CARD).read_text())
            tensors = load_file(str(path / WEIGHTS))
            net = TrainedNet.from_tensors(RunSpec.from_dict(card["spec"]), tensors)
            card["targets"], card["dataset"]["recipe"]
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise DatasetError(
                "this is not a trained model", where=str(path), hint="htxas train FILE.yaml"
            ) from error
        if len(card["targets"]) > 1 or cls(path, card, net).target["kind"] == "curve":
            raise DatasetError("predicts more than one number", where=str(path))
        return cls(path, card, net)

    @property
    def target(self) -> dict[str, Any]:
        """Name, unit, meaning and metrics of what is predicted."""
        name, described = next(iter(self.card["targets"].items()))
        return {"name": name, **described}

    @property
    def kind(self) -> ModelKind:
        """Which inputs it takes."""
        return ModelKind(self.card["spec"]["kind"])

    @property
    def recipe(self) -> Recipe:
        """How its inputs are made."""
        return Recipe.from_dict(self.card["dataset"]["recipe"])

    def predict_rows(
        self, spectra: npt.ArrayLike, composition_ratios: npt.ArrayLike
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return value (n,), member spread (n,) and r.m.s. z-score of the spectrum (n,).

        Parameters
        ----------
        spectra
            Windowed spectra, shape (n, points).
        composition_ratios
            N/C, O/C, F/C, shape (n, 3); ignored by Model-A.
        """
        points = int(self.card["inputs"]["spectrum_points"])
        got = self.net.predict(spectra, composition_ratios)
        z = self.net.standardised(spectra, composition_ratios)
        return got.value[:, 0], got.spread[:, 0], np.sqrt((z[:, :points] ** 2).mean(axis=1))

    def predict_record(self, record: SpectrumRecord) -> Prediction:
        """Predict for a computed molecule.

        Raises
        ------
        DatasetError
            If it was computed with another method, or does not cover the window.
        """
        where = f"molecule {record.name}"
        if asdict(record.method) != self.card["dataset"]["method"]:
            raise DatasetError(
                f"is {record.method}, the model was trained on {Method(**self.card['dataset']['method'])}",
                where=where,
            )
        if record.spectrum is None:
            raise DatasetError("has no molecular spectrum", where=where)
        if record.spectrum.sigma_eV != self.card["inputs"]["broadening_sigma_eV"]:
            raise DatasetError(
                f"sigma {record.spectrum.sigma_eV} eV, the model was trained at "
                f"{self.card['inputs']['broadening_sigma_eV']} eV",
                where=where,
            )
        row = window_row(record.spectrum, record.excitation_energy_eV, self.recipe.window, where=where)
        return self._one(record.name, row, record.composition)

    def predict_csv(
        self, path: Path, *, excitation_energy_eV: float | None, composition: Mapping[str, int] | None
    ) -> Prediction:
        """Predict for a spectrum in a CSV file with the columns ``energy_eV`` and ``f_per_eV`` or ``intensity``.

        ``f_per_eV`` is oscillator strength per eV and atom, what models of absolute scale need; any scale of
        ``intensity`` does for models of area scale. No background is subtracted and no broadening is added.

        Parameters
        ----------
        excitation_energy_eV
            Energy of the first final state: the window is placed from it. Required by models aligned so.
        composition
            Atoms per element; required by Model-B.

        Raises
        ------
        DatasetError
            Wrong columns, unordered or too coarse energies, a window not covered, something required missing.
        """
        window = self.recipe.window
        where = str(path)
        if window.align is Align.EXCITATION_ENERGY and excitation_energy_eV is None:
            raise DatasetError(
                "the model aligns spectra by the excitation energy", hint="give --excitation-energy EV"
            )
        if self.kind is ModelKind.B and composition is None:
            raise DatasetError("Model-B needs the composition", hint="give --formula, such as C2H6O")
        energies, intensity = _read_csv(path, _CSV_INTENSITY[window.scale], window.scale)
        sigma = float(self.card["inputs"]["broadening_sigma_eV"])
        coarsest = float(np.diff(energies).max())
        if coarsest > 0.5 * sigma + 1e-9:
            raise DatasetError(
                f"points are up to {coarsest:.2f} eV apart; sigma {sigma} eV needs at most {0.5 * sigma} eV",
                where=where,
            )
        anchor = excitation_energy_eV if excitation_energy_eV is not None else 0.0
        row = resample(energies, intensity, anchor, window, where=where, zero_below=False)
        prediction = self._one(path.name, row, composition)
        note = f"broadening of the file is taken to be the model's, sigma {sigma} eV"
        return replace(prediction, warnings=(*prediction.warnings, note))

    def predict_dataset(self, dataset: Dataset) -> list[Prediction]:
        """Predict for every molecule of a frozen dataset, beside the true value where it has the target.

        Raises
        ------
        DatasetError
            If its inputs were made in another way, or by another method.
        """
        same = (
            dataset.recipe.window == self.recipe.window
            and dataset.card["method"] == self.card["dataset"]["method"]
            and dataset.card["broadening_sigma_eV"] == self.card["inputs"]["broadening_sigma_eV"]
        )
        if not same:
            raise DatasetError(
                "window, broadening or method differ from the model's", where=str(dataset.path)
            )
        target = self.target
        known = any(t["name"] == target["name"] for t in dataset.card["targets"])
        truth = dataset.target(target["name"]) if known else None
        values, spreads, distances = self.predict_rows(dataset.spectra, dataset.ratios)
        mae = float(self.target["metrics"]["net"]["mae"])
        return [
            Prediction(
                name,
                float(values[i]),
                target["unit"],
                float(spreads[i]),
                mae,
                tuple(self._far(float(distances[i]))),
                None if truth is None else float(truth[i]),
            )
            for i, name in enumerate(dataset.ids)
        ]

    def _one(
        self, name: str, row: npt.NDArray[np.float32], composition: Mapping[str, int] | None
    ) -> Prediction:
        extra = ratios(composition, f"molecule {name}") if composition is not None else [0.0, 0.0, 0.0]
        values, spreads, distances = self.predict_rows(row[None], [extra])
        warnings = self._far(float(distances[0]))
        strange = sorted(set(composition or ()) - set(self.card["domain"]["elements"]))
        if strange:
            warnings.append(f"outside the training domain: no training molecule contains {' '.join(strange)}")
        target = self.target
        mae = float(self.target["metrics"]["net"]["mae"])
        return Prediction(name, float(values[0]), target["unit"], float(spreads[0]), mae, tuple(warnings))

    def _far(self, distance: float) -> list[str]:
        limit = float(self.card["domain"]["largest_rms_z"])
        if distance <= limit:
            return []
        return [
            f"outside the training domain: r.m.s. z-score {distance:.2f}, training spectra at most {limit:.2f}"
        ]


def find_model(text: str, models: Path) -> Path:
    """Return the folder of a model given as a path, ``TRAINING/gap-A``, or ``gap-A`` beside a ``metrics.json``.

    Parameters
    ----------
    text
        As typed.
    models
        Folder of trainings, tried after the path itself.

    Raises
    ------
    NotFound
        With what there is instead.
    """
    for base in (Path(text).expanduser(), models / text):
        if (base / CARD).is_file() and (base / WEIGHTS).is_file():
            return base
        for current in (base.parent / METRICS, base.parent.parent / METRICS):
            names = _named_models(current)
            if base.name in names:
                return current.parent / "models" / names[base.name]
            if names:
                near = get_close_matches(base.name, names, n=1)
                raise NotFound(
                    f"no model is called {base.name!r}",
                    where=str(current.parent),
                    hint=f"did you mean {near[0]!r}?" if near else "one of " + " ".join(names),
                )
    trainings = sorted(p.parent.name for p in models.glob(f"*/{METRICS}"))
    hint = "trainings here: " + " ".join(trainings) if trainings else "htxas train FILE.yaml"
    raise NotFound(f"no model {text!r}; name it TRAINING/TARGET-KIND, such as reference/gap-A", hint=hint)


def _named_models(summary: Path) -> dict[str, str]:
    try:
        return dict(json.loads(summary.read_text())["models"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # not one of ours


def _read_csv(path: Path, column: str, scale: Scale) -> tuple[FloatArray, FloatArray]:
    if not path.is_file():
        raise DatasetError("there is no such file", where=str(path))
    energies, intensity = [], []
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)
        names = [n.strip() for n in reader.fieldnames or ()]
        accepted = [column] if scale is Scale.ABSOLUTE else [column, _CSV_INTENSITY[Scale.ABSOLUTE]]
        found = next((c for c in accepted if c in names), None)
        if "energy_eV" not in names or found is None:
            hint = (
                "dataset.window.scale: area trains models for intensities in any unit"
                if scale is Scale.ABSOLUTE
                else None
            )
            raise DatasetError(
                f"the first line must name energy_eV and {' or '.join(accepted)}, not {','.join(names) or 'nothing'}",
                where=f"{path}:1",
                hint=hint,
            )
        reader.fieldnames = names
        for row in reader:
            try:
                energies.append(float(row["energy_eV"]))
                intensity.append(float(row[found]))
            except (TypeError, ValueError):
                raise DatasetError("not a number", where=f"{path}:{reader.line_num}") from None
    e = np.array(energies)
    if len(e) < 10 or not (np.diff(e) > 0).all():
        raise DatasetError("needs at least ten points in ascending energy", where=str(path))
    return e, np.array(intensity)
