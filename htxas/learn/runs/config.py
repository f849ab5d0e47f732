"""The training file: strict YAML in, a :class:`htxas.learn.runs.plan.TrainingPlan` out."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from htxas.campaign.yamlfile import validate_yaml
from htxas.learn.data.config import DatasetSection, Strict, choice, existing, qm9_files, recipe_of
from htxas.learn.data.recipe import ModelKind
from htxas.learn.runs.network_section import NetworkSection, network_of
from htxas.learn.runs.plan import TrainingPlan

__all__ = ["read_plan"]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class _Source(Strict):
    campaign: str | None = None
    file: str | None = None
    frozen: str | None = None


class _Dataset(DatasetSection):
    source: _Source


class _File(Strict):
    name: str = Field(pattern=_NAME)
    dataset: _Dataset
    targets: list[str] = Field(min_length=1)
    models: list[str] = Field(default=[k.value for k in ModelKind], min_length=1)
    network: NetworkSection = NetworkSection()
    seed: int = 0


def read_plan(path: Path) -> TrainingPlan:
    """Read a training file; relative paths in it start at its own folder.

    Raises
    ------
    CampaignFileError
        Unknown key, wrong type, unknown target or model: file, line and key.
    """
    file, lines = validate_yaml(_File, path)
    source = file.dataset.source
    if sum(given is not None for given in (source.campaign, source.file, source.frozen)) != 1:
        raise lines.error(("dataset", "source"), "give one of campaign, file and frozen")
    others = file.dataset.model_fields_set - {"source"}
    if source.frozen is not None and others:
        key = min(others)
        raise lines.error(("dataset", key), "a frozen dataset says this itself", "leave it out")
    recipe = qm9 = None
    if source.frozen is None:
        recipe = recipe_of(file.dataset, file.targets, lines, ("dataset",))
        qm9 = qm9_files(file.dataset, path, lines, ("dataset",))
    for key in ("targets", "models"):
        if len(set(getattr(file, key))) != len(getattr(file, key)):
            raise lines.error((key,), "names one thing twice")
    here = path.resolve().parent
    return TrainingPlan(
        name=file.name,
        targets=tuple(file.targets),
        recipe=recipe,
        campaign=source.campaign,
        file=None
        if source.file is None
        else existing(here, source.file, lines, ("dataset", "source", "file"), folder=True),
        frozen=source.frozen,
        models=tuple(choice(ModelKind, m, lines, ("models", i)) for i, m in enumerate(file.models)),
        network=network_of(file.network, lines, ("network",)),
        seed=file.seed,
        qm9=qm9,
    )
