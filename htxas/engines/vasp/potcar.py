"""The user's library of POTCARs: where a file is, what it says of itself, and that it is still the same.

A POTCAR is licensed. The identity of a calculation has its name, title and checksum; the file itself is put into the
run directory just before VASP starts and removed afterwards.

A library is a folder with ``NAME/POTCAR`` or ``POTCAR.NAME`` in it, or in one of its folders, packed by gzip or not:
``HTXAS_VASP_POTCARS``, or pymatgen's ``PMG_VASP_PSP_DIR``.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from htxas.errors import Cause, EngineFailure, UserError

__all__ = ["VARIABLES", "Header", "fetch", "find", "library", "read_header"]

VARIABLES = ("HTXAS_VASP_POTCARS", "PMG_VASP_PSP_DIR")
_NAME = re.compile(r"[A-Z][a-z]?[\w.+-]*")
_LINES = {
    "TITEL": r"(.*\S)",
    "VRHFIN": r"([A-Z][a-z]?)\s*:",
    "ZVAL": r"([\d.]+)",
    "ENMAX": r"([\d.]+)",
    "LEXCH": r"(\S+)",
}
_PBE = ("POT_GGA_PAW_PBE", "POT_PAW_PBE", "potpaw_PBE")
"""Beginnings of the names of folders that hold PBE's: pymatgen's, and VASP's own."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a POTCAR says of itself.

    Attributes
    ----------
    titel
        Its title: ``PAW_PBE Mg_sv_GW 20Apr2010``.
    element
        Symbol.
    electrons
        Of its valence.
    cutoff_eV
        The least cutoff it is made for (ENMAX).
    functional
        ``PE`` is PBE.
    """

    titel: str
    element: str
    electrons: float
    cutoff_eV: float
    functional: str


def read_header(text: str) -> Header:
    """Return what a POTCAR says of itself.

    Raises
    ------
    ValueError
        A line is missing, the file is cut short, or it holds several.
    """
    found = {}
    for key, value in _LINES.items():
        matches = re.findall(rf"{key}\s*=\s*{value}", text)
        if len(matches) != 1:
            raise ValueError(f"has {len(matches)} lines {key} and not one")
        found[key] = matches[0]
    if "End of Dataset" not in text[-200:]:
        raise ValueError("is cut short: it does not end with End of Dataset")
    return Header(
        found["TITEL"], found["VRHFIN"], float(found["ZVAL"]), float(found["ENMAX"]), found["LEXCH"].upper()
    )


def find(name: str, environment: Mapping[str, str]) -> bytes:
    """Return the content of the POTCAR called ``name`` in the user's library.

    Raises
    ------
    UserError
        There is no library, no such file in it, or several different ones.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"vasp: {name!r} is no name of a POTCAR", hint="a name as Mg_sv_GW")
    root = library(environment)
    contents = {_content(path) for path in _places(root, name)}
    if not contents:
        raise UserError(
            f"vasp: there is no POTCAR {name} in your library",
            where=str(root),
            hint="NAME/POTCAR or POTCAR.NAME there, or in a folder of it",
        )
    if len(contents) > 1:
        raise UserError(
            f"vasp: there are {len(contents)} different POTCARs called {name} in your library",
            where=str(root),
            hint=f"name the folder of one release in {VARIABLES[0]}",
        )
    return contents.pop()


def fetch(name: str, digest: str, environment: Mapping[str, str]) -> bytes:
    """Return the content of a POTCAR if it is the one that the calculation was made with.

    Raises
    ------
    EngineFailure
        BAD_INPUT: it is not there, or another file has its name.
    """
    try:
        content = find(name, environment)
    except UserError as error:
        raise EngineFailure(Cause.BAD_INPUT, error.message, where=error.where, hint=error.hint) from None
    if sha256(content).hexdigest() != digest:
        raise EngineFailure(
            Cause.BAD_INPUT,
            f"the POTCAR {name} in the library is not the one of this calculation (sha256 {digest[:12]}...)",
            hint="another release? the campaign was made with the one of that checksum",
        )
    return content


def library(environment: Mapping[str, str]) -> Path:
    """Return the folder of the user's library.

    Raises
    ------
    UserError
        None is named, or it is no folder.
    """
    for variable in VARIABLES:
        if environment.get(variable):
            root = Path(environment[variable]).expanduser()
            if not root.is_dir():
                raise UserError(f"vasp: {variable} is no folder", where=str(root))
            return root
    raise UserError(
        "vasp: there is no library of POTCARs: they are licensed, and yours",
        hint=f"name it in {VARIABLES[0]}",
    )


def _places(root: Path, name: str) -> Iterator[Path]:
    folders = [root, *sorted(p for p in root.iterdir() if p.is_dir() and p.name.startswith(_PBE))]
    for folder in folders:
        for file in (f"{name}/POTCAR", f"POTCAR.{name}"):
            for path in (folder / file, folder / f"{file}.gz"):
                if path.is_file():
                    yield path


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"vasp: a POTCAR cannot be read: {error}", where=str(path)) from None
