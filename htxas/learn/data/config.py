"""The part of YAML files that says what a dataset is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from htxas.campaign.yamlfile import Lines, validate_yaml
from htxas.errors import DatasetError
from htxas.learn.data.qm9 import QM9_PREFIX
from htxas.learn.data.recipe import Align, CurveRecipe, Part, Recipe, Rows, Scale, Window, Zero
from htxas.learn.data.targets import TARGETS, describe

__all__ = [
    "DatasetSection",
    "Qm9Files",
    "SourcedSection",
    "Strict",
    "Wanted",
    "choice",
    "existing",
    "qm9_files",
    "read_recipe",
    "recipe_of",
    "wanted_of",
]

_Fraction = Annotated[float, Field(ge=0.05, le=0.4)]
_E = TypeVar("_E", bound=StrEnum)
_Key = tuple[str | int, ...]
_CURVE = CurveRecipe()


class Strict(BaseModel):
    """A part of a file: no other keys, no guessed types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Qm9(Strict):
    properties: str | None = None
    molecules: str | None = None


class _Window(Strict):
    start_eV: float = -4.0
    points: int = Field(default=240, ge=20, le=5000)
    step_eV: float = Field(default=0.1, gt=0)
    align: str = Align.EXCITATION_ENERGY.value
    scale: str = Scale.ABSOLUTE.value


class _Split(Strict):
    validation: _Fraction = 0.15
    test: _Fraction = 0.15
    seed: int = 0


class _Curve(Strict):
    name: str = Field(default=_CURVE.name, pattern=r"^[a-z][a-z0-9_]*$")
    start_eV: float = _CURVE.start_eV
    points: int = Field(default=_CURVE.points, ge=20, le=5000)
    step_eV: float = Field(default=_CURVE.step_eV, gt=0)
    sigma_eV: float = Field(default=_CURVE.sigma_eV, gt=0)
    angular: list[str] = Field(default=list(_CURVE.angular), min_length=1)
    part: str = _CURVE.part.value
    zero: str = _CURVE.zero.value
    scale: str = _CURVE.scale.value


class DatasetSection(Strict):
    """What a dataset is made of, but for its source and its targets."""

    rows: str = Rows.MOLECULE.value
    window: _Window = _Window()
    sigma_eV: float | None = Field(default=None, gt=0)
    curves: list[_Curve] = []
    drop_uncovered: bool = False
    qm9: _Qm9 | None = None
    split: _Split = _Split()


class _Source(Strict):
    campaign: str | list[str] | None = None
    file: str | list[str] | None = None
    frozen: str | None = None


class SourcedSection(DatasetSection):
    """The same, and its source: campaigns, files, or a dataset that is frozen already."""

    source: _Source


class _RecipeFile(DatasetSection):
    targets: list[str] = []


