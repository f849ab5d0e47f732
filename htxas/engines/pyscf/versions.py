"""Versions of everything that could change a digit of a PySCF result, without importing PySCF."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version

from htxas import __version__

__all__ = ["libraries"]


@lru_cache(maxsize=1)
def libraries() -> dict[str, str]:
    """Return package name -> version."""
    names = ("pyscf", "numpy", "scipy", "basis-set-exchange")
    return {"htxas": __version__, **{name: version(name) for name in names}}
