"""Finds ``templates/`` and ``workflows/``: in a wheel (``htxas/_share``) or beside the package in a checkout."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from htxas.errors import InternalError, NotFound

__all__ = ["share", "template", "workflow"]

_PACKAGE = Path(__file__).resolve().parent
_KINDS = ("templates", "workflows")


def share(kind: str) -> Path:
    """Return the folder ``templates`` or ``workflows`` of this installation.

    Raises
    ------
    InternalError
        If the installation carries neither: the wheel was built wrongly.
    """
    if kind not in _KINDS:
        raise InternalError(f"there is no asset folder {kind!r}", hint="one of " + " ".join(_KINDS))
    for candidate in (_PACKAGE / "_share" / kind, _PACKAGE.parent / kind):
        if candidate.is_dir():
            return candidate
    raise InternalError(
        f"{kind}/ is missing from this installation", where=str(_PACKAGE), hint="install htxas again"
    )


def workflow(name: str) -> Path:
    """Return the path of ``workflows/<name>``, e.g. ``quickstart/campaign.yaml``.

    Raises
    ------
    NotFound
        With the nearest name.
    """
    return _find("workflows", name)


def template(name: str) -> Path:
    """Return the path of ``templates/<name>``.

    Raises
    ------
    NotFound
        With the nearest name.
    """
    return _find("templates", name)


def _find(kind: str, name: str) -> Path:
    root = share(kind)
    path = root / name
    if path.is_file() and path.resolve().is_relative_to(root.resolve()):
        return path
    known = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"look in {root}"
    raise NotFound(f"no file of {kind}/ is called {name!r}", hint=hint)
