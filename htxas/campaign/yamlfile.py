"""YAML files checked strictly: every complaint is one line that names file, line and key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from htxas.errors import CampaignFileError

__all__ = ["Lines", "load_yaml", "validate_part", "validate_yaml"]

Model = TypeVar("Model", bound=BaseModel)
Path_ = tuple[str | int, ...]
_UNITS = re.compile(r"_(eV_per_A|eV|A|s|D|GB|MB)$")
_NUMBER_AND_UNIT = re.compile(r"\s*([-+]?[0-9.]+(?:[eE][-+]?\d+)?)\s*[A-Za-z/]+\s*")


class Lines:
    """Line numbers (from 1) of the keys of a YAML file.

    Parameters
    ----------
    path
        The file, as the user wrote it.
    root
        What ruamel.yaml read.
    """

    def __init__(self, path: Path, root: Any) -> None:
        self.path = path
        self._root = root

    def where(self, location: Path_) -> str:
        """Return ``file:line: key.key`` of the deepest part of ``location`` that is in the file."""
        line, node = 1, self._root
        for part in location:
            if isinstance(node, CommentedMap) and part in node:
                line = node.lc.key(part)[0] + 1
            elif isinstance(node, CommentedMap) and part == 0:
                continue  # a list written as its one item
            elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
                line = node.lc.item(part)[0] + 1
            else:
                break
            node = node[part]
        key = ".".join(str(p) for p in location)
        return f"{self.path}:{line}: {key}" if key else f"{self.path}:{line}"

    def error(self, location: Path_, message: str, hint: str | None = None) -> CampaignFileError:
        """Return the error about one key."""
        return CampaignFileError(message, where=self.where(location), hint=hint)


def load_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """Return the plain content of a YAML file and its line numbers.

    Raises
    ------
    CampaignFileError
        Missing, not UTF-8, not YAML, a repeated key, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise CampaignFileError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise CampaignFileError("is not a text file in UTF-8", where=str(path)) from None
    try:
        root = YAML(typ="rt", pure=True).load(text)  # round-trip: safe (no objects) and knows its lines
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        problem = (error.problem or "not YAML").splitlines()[0]
        raise CampaignFileError(problem, where=where) from None
    except YAMLError as error:
        raise CampaignFileError(f"not YAML: {str(error).splitlines()[0]}", where=str(path)) from None
    if not isinstance(root, CommentedMap):
        what = "is empty" if root is None else "is not a mapping of keys to values"
        raise CampaignFileError(what, where=f"{path}:1")
    return {str(k): _plain(v) for k, v in root.items()}, Lines(path, root)


def _plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {str(k): _plain(v) for k, v in node.items()}
    if isinstance(node, list):
        return [_plain(v) for v in node]
    for kind in (bool, int, float, str):  # ruamel's scalars are subclasses that remember their format
        if isinstance(node, kind):
            return kind(node)
    return node


def validate_yaml(model: type[Model], path: Path, *, single_items: Sequence[str] = ()) -> tuple[Model, Lines]:
    """Return the file as ``model`` and its line numbers.

    Parameters
    ----------
    model
        A pydantic model.
    path
        The file.
    single_items
        Keys of lists that may be written as their one item.

    Raises
    ------
    CampaignFileError
        About the first thing that is wrong, with the number of others.
    """
    document, lines = load_yaml(path)
    for key in single_items:
        if isinstance(document.get(key), dict):
            document[key] = [document[key]]
    return validate_part(model, lines, document), lines


def validate_part(model: type[Model], lines: Lines, document: Any, prefix: Path_ = ()) -> Model:
    """Return one section of a file, found at ``prefix``, as ``model``.

    Raises
    ------
    CampaignFileError
        About the first thing that is wrong, with the number of others.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A mistyped key is also a missing one: the typing error is what the user can see.
        first = min(
            problems, key=lambda p: (p["type"] != "extra_forbidden", _line_of(lines, (*prefix, *p["loc"])))
        )
        raise _explain(model, lines, first, len(problems) - 1, prefix) from None


def _line_of(lines: Lines, location: Path_) -> int:
    return int(lines.where(location).removeprefix(f"{lines.path}:").split(":")[0])


def _explain(
    model: type[BaseModel], lines: Lines, problem: ErrorDetails, others: int, prefix: Path_
) -> CampaignFileError:
    location = tuple(part for part in (*prefix, *problem["loc"]) if part != "[key]")
    more = f"; and {others} more" if others else ""
    key = str(location[-1]) if location else ""
    match problem["type"]:
        case "extra_forbidden":
            known = sorted(_fields_at(model, problem["loc"][:-1]))
            near = get_close_matches(key, known, n=1)
            stem = [k for k in known if _UNITS.sub("", k) == _UNITS.sub("", key)]
            guess = (stem or near)[:1]
            hint = f"did you mean {guess[0]!r}?" if guess else "known here: " + ", ".join(known)
            return lines.error(location, f"unknown key{more}", hint)
        case "missing":
            return lines.error(location, f"is missing{more}")
        case "string_pattern_mismatch":
            value = problem["input"]
            return lines.error(location, f"letters, digits, '.', '_' and '-' only, not {value!r}{more}")
        case "float_type" | "float_parsing" | "int_type" | "int_parsing":
            return lines.error(location, *_number_expected(key, problem["input"], more))
    message = problem["msg"].removeprefix("Value error, ")
    return lines.error(location, f"{message[:1].lower()}{message[1:]}{more}, not {problem['input']!r}"[:300])


def _number_expected(key: str, value: Any, more: str) -> tuple[str, str | None]:
    unit = _UNITS.search(key)
    of = f" in {unit.group(1).replace('_per_', '/')}" if unit else ""
    found = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
    hint = f"write the number alone: {key}: {found.group(1)}" if found and of else None
    return f"a number{of} is needed, not {value!r}{more}", hint


def _fields_at(model: type[BaseModel], location: Path_) -> Iterator[str]:
    current: Any = model
    named = False  # the next part is the user's own key of a mapping of sections
    for part in location:
        if isinstance(part, int) or named:
            named = False
            continue
        field = current.model_fields.get(part)
        if field is None:
            return
        current = next(_models_in(field.annotation), None)
        if current is None:
            return
        named = get_origin(field.annotation) in (dict, Mapping)
    yield from current.model_fields


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