@dataclass(frozen=True, slots=True)
class Qm9Files:
    """Files of QM9 properties (``gdb_id, mu, ...``) and of SMILES (``gdb_id, smiles``); one may be None."""

    properties: Path | None
    molecules: Path | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The dataset that a file asks for: :func:`htxas.learn.data.door.open_dataset` makes or finds it.

    Attributes
    ----------
    targets
        What shall be learned, by name: targets and curves.
    recipe
        How it is made; None where it is frozen.
    campaigns, files
        The sources, unless it is frozen.
    frozen
        The name, key or folder of a dataset.
    qm9
        Files of QM9 properties to join, or None.
    """

    targets: tuple[str, ...]
    recipe: Recipe | None = None
    campaigns: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    frozen: str | None = None
    qm9: Qm9Files | None = None


def wanted_of(section: SourcedSection, targets: list[str], path: Path, lines: Lines) -> Wanted:
    """Return what the section ``dataset`` and the key ``targets`` of the file ``path`` ask for.

    Raises
    ------
    CampaignFileError
        No source, a frozen one beside another, a file that is not there, an unknown word, or two things of one name:
        file, line and key.
    """
    source, at = section.source, ("dataset",)
    campaigns, files = _listed(source.campaign), _listed(source.file)
    if bool(campaigns or files) == (source.frozen is not None):
        raise lines.error((*at, "source"), "give campaigns and files, or frozen")
    if len(set(targets)) != len(targets):
        raise lines.error(("targets",), "names one thing twice")
    if source.frozen is not None:
        if others := section.model_fields_set - {"source"}:
            raise lines.error(
                (*at, min(others)), "a frozen dataset says this itself", "leave it out, or freeze another"
            )
        return Wanted(tuple(targets), frozen=source.frozen)
    here, where = path.resolve().parent, (*at, "source", "file")
    return Wanted(
        tuple(targets),
        recipe_of(section, targets, lines, at),
        campaigns,
        tuple(existing(here, file, lines, where, folder=True) for file in files),
        qm9=qm9_files(section, path, lines, at),
    )


def _listed(given: str | list[str] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(given)


def read_recipe(path: Path) -> tuple[Recipe, Qm9Files | None]:
    """Read a recipe file; relative paths in it start at its own folder.

    Raises
    ------
    CampaignFileError
        Unknown key, wrong type, unknown target, nothing to learn: file, line and key.
    """
    file, lines = validate_yaml(_RecipeFile, path)
    recipe = recipe_of(file, file.targets, lines, ())
    if not recipe.targets and not recipe.curves:
        raise lines.error(("targets",), "say what is to be learned: targets or curves")
    return recipe, qm9_files(file, path, lines, ())


def recipe_of(section: DatasetSection, targets: list[str], lines: Lines, at: _Key) -> Recipe:
    """Return the recipe of a checked section.

    Parameters
    ----------
    section, targets
        As read. Where a target has the name of a curve of the section, the curve is meant.
    lines, at
        Of the file, and where in it the section stands.

    Raises
    ------
    CampaignFileError
        An unknown word, or two things of one name.
    """
    curves = [c.name for c in section.curves]
    for i, name in enumerate(curves):
        if name in TARGETS:
            raise lines.error((*at, "curves", i, "name"), f"{name} is the name of a target")
    for names in (targets, curves):
        if len(set(names)) != len(names):
            raise lines.error(("targets",), "names one thing twice")
    for i, name in enumerate(targets):
        if name in curves:
            continue
        try:
            describe(name)
        except DatasetError as error:
            raise lines.error(("targets", i), error.message, error.hint) from None
        if name.startswith(QM9_PREFIX) and (section.qm9 is None or section.qm9.properties is None):
            raise lines.error(("targets", i), f"{name} needs {'.'.join((*map(str, at), 'qm9.properties'))}")
    window = section.window
    return Recipe(
        targets=tuple(t for t in targets if t not in curves),
        window=Window(
            window.start_eV,
            window.points,
            window.step_eV,
            choice(Align, window.align, lines, (*at, "window", "align")),
            choice(Scale, window.scale, lines, (*at, "window", "scale")),
        ),
        rows=choice(Rows, section.rows, lines, (*at, "rows")),
        curves=tuple(_curve(c, lines, (*at, "curves", i)) for i, c in enumerate(section.curves)),
        sigma_eV=section.sigma_eV,
        validation=section.split.validation,
        test=section.split.test,
        seed=section.split.seed,
        drop_uncovered=section.drop_uncovered,
    )


def _curve(curve: _Curve, lines: Lines, at: _Key) -> CurveRecipe:
    for i, name in enumerate(curve.angular):
        if name not in ("s", "p", "d") or name in curve.angular[:i]:
            raise lines.error((*at, "angular", i), f"{name!r} is not one of s, p, d, each once")
    return CurveRecipe(
        curve.name,
        curve.start_eV,
        curve.points,
        curve.step_eV,
        curve.sigma_eV,
        tuple(curve.angular),
        choice(Part, curve.part, lines, (*at, "part")),
        choice(Zero, curve.zero, lines, (*at, "zero")),
        choice(Scale, curve.scale, lines, (*at, "scale")),
    )


def qm9_files(section: DatasetSection, path: Path, lines: Lines, at: _Key) -> Qm9Files | None:
    """Return the QM9 files of a section of the file ``path``, or None.

    Raises
    ------
    CampaignFileError
        A file is not there.
    """
    if section.qm9 is None:
        return None
    here = path.resolve().parent
    names = section.qm9.model_dump(exclude_none=True)
    if not names:
        raise lines.error((*at, "qm9"), "give properties, molecules or both")
    found = {key: existing(here, name, lines, (*at, "qm9", key)) for key, name in names.items()}
    return Qm9Files(found.get("properties"), found.get("molecules"))


def choice(kind: type[_E], value: str, lines: Lines, at: _Key) -> _E:
    """Return the member of an enumeration that a word names.

    Raises
    ------
    CampaignFileError
        With all words there are.
    """
    try:
        return kind(value)
    except ValueError:
        raise lines.error(at, f"{value!r} is not one of " + ", ".join(k.value for k in kind)) from None


def existing(here: Path, name: str, lines: Lines, at: _Key, *, folder: bool = False) -> Path:
    """Return the path of a file named in the file, from its folder ``here``; or of a folder, where one will do.

    Raises
    ------
    CampaignFileError
        It is not there.
    """
    path = here / Path(name).expanduser()
    if not path.is_file() and not (folder and path.is_dir()):
        raise lines.error(at, f"there is no file {path}")
    return path
