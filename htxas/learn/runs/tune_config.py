"""The tuning file: strict YAML in, a :class:`TunePlan` out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from htxas.campaign.yamlfile import Lines, validate_yaml
from htxas.learn.data.config import SourcedSection, Strict, Wanted, choice, wanted_of
from htxas.learn.data.recipe import ModelKind
from htxas.learn.nets.network import Network
from htxas.learn.runs.network_section import NetworkSection, network_of

__all__ = ["Pruning", "TunePlan", "read_tuning"]

_Count = Annotated[int, Field(ge=1, le=4096)]
Choices = tuple[Any, ...]
Range = tuple[float, float]


class Pruning(StrEnum):
    """When a trial is given up before its end."""

    MEDIAN = "median"  # worse than the median of earlier trials at the same epoch
    HYPERBAND = "hyperband"  # brackets of trials, the worse part of each given up early
    NONE = "none"


class _Search(Strict):
    widths: list[Annotated[list[_Count], Field(min_length=1)]] | None = Field(default=None, min_length=2)
    batch: list[_Count] | None = Field(default=None, min_length=2)
    dropout: list[float] | None = Field(default=None, min_length=2, max_length=2)
    learning_rate: list[float] | None = Field(default=None, min_length=2, max_length=2)
    weight_decay: list[float] | None = Field(default=None, min_length=2, max_length=2)


class _File(Strict):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    dataset: SourcedSection
    targets: list[str] = Field(min_length=1)
    model: str = ModelKind.A.value
    split: str = "molecule"
    network: NetworkSection = NetworkSection()
    search: _Search
    trials: int = Field(default=40, ge=2)
    pruning: str = Pruning.MEDIAN.value
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TunePlan:
    """A tuning file after validation.

    Attributes
    ----------
    name
        Names the output folder.
    dataset, kind, split
        What is learned from what.
    network
        The first trial, and what the others keep where nothing is searched.
    choices, ranges
        What is searched, by field of the network: values to choose from, or lowest and highest.
    trials, pruning, seed
        How it is searched.
    """

    name: str
    dataset: Wanted
    kind: ModelKind
    split: str
    network: Network
    choices: Mapping[str, Choices]
    ranges: Mapping[str, Range]
    trials: int
    pruning: Pruning
    seed: int


def read_tuning(path: Path) -> TunePlan:
    """Read a tuning file; relative paths in it start at its own folder.

    Raises
    ------
    CampaignFileError
        Unknown key or word, nothing to search, or a first net outside of what is searched: file, line and key.
    """
    file, lines = validate_yaml(_File, path)
    network = network_of(file.network, lines, ("network",))
    choices, ranges = _space(file.search, network, lines)
    return TunePlan(
        name=file.name,
        dataset=wanted_of(file.dataset, file.targets, path, lines),
        kind=choice(ModelKind, file.model, lines, ("model",)),
        split=file.split,
        network=network,
        choices=choices,
        ranges=ranges,
        trials=file.trials,
        pruning=choice(Pruning, file.pruning, lines, ("pruning",)),
        seed=file.seed,
    )


def _space(search: _Search, network: Network, lines: Lines) -> tuple[dict[str, Choices], dict[str, Range]]:
    choices: dict[str, Choices] = {}
    if search.widths is not None:
        choices["widths"] = tuple(tuple(w) for w in search.widths)
    if search.batch is not None:
        choices["batch"] = tuple(search.batch)
    for name, values in choices.items():
        if len(set(values)) != len(values):
            raise lines.error(("search", name), "names one thing twice")
        if getattr(network, name) not in values:
            first = getattr(network, name)
            shown = list(first) if isinstance(first, tuple) else first
            raise lines.error(("search", name), f"the first trial's {name}, {shown}, is not among these")
    ranges: dict[str, Range] = {}
    for name in ("dropout", "learning_rate", "weight_decay"):
        if (given := getattr(search, name)) is None:
            continue
        low, high = given
        least = 0.0 if name == "dropout" else 1e-12
        most = 0.95 if name == "dropout" else float("inf")
        if not least <= low < high <= most:
            what = "0 to 0.95" if name == "dropout" else "numbers above 0"
            raise lines.error(("search", name), f"is not a range [low, high] of {what}")
        if not low <= getattr(network, name) <= high:
            first = getattr(network, name)
            raise lines.error(("search", name), f"the first trial's {name}, {first:g}, is not between these")
        ranges[name] = (low, high)
    if not choices and not ranges:
        raise lines.error(("search",), "nothing is searched")
    return choices, ranges
