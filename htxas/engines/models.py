"""From a user's words to a model of an engine's parameters, with one line about what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from htxas.errors import UserError

__all__ = ["nearest", "validated"]

_Model = TypeVar("_Model", bound=BaseModel)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint: the known word nearest to one that is not, or all of them."""
    words = list(known)
    near = get_close_matches(word, words, n=1)
    return f"did you mean {near[0]!r}?" if near else "one of " + " ".join(words)


def validated(engine: str, model: type[_Model], values: Mapping[str, Any]) -> _Model:
    """Return a model of parameters.

    Raises
    ------
    UserError
        With the engine, the parameter, and what is wrong with it.
    """
    try:
        return model.model_validate_json(json.dumps(dict(values), allow_nan=False))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(p) for p in first["loc"]) or "parameters"
        raise UserError(f"{engine}: {name}: {first['msg'].removeprefix('Value error, ')}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{engine}: a parameter is no number, word, list or mapping: {error}") from None
