"""The study file: strict YAML. Each study adds its own keys to these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from pydantic import Field

from htxas.campaign.yamlfile import Lines
from htxas.learn.data.config import SourcedSection, Strict, choice
from htxas.learn.data.recipe import ModelKind
from htxas.learn.runs.network_section import NetworkSection
from htxas.learn.studies.study import Study

__all__ = ["Folds", "Fraction", "Names", "StudyFile", "kinds_of"]

Names = Annotated[list[str], Field(min_length=1)]
Folds = Annotated[int, Field(ge=0, le=50)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class StudyFile(Strict, ABC):
    """What every study file says."""

    study: str
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    dataset: SourcedSection
    targets: Names
    network: NetworkSection = NetworkSection()
    seeds: list[int] = Field(default=[0], min_length=1)

    @abstractmethod
    def build(self, lines: Lines) -> Study:
        """Return the study.

        Raises
        ------
        CampaignFileError
            A word or a number that means nothing here.
        """


def kinds_of(models: list[str], lines: Lines) -> tuple[ModelKind, ...]:
    """Return the model kinds of the key ``models``.

    Raises
    ------
    CampaignFileError
        An unknown one, or one twice.
    """
    if len(set(models)) != len(models):
        raise lines.error(("models",), "names one thing twice")
    return tuple(choice(ModelKind, m, lines, ("models", i)) for i, m in enumerate(models))
