"""The campaign file: read, checked against engines and files, resolved."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from htxas.campaign.schema import CampaignModel, GeometryModel, SourceModel
from htxas.campaign.yamlfile import Lines, validate_yaml
from htxas.domain.elements import atomic_number, check_edge
from htxas.domain.gate import GateLimits
from htxas.engines.base import Engine, ResolvedParameters
from htxas.engines.registry import get_engine
from htxas.errors import UserError
from htxas.structures.source import file_sha256

__all__ = ["CampaignFile", "Geometry", "Source", "gate_document", "load_campaign"]


@dataclass(frozen=True, slots=True)
class Geometry:
    """How geometries are made from SMILES.

    Attributes
    ----------
    method
        ``gfn2-xtb``.
    fmax_eV_per_A
        A relaxation ends when no force is larger.
    relax
        Relax geometries that the file gives, too.
    shipped
        Folder of finished geometries that come with the campaign file, or None: with them the calculations have the
        same identity on every machine.
    """

    method: str
    fmax_eV_per_A: float
    relax: bool
    shipped: Path | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file of structures and which of its molecules are wanted.

    Attributes
    ----------
    path
        Absolute path.
    written
        As in the campaign file, for messages.
    limit
        Take at most so many, in the order of the file; None takes all.
    names
        Take only these; None takes all.
    exclude
        Leave these out.
    geometry
        How to make or relax geometries; None takes them as they are.
    given_method
        What the file's geometries were made with, for their provenance; None where the file says or nobody knows.
    skip
        Leave out, and list, molecules that cannot be read, made or computed; otherwise the first one is an error.
    """

    path: Path
    written: str
    limit: int | None
    names: frozenset[str] | None
    exclude: frozenset[str]
    geometry: Geometry | None
    given_method: str | None
    skip: bool = False


@dataclass(frozen=True)
class CampaignFile:
    """A campaign as its file says it, checked and resolved.

    Attributes
    ----------
    name
        The campaign's name in the database.
    path
        The file.
    sources
        Where molecules come from.
    element, edge, symmetry_tolerance_A
        Which atoms absorb, and when two are equivalent.
    engine, preset, parameters
        The engine's name and its parameters after presets and defaults.
    sigma_eV, step_eV
        The stored grid.
    gate
        Limits of the science gate.
    target_s, split_above_s, at_least
        Batches: wanted length; molecules above ``split_above_s`` are split; ``at_least`` so many batches where there
        are as many molecules.
    walltime_s
        Clock limit of one calculation, or None for a multiple of its estimate.
    """

    name: str
    path: Path
    sources: tuple[Source, ...]
    element: str
    edge: str
    symmetry_tolerance_A: float
    engine: str
    preset: str
    parameters: ResolvedParameters
    sigma_eV: float
    step_eV: float
    gate: GateLimits
    target_s: float
    split_above_s: float
    at_least: int
    walltime_s: float | None

    def load_engine(self) -> Engine:
        """Return the engine."""
        return get_engine(self.engine)

    @cached_property
    def document(self) -> dict[str, Any]:
        """What the database keeps: all that decides the results, resolved, and the sources by checksum."""
        return {
            "element": self.element,
            "edge": self.edge,
            "symmetry_tolerance_A": self.symmetry_tolerance_A,
            "engine": self.engine,
            "preset": self.preset,
            "parameters": {
                "site": dict(self.parameters.site),
                "ground": None if self.parameters.ground is None else dict(self.parameters.ground),
            },
            "spectrum": {"sigma_eV": self.sigma_eV, "step_eV": self.step_eV},
            "gate": gate_document(self.gate),
            "walltime_s": self.walltime_s,
            "structures": [_source_document(s) for s in self.sources],
        }


def load_campaign(path: Path) -> CampaignFile:
    """Read a campaign file and check everything that needs no structure.

    Raises
    ------
    CampaignFileError
        One line naming file, line and key, and what to write instead.
    """
    model, lines = validate_yaml(CampaignModel, path, single_items=("structures",))
    _say_where(lines, ("site", "element"), atomic_number, model.site.element)
    _say_where(lines, ("site", "edge"), check_edge, model.site.edge)
    engine = _say_where(lines, ("engine", "name"), get_engine, model.engine.name)
    if model.engine.preset not in engine.presets:
        known = "; ".join(f"{name}: {line}" for name, line in engine.presets.items())
        raise lines.error(("engine", "preset"), f"{engine.name} has no preset {model.engine.preset!r}", known)
    parameters = _resolve(engine, model, lines)
    given = {k: v for k, v in model.gate.model_dump().items() if v is not None}
    for key, value in given.items():
        if isinstance(value, tuple) and value[0] >= value[1]:
            raise lines.error(("gate", key), "the lower limit comes first")
    if "strength_range" in given and "strength_ratio" in given:
        hint = "write strength_ratio, which holds for every element"
        raise lines.error(("gate", "strength_range"), "it takes the place of strength_ratio", hint)
    return CampaignFile(
        name=model.campaign,
        path=path,
        sources=tuple(_source(path, i, s, lines) for i, s in enumerate(model.structures)),
        element=model.site.element,
        edge=model.site.edge,
        symmetry_tolerance_A=model.site.symmetry_tolerance_A,
        engine=engine.name,
        preset=model.engine.preset,
        parameters=parameters,
        sigma_eV=model.spectrum.sigma_eV,
        step_eV=model.spectrum.step_eV,
        gate=replace(GateLimits(), **given),
        target_s=model.batch.target_s,
        split_above_s=model.batch.split_above_s,
        at_least=model.batch.at_least,
        walltime_s=model.batch.walltime_s,
    )


