"""A campaign file for the chosen molecules: the same calculations as those of the campaign it extends."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htxas.campaign.file import load_campaign
from htxas.errors import UserError
from htxas.learn.choose.extend import write_new

__all__ = ["free_name", "write_campaign"]

_DECIDES = (
    "element",
    "edge",
    "symmetry_tolerance_A",
    "engine",
    "preset",
    "parameters",
    "spectrum",
    "gate",
    "walltime_s",
)


def free_name(name: str, taken: set[str]) -> str:
    """Return ``name-2``, or the first number that is free."""
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def write_campaign(path: Path, smi: Path, name: str, document: Mapping[str, Any]) -> bool:
    """Write a campaign file for the molecules of ``smi``; True if it asks for the calculations of ``document``.

    It is read back before it is written: where engine parameters of the campaign were set by hand, a preset alone would
    not give them. Then nothing is written, and the user's own file has to be copied.

    Parameters
    ----------
    path
        Beside ``smi``.
    smi
        Written already.
    name
        Of the new campaign.
    document
        The extended campaign as the store has it.

    Raises
    ------
    UserError
        If another file is in the way.
    """
    text = _text(smi.name, name, document)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=smi.absolute().parent) as scratch:
        scratch.write(text)
        scratch.flush()
        try:
            read = load_campaign(Path(scratch.name)).document
        except UserError:
            return False
    if any(read.get(key) != _plain(document.get(key)) for key in _DECIDES):
        return False
    write_new(path, text)
    return True


def _text(smi: str, name: str, document: Mapping[str, Any]) -> str:
    recipes = [g for s in document["structures"] if (g := s.get("geometry"))]
    recipe = recipes[0] if recipes else {"method": "gfn2-xtb"}
    lines = [
        f"campaign: {name}",
        "",
        "structures:",
        f"  file: {smi}",
        "  on_error: skip",
        "  geometry:",
        *(f"    {k}: {recipe[k]}" for k in ("method", "fmax_eV_per_A") if k in recipe),
        "",
        "site:",
        *(f"  {k}: {document[k]}" for k in ("element", "edge", "symmetry_tolerance_A")),
        "",
        "engine:",
        f"  name: {document['engine']}",
        f"  preset: {document['preset']}",
        "",
        "spectrum:",
        *(f"  {k}: {v}" for k, v in document["spectrum"].items()),
    ]
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    """Return tuples as lists: what went through the database."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
