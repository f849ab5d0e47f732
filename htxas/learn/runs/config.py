"""The training file: strict YAML in, a :class:`htxas.learn.data.recipe.TrainingPlan` out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from htxas.campaign.yamlfile import Lines, validate_yaml
from htxas.errors import DatasetError
from htxas.learn.data.qm9 import QM9_PREFIX
from htxas.learn.data.recipe import Align, ModelKind, Recipe, Scale, Window
from htxas.learn.data.targets import describe
from htxas.learn.nets.network import Network
from htxas.learn.runs.plan import TrainingPlan

__all__ = ["read_plan"]

_Fraction = Annotated[float, Field(ge=0.05, le=0.4)]
_E = TypeVar("_E", Align, Scale, ModelKind)
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Source(_Strict):
    campaign: str | None = None
    file: str | None = None


class _Qm9(_Strict):
    properties: str
    molecules: str | None = None


class _Window(_Strict):
    start_eV: float = -4.0
    points: int = Field(default=240, ge=20, le=5000)
    step_eV: float = Field(default=0.1, gt=0)
    align: str = Align.EXCITATION_ENERGY.value
    scale: str = Scale.ABSOLUTE.value


class _Split(_Strict):
    validation: _Fraction = 0.15
    test: _Fraction = 0.15
    seed: int = 0


class _Dataset(_Strict):
    source: _Source
    window: _Window = _Window()
    drop_uncovered: bool = False
    qm9: _Qm9 | None = None
    split: _Split = _Split()


class _Network(_Strict):
    widths: list[Annotated[int, Field(ge=1, le=4096)]] = Field(default=list(Network().widths), min_length=1)
    dropout: float = Field(default=Network().dropout, ge=0, lt=1)
    members: int = Field(default=Network().members, ge=1, le=100)
    epochs: int = Field(default=Network().epochs, ge=1)
    patience: int = Field(default=Network().patience, ge=1)
    batch: int = Field(default=Network().batch, ge=1)
    learning_rate: float = Field(default=Network().learning_rate, gt=0)
    weight_decay: float = Field(default=Network().weight_decay, ge=0)


class _File(_Strict):
    name: str = Field(pattern=_NAME)
    dataset: _Dataset
    targets: list[str] = Field(min_length=1)
    models: list[str] = Field(default=[k.value for k in ModelKind], min_length=1)
    network: _Network = _Network()
    seed: int = 0


def read_plan(path: Path) -> TrainingPlan:
    """Read a training file; relative paths in it start at its own folder.

    Raises
    ------
    CampaignFileError
        Unknown key, wrong type, unknown target or model: file, line and key.
    """
    file, lines = validate_yaml(_File, path)
    data = file.dataset
    if (data.source.campaign is None) == (data.source.file is None):
        raise lines.error(("dataset", "source"), "give one of campaign and file")
    for i, name in enumerate(file.targets):
        try:
            describe(name)
        except DatasetError as error:
            raise lines.error(("targets", i), error.message, error.hint) from None
        if name.startswith(QM9_PREFIX) and data.qm9 is None:
            raise lines.error(("targets", i), f"{name} needs dataset.qm9.properties")
    for key, values in (("targets", file.targets), ("models", file.models)):
        if len(set(values)) != len(values):
            raise lines.error((key,), "names one thing twice")
    models = tuple(_choice(ModelKind, m, lines, ("models", i)) for i, m in enumerate(file.models))
    window = Window(
        data.window.start_eV,
        data.window.points,
        data.window.step_eV,
        _choice(Align, data.window.align, lines, ("dataset", "window", "align")),
        _choice(Scale, data.window.scale, lines, ("dataset", "window", "scale")),
    )
    recipe = Recipe(
        targets=tuple(file.targets),
        window=window,
        validation=data.split.validation,
        test=data.split.test,
        seed=data.split.seed,
        drop_uncovered=data.drop_uncovered,
    )
    here = path.resolve().parent
    qm9 = data.qm9
    return TrainingPlan(
        name=file.name,
        recipe=recipe,
        campaign=data.source.campaign,
        file=_existing(here, data.source.file, lines, ("dataset", "source", "file")),
        models=models,
        network=Network(**{**file.network.model_dump(), "widths": tuple(file.network.widths)}),
        seed=file.seed,
        qm9_properties=_existing(here, qm9.properties, lines, ("dataset", "qm9", "properties"))
        if qm9
        else None,
        qm9_molecules=_existing(here, qm9.molecules, lines, ("dataset", "qm9", "molecules")) if qm9 else None,
    )


def _choice(kind: type[_E], value: str, lines: Lines, at: tuple[str | int, ...]) -> _E:
    try:
        return kind(value)
    except ValueError:
        raise lines.error(at, f"{value!r} is not one of " + ", ".join(k.value for k in kind)) from None


def _existing(here: Path, name: str | None, lines: Lines, at: tuple[str, ...]) -> Path | None:
    if name is None:
        return None
    path = here / Path(name).expanduser()
    if not path.is_file():
        raise lines.error(at, f"there is no file {path}")
    return path
