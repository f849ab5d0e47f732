"""From a user's words to a model of an engine's parameters, with one line about what is wrong."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from htxas.errors import UserError

__all__ = ["Strict", "nearest", "one_cell", "overridden", "validated"]

_Model = TypeVar("_Model", bound=BaseModel)


class Strict(BaseModel):
    """Parameters that never change and have no keys but their own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint: the known word nearest to one that is not, or all of them."""
    words = list(known)
    near = get_close_matches(word, words, n=1)
    return f"did you mean {near[0]!r}?" if near else "one of " + " ".join(words)


def overridden(
    engine: str, overrides: Mapping[str, Any], *parts: tuple[type[BaseModel], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return a preset's values with the user's in their place.

    Parameters
    ----------
    engine
        Its name, for the message.
    overrides
        What the user says, of all parts together.
    parts
        Each a model and the preset's values of it; the values are returned in this order.

    Raises
    ------
    UserError
        A key is none of any model's; the hint has the nearest.
    """
    values = [dict(preset) for _, preset in parts]
    place = {key: own for (model, _), own in zip(parts, values, strict=True) for key in model.model_fields}
    for key, value in overrides.items():
        if key not in place:
            raise UserError(f"{engine} has no parameter {key!r}", hint=nearest(key, place))
        place[key][key] = value
    return values


def one_cell(values: dict[str, Any], overrides: Container[str]) -> None:
    """Take a preset's box, or supercell and k points, out of the values if the user says the other."""
    if "box" in overrides and "supercell" not in overrides:
        values.pop("supercell", None)
        if "kpoints" not in overrides:
            values.pop("kpoints", None)
    if "supercell" in overrides and "box" not in overrides:
        values.pop("box", None)


def validated(engine: str, model: type[_Model], values: Mapping[str, Any]) -> _Model:
    """Return a model of parameters.

    Raises
    ------
    UserError
        With the engine, the parameter, and what is wrong with it.
    """
    # By way of JSON: lists of YAML are tuples here, and nothing else is taken for what it is not.
    try:
        return model.model_validate_json(json.dumps(dict(values), allow_nan=False))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(p) for p in first["loc"]) or "parameters"
        raise UserError(f"{engine}: {name}: {first['msg'].removeprefix('Value error, ')}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{engine}: a parameter is no number, word, list or mapping: {error}") from None
