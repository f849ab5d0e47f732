"""The densities of a run under way, for another attempt if it is cut short.

A run that ends by itself, converged or not, leaves no checkpoint: one that is there is of a run that the clock, the
node or the system ended. To start from it is a shorter way to the same thresholds, as long as it is the same way: it is
kept by state and phase, with the numerics of its attempt, and an attempt with others starts from the beginning.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from htxas.engines.pyscf.scf import Aids, At, FloatArray

__all__ = ["CHECKPOINT", "Checkpoint"]

CHECKPOINT = "checkpoint.npz"
_EVERY_S = 30.0  # what is shorter is sooner computed again than thought about


class Checkpoint:
    """Reads the checkpoint of an attempt that was cut short; writes its own.

    Parameters
    ----------
    directory
        Of this attempt.
    key, numerics
        Of the calculation and of this attempt.
    previous
        Directory of the last attempt, if there is one.
    every_s
        Seconds between two writes; the first comes as late.
    """

    def __init__(
        self,
        directory: Path,
        key: str,
        numerics: Mapping[str, Any],
        previous: Path | None,
        *,
        every_s: float = _EVERY_S,
    ) -> None:
        self._path = directory / CHECKPOINT
        self._whose = f"{key} {json.dumps(dict(numerics), sort_keys=True)}"
        self._every_s = every_s
        self._written = time.monotonic()
        self._now: dict[str, list[FloatArray]] = {}
        self._before = {} if previous is None else _read(previous / CHECKPOINT, self._whose)

    @property
    def found(self) -> tuple[str, ...]:
        """States and phases whose densities the last attempt left."""
        return tuple(self._before)

    def of(self, state: str) -> At:
        """Return what starts each phase of ``state`` from what the last attempt left, and keeps what it reaches."""
        # Once aids were needed, the plain iteration is known to fail: it must not get more cycles than others get.
        helped = any(name.startswith(f"{state} aided") for name in self._before)

        def at(aids: Aids, phase: str) -> Aids:
            name = f"{state} {phase}"
            begin = None if helped and not phase.startswith("aided") else self._before.get(name)
            return replace(aids, begin=begin, watch=partial(self._note, name))

        return at

    def _note(self, state: str, scaled: Sequence[FloatArray]) -> None:
        self._now[state] = list(scaled)
        if time.monotonic() - self._written < self._every_s:
            return
        self._written = time.monotonic()
        arrays = {f"{name}.{i}": c for name, parts in self._now.items() for i, c in enumerate(parts)}
        draft = self._path.with_name(f".{os.getpid()}.{CHECKPOINT}")
        with contextlib.suppress(
            OSError
        ):  # a full disk is told by the result, not by what would only save time
            np.savez(draft, whose=self._whose, **arrays)  # type: ignore[arg-type]  # numpy types its own flag only
            draft.replace(self._path)

    def remove(self) -> None:
        """Remove this attempt's checkpoint: the run ended by itself."""
        self._path.unlink(missing_ok=True)


def _read(path: Path, whose: str) -> dict[str, list[FloatArray]]:
    found: dict[str, list[FloatArray]] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            if str(data["whose"]) != whose:
                return {}
            for name in sorted(n for n in data.files if n != "whose"):
                found.setdefault(name.rpartition(".")[0], []).append(data[name])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}  # absent or cut short as well: from the beginning
    return found
