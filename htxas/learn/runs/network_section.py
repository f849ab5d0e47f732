"""The part of YAML files that says what a net is like: a preset, or the default one, and what is changed of it."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import Field

from htxas.campaign.yamlfile import Lines
from htxas.errors import DatasetError
from htxas.learn.data.config import Strict, choice
from htxas.learn.nets.network import PRESETS, Head, Loss, Network, Share

__all__ = ["NetworkSection", "network_of"]


class NetworkSection(Strict):
    """A net as a file writes it; what is left out comes from the preset."""

    preset: str | None = None
    widths: list[Annotated[int, Field(ge=1, le=4096)]] | None = Field(default=None, min_length=1)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    members: int | None = Field(default=None, ge=1, le=100)
    epochs: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=1)
    batch: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    share: str | None = None
    loss: str | None = None
    mse_weight: float | None = Field(default=None, ge=0)
    head: str | None = None
    noise_conditioned: bool | None = None


def network_of(section: NetworkSection, lines: Lines, at: tuple[str | int, ...]) -> Network:
    """Return the net of a checked section, found at ``at`` in the file.

    Raises
    ------
    CampaignFileError
        An unknown preset or word, or a combination that means nothing.
    """
    changed: dict[str, Any] = {
        name: value for name, value in section.model_dump(exclude={"preset"}).items() if value is not None
    }
    if section.widths is not None:
        changed["widths"] = tuple(section.widths)
    for name, kind in (("share", Share), ("loss", Loss), ("head", Head)):
        if name in changed:
            changed[name] = choice(kind, changed[name], lines, (*at, name))
    if section.preset is not None and section.preset not in PRESETS:
        near = get_close_matches(section.preset, PRESETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "there are: " + " ".join(PRESETS)
        raise lines.error((*at, "preset"), f"no preset is called {section.preset!r}", hint)
    start = Network() if section.preset is None else PRESETS[section.preset]
    try:
        return replace(start, **changed)
    except DatasetError as error:
        raise lines.error(at, error.message, error.hint) from None
