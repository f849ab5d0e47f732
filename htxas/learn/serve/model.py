"""A saved model: its folder, its card, its net, and the dataset it was trained on, if that is still there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from htxas.errors import DatasetError, NotFound
from htxas.learn.data.dataset import CARD, Dataset, load
from htxas.learn.data.recipe import ModelKind, Recipe
from htxas.learn.data.records import Method
from htxas.learn.runs.model import TrainedNet
from htxas.learn.runs.run import WEIGHTS
from htxas.learn.runs.spec import RunSpec
from htxas.learn.runs.summary import METRICS
from htxas.settings import datasets_folder

__all__ = ["Model", "find_model"]

Elsewhere = Callable[[str], Path | None]


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
            card["targets"], card["dataset"]["recipe"], card["inputs"]["broadening_sigma_eV"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DatasetError(
                "this is not a trained model", where=str(path), hint="htxas train FILE.yaml"
            ) from error
        return cls(path, card, net)

    @property
    def name(self) -> str:
        """Such as ``gap-A``."""
        return str(self.card["name"])

    @property
    def key(self) -> str:
        """Content hash of the run that made it."""
        return str(self.card["key"])

    @property
    def kind(self) -> ModelKind:
        """Which inputs it takes."""
        return self.net.spec.kind

    @property
    def recipe(self) -> Recipe:
        """How its inputs are made."""
        return Recipe.from_dict(self.card["dataset"]["recipe"])

    @property
    def method(self) -> Method:
        """What its training spectra are of."""
        return Method(**self.card["dataset"]["method"])

    @property
    def sigma_eV(self) -> float:
        """Broadening of its training spectra."""
        return float(self.card["inputs"]["broadening_sigma_eV"])

    @property
    def targets(self) -> dict[str, dict[str, Any]]:
        """What it predicts: unit, meaning, metrics by name."""
        return dict(self.card["targets"])

    @property
    def is_curve(self) -> bool:
        """Whether it predicts a curve, not numbers."""
        return any(t["kind"] == "curve" for t in self.targets.values())

    @property
    def of_continua(self) -> bool:
        """Whether its training spectra are continuous."""
        return "lifetime_eV" in self.card["inputs"]

    @property
    def columns(self) -> slice:
        """Points of the window that it sees."""
        first, last = self.net.spec.columns or (0, self.recipe.window.points - 1)
        return slice(first, last + 1)

    def dataset(self, elsewhere: Elsewhere | None = None) -> Dataset:
        """Open the frozen dataset it was trained on.

        Parameters
        ----------
        elsewhere
            Asked for a folder by the dataset's key, where it is neither beside the model nor in the usual place.

        Raises
        ------
        NotFound
            If it has gone.
        """
        key = str(self.card["dataset"]["key"])
        for path in (self._beside(), datasets_folder() / key[:16]):
            if path is not None and (found := _opened(path, key)) is not None:
                return found
        path = elsewhere(key) if elsewhere is not None else None
        if path is not None and (found := _opened(path, key)) is not None:
            return found
        raise NotFound(
            f"its dataset {key[:12]} ({self.card['dataset']['source']}) is no longer on this machine",
            where=str(self.path),
        )

    def _beside(self) -> Path | None:
        try:
            return Path(json.loads((self.path.parent.parent / METRICS).read_text())["dataset"]["path"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # copied without its training


def _opened(path: Path, key: str) -> Dataset | None:
    try:
        dataset = load(path)
    except DatasetError:
        return None
    return dataset if dataset.key == key else None


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
