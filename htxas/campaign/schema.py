"""The campaign file as pydantic models: the strict edge. Inside, it is :class:`htxas.campaign.file.CampaignFile`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

__all__ = ["CampaignModel"]

Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Positive = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Strict(), Field(ge=1)]
Text = Annotated[str, Strict(), Field(min_length=1)]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SelectModel(_Section):
    """Which molecules of a file."""

    limit: Count | None = None
    names: list[Text] | None = None
    exclude: list[Text] = []


class GeometryModel(_Section):
    """How geometries are made from SMILES; with ``relax``, those the file gives are relaxed, too."""

    method: Literal["gfn2-xtb"]
    fmax_eV_per_A: Positive = 0.01
    relax: Annotated[bool, Strict()] = False
    shipped: Text | None = None


class SourceModel(_Section):
    """One file of structures."""

    file: Text
    select: SelectModel = SelectModel()
    geometry: GeometryModel | None = None
    given_method: Text | None = None
    on_error: Literal["stop", "skip"] = "stop"


class SiteModel(_Section):
    """Which atoms absorb."""

    element: Text
    edge: Text
    symmetry_tolerance_A: Positive = 0.05


class EngineModel(_Section):
    """Which code, and how."""

    name: Text
    preset: Text
    parameters: dict[str, Any] = {}


class SpectrumModel(_Section):
    """The stored grid."""

    sigma_eV: Positive = 0.5
    step_eV: Positive = 0.1

    @field_validator("step_eV")
    @classmethod
    def _divides_1_eV(cls, step_eV: float) -> float:
        per_eV = round(1.0 / step_eV)
        if per_eV < 1 or abs(per_eV * step_eV - 1.0) > 1e-9:
            raise ValueError("1 eV must be a whole number of steps")
        return step_eV


class GateModel(_Section):
    """Limits of the gate; see :class:`htxas.domain.gate.GateLimits`."""

    min_hole_overlap: Number | None = None
    window_eV: Positive | None = None
    strength_ratio: tuple[Number, Number] | None = None
    strength_range: tuple[Number, Number] | None = None
    level_range: tuple[Number, Number] | None = None
    edge_range_eV: tuple[Number, Number] | None = None
    min_gap_eV: Number | None = None


class BatchModel(_Section):
    """How calculations are put together into Fireworks."""

    target_s: Positive = 600.0
    split_above_s: Positive = 3600.0
    at_least: Count = 16
    walltime_s: Positive | None = None

    @model_validator(mode="after")
    def _split_above_target(self) -> BatchModel:
        if self.split_above_s < self.target_s:
            raise ValueError("split_above_s must not be below target_s")
        return self


class CampaignModel(_Section):
    """The whole file."""

    campaign: Annotated[str, Strict(), Field(pattern=_NAME)]
    structures: list[SourceModel] = Field(min_length=1)
    site: SiteModel
    engine: EngineModel
    spectrum: SpectrumModel = SpectrumModel()
    gate: GateModel = GateModel()
    batch: BatchModel = BatchModel()
