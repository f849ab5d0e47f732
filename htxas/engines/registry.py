"""Engines by name, imported only when asked for."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from functools import cache

from htxas.engines.adoption import Adopter
from htxas.engines.base import Engine
from htxas.errors import NotFound

__all__ = ["adopters", "engine_names", "get_engine"]

_ENGINES = {
    "castep": "htxas.engines.castep.engine",
    "cp2k": "htxas.engines.cp2k.engine",
    "elk": "htxas.engines.elk.engine",
    "fake": "htxas.engines.fake.engine",
    "feff": "htxas.engines.feff.engine",
    "gpaw": "htxas.engines.gpaw.engine",
    "olcao": "htxas.engines.olcao.engine",
    "pyscf": "htxas.engines.pyscf.engine",
    "qe": "htxas.engines.qe.engine",
    "vasp": "htxas.engines.vasp.engine",
    "wien2k": "htxas.engines.wien2k.engine",
}
_ADOPTERS = {"feff": "htxas.engines.feff.adopt"}


def engine_names() -> tuple[str, ...]:
    """Return the names of all engines."""
    return tuple(_ENGINES)


@cache
def get_engine(name: str) -> Engine:
    """Return the engine called ``name``.

    Raises
    ------
    NotFound
        With the nearest name.
    """
    if name not in _ENGINES:
        near = get_close_matches(name, _ENGINES, n=1)
        raise NotFound(
            f"no engine is called {name!r}",
            hint=f"did you mean {near[0]!r}?" if near else "one of " + " ".join(_ENGINES),
        )
    engine = importlib.import_module(_ENGINES[name]).ENGINE
    assert isinstance(engine, Engine)
    return engine


def adopters() -> dict[str, Adopter]:
    """Return the engines that can adopt runs of theirs which exist, by name."""
    return {name: importlib.import_module(module).ADOPTER for name, module in _ADOPTERS.items()}
