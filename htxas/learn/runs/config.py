"""The training file: strict YAML in, a :class:`htxas.learn.runs.plan.TrainingPlan` out."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from htxas.campaign.yamlfile import validate_yaml
from htxas.learn.data.config import SourcedSection, Strict, choice, wanted_of
from htxas.learn.data.recipe import ModelKind
from htxas.learn.runs.network_section import NetworkSection, network_of
from htxas.learn.runs.plan import TrainingPlan

__all__ = ["read_plan"]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class _File(Strict):
    name: str = Field(pattern=_NAME)
    dataset: SourcedSection
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
    if len(set(file.models)) != len(file.models):
        raise lines.error(("models",), "names one thing twice")
    return TrainingPlan(
        name=file.name,
        dataset=wanted_of(file.dataset, file.targets, path, lines),
        models=tuple(choice(ModelKind, m, lines, ("models", i)) for i, m in enumerate(file.models)),
        network=network_of(file.network, lines, ("network",)),
        seed=file.seed,
    )