def _say_where(lines: Lines, location: tuple[str, ...], check: Any, value: str) -> Any:
    try:
        return check(value)
    except UserError as error:
        raise lines.error(location, error.message, error.hint) from None


def _resolve(engine: Engine, model: CampaignModel, lines: Lines) -> ResolvedParameters:
    try:
        return engine.resolve(
            model.engine.preset, model.engine.parameters, element=model.site.element, edge=model.site.edge
        )
    except UserError as error:
        named = [k for k in model.engine.parameters if f"{k!r}" in str(error) or k in error.message.split()]
        raise lines.error(("engine", "parameters", *named[:1]), error.message, error.hint) from None


def _source(campaign: Path, index: int, model: SourceModel, lines: Lines) -> Source:
    path = (campaign.parent / Path(model.file).expanduser()).absolute()
    location = ("structures", index, "file")
    if not path.exists():
        raise lines.error(location, f"there is no file {model.file!r}", f"looked in {path.parent}")
    if path.is_file() and path.stat().st_size == 0:
        raise lines.error(location, f"{model.file!r} is empty")
    geometry = model.geometry
    return Source(
        path=path,
        written=model.file,
        limit=model.select.limit,
        names=None if model.select.names is None else frozenset(model.select.names),
        exclude=frozenset(model.select.exclude),
        geometry=None if geometry is None else _geometry(campaign, index, geometry, lines),
        given_method=model.given_method,
        skip=model.on_error == "skip",
    )


def _geometry(campaign: Path, index: int, model: GeometryModel, lines: Lines) -> Geometry:
    shipped = None
    if model.shipped is not None:
        shipped = (campaign.parent / Path(model.shipped).expanduser()).absolute()
        if not shipped.is_dir():
            location = ("structures", index, "geometry", "shipped")
            raise lines.error(
                location, f"there is no folder {model.shipped!r}", f"looked in {campaign.parent}"
            )
    return Geometry(model.method, model.fmax_eV_per_A, model.relax, shipped)


def _source_document(source: Source) -> Mapping[str, Any]:
    return {
        "file": source.path.name,
        "sha256": _sha256(source.path),
        "limit": source.limit,
        "names": None if source.names is None else sorted(source.names),
        "exclude": sorted(source.exclude),
        "geometry": None if source.geometry is None else _geometry_document(source.geometry),
        "given_method": source.given_method,
        **(
            {"on_error": "skip"} if source.skip else {}
        ),  # absent by default: as campaigns were before there was a choice
    }


def gate_document(gate: GateLimits) -> Mapping[str, Any]:
    """Return the limits as they are recorded, such that the same limits are the same document in every version.

    Those that came later are left out where they are the default, as campaigns were before. Of the two limits of the
    strength there is the one that holds: a file that says ``strength_range: [0.05, 1.0]`` gives what older versions
    recorded of one that said nothing.
    """
    later = ("level_range",)
    idle = "strength_range" if gate.strength_range is None else "strength_ratio"
    return {
        k: list(v) if isinstance(v, tuple) else v
        for k, v in asdict(gate).items()
        if k != idle and (k not in later or v != getattr(GateLimits(), k))
    }


def other_limits(
    one: Mapping[str, Any], another: Mapping[str, Any], *, curves: bool = False
) -> tuple[str, ...]:
    """Return the names of the limits in which two recorded gates differ; ``curves``: of those that judge curves."""
    of_sticks = ("strength_ratio", "strength_range") if curves else ()
    return tuple(k for k in {**one, **another} if one.get(k) != another.get(k) and k not in of_sticks)


def _geometry_document(geometry: Geometry) -> Mapping[str, Any]:
    """Return the recipe; where finished geometries lie is not part of the campaign."""
    return {k: v for k, v in asdict(geometry).items() if k != "shipped"}


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and checksums of a folder's files."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
        listing = "".join(f"{file_sha256(p)}  {p.relative_to(path).as_posix()}\n" for p in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    return file_sha256(path)
