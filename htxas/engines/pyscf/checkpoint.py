"""The densities of a run under way, for another attempt if it is cut short.

A run that ends by itself, converged or not, leaves no checkpoint: one that is there is of a run that the clock, the
node or the system ended. To start from it is a shorter way to the same thresholds.
"""

from __future__ import annotations

import contextlib
import os
import time
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from htxas.engines.pyscf.scf import Aids, FloatArray

__all__ = ["CHECKPOINT", "Checkpoint"]

CHECKPOINT = "checkpoint.npz"
_EVERY_S = 30.0  # what is shorter is sooner computed again than thought about


class Checkpoint:
    """Reads the checkpoint of an attempt that was cut short; writes its own.

    Parameters
    ----------
    directory
        Of this attempt.
    key
        Of the calculation.
    previous
        Directory of the last attempt, if there is one.
    every_s
        Seconds between two writes; the first comes as late.
    """

    def __init__(
        self, directory: Path, key: str, previous: Path | None, *, every_s: float = _EVERY_S
    ) -> None:
        self._path = directory / CHECKPOINT
        self._key = key
        self._every_s = every_s
        self._written = time.monotonic()
        self._now: dict[str, list[FloatArray]] = {}
        self._before = {} if previous is None else _read(previous / CHECKPOINT, key)

    @property
    def found(self) -> tuple[str, ...]:
        """States whose densities the last attempt left."""
        return tuple(self._before)

    def aids(self, aids: Aids, state: str) -> Aids:
        """Return ``aids`` that start ``state`` from what the last attempt left, and keep what this one reaches."""
        watch: Callable[[Sequence[FloatArray]], None] = partial(self._note, state)
        return Aids(
            aids.level_shift_Ha,
            aids.damping,
            aids.diis_space,
            aids.cycles_factor,
            aids.follow,
            self._before.get(state),
            watch,
        )

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
            np.savez(draft, key=self._key, **arrays)  # type: ignore[arg-type]  # numpy types its own flag only
            draft.replace(self._path)

    def remove(self) -> None:
        """Remove this attempt's checkpoint: the run ended by itself."""
        self._path.unlink(missing_ok=True)


def _read(path: Path, key: str) -> dict[str, list[FloatArray]]:
    found: dict[str, list[FloatArray]] = {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
            if str(data["key"]) != key:
                return {}
            for name in sorted(n for n in data.files if n != "key"):
                found.setdefault(name.rpartition(".")[0], []).append(data[name])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}  # absent or cut short as well: from the beginning
    return found
