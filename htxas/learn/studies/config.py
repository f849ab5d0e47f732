"""Reads a study file: the key ``study`` says which other keys there may be."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from htxas.campaign.yamlfile import load_yaml, validate_part
from htxas.learn.data.config import Wanted, wanted_of
from htxas.learn.studies.file import StudyFile
from htxas.learn.studies.learning_curve import LearningCurveFile
from htxas.learn.studies.noise_study import NoiseStudyFile
from htxas.learn.studies.pdos_model import PdosModelFile
from htxas.learn.studies.property_models import PropertyModelsFile
from htxas.learn.studies.size_extrapolation import SizeExtrapolationFile
from htxas.learn.studies.study import Study
from htxas.learn.studies.window_study import WindowStudyFile

__all__ = ["STUDIES", "StudyPlan", "read_study"]

STUDIES: dict[str, type[StudyFile]] = {
    "property_models": PropertyModelsFile,
    "pdos_model": PdosModelFile,
    "noise_study": NoiseStudyFile,
    "size_extrapolation": SizeExtrapolationFile,
    "learning_curve": LearningCurveFile,
    "window_study": WindowStudyFile,
}
"""Every study by name, as its file is checked."""


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """A study file after validation.

    Attributes
    ----------
    name
        Names the output folder.
    kind
        Which study, a key of :data:`STUDIES`.
    study
        The question.
    dataset
        What is learned from what.
    """

    name: str
    kind: str
    study: Study
    dataset: Wanted


def read_study(path: Path) -> StudyPlan:
    """Read a study file; relative paths in it start at its own folder.

    Raises
    ------
    CampaignFileError
        Unknown study, key or word, wrong type: file, line and key.
    """
    document, lines = load_yaml(path)
    kind = document.get("study")
    if kind is None:
        raise lines.error(("study",), "is missing", "one of " + " ".join(STUDIES))
    if kind not in STUDIES:
        near = get_close_matches(str(kind), STUDIES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else None
        raise lines.error(("study",), f"{kind!r} is not one of " + ", ".join(STUDIES), hint)
    file = validate_part(STUDIES[kind], lines, document)
    if len(set(file.seeds)) != len(file.seeds):
        raise lines.error(("seeds",), "names one thing twice")
    return StudyPlan(
        name=file.name,
        kind=str(kind),
        study=file.build(lines),
        dataset=wanted_of(file.dataset, file.targets, path, lines),
    )
