"""Pseudopotential files: what one says of itself, and the user's own, named in a calculation by their checksums."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from htxas.errors import Cause, EngineFailure, UserError

__all__ = ["Upf", "core_orbital", "fetch", "find", "join_waves", "read_upf", "wave_misfits"]

FloatArray = npt.NDArray[np.float64]
FOLDERS = "HTXAS_QE_PSEUDOS"
_HEADER = re.compile(r"<PP_HEADER(\s[^>]*=[^>]*)>", re.DOTALL)
_ATTRIBUTE = re.compile(r'(\w+)="\s*([^"]*?)\s*"')
_MESH = re.compile(r"<PP_R\b[^>]*>(.*?)</PP_R>", re.DOTALL)
_CORE = re.compile(r"<PP_GIPAW_CORE_ORBITAL\.\d+\b([^>]*)>(.*?)</PP_GIPAW_CORE_ORBITAL\.\d+>", re.DOTALL)
_WAVE = re.compile(r"<PP_GIPAW_ORBITAL\.(\d+)\b([^>]*)>(.*?)</PP_GIPAW_ORBITAL\.\1>", re.DOTALL)
_PART = r"(<PP_GIPAW_WFS_{}\b[^>]*>)(.*?)(</PP_GIPAW_WFS_{}>)"
_AE, _PS = (re.compile(_PART.format(part, part), re.DOTALL) for part in ("AE", "PS"))
_PER_LINE = 4
_PBE = ("PBE", "SLA PW PBX PBC", "SLA PW PBE PBE")


@dataclass(frozen=True, slots=True)
class Upf:
    """What a file says of itself: element, valence electrons, functional, kind (``NC``, ``US``, ``PAW``)."""

    element: str
    electrons: float
    functional: str
    kind: str


def read_upf(text: str) -> Upf:
    """Return what a UPF file of version 2 says of itself.

    Raises
    ------
    ValueError
        It is none.
    """
    header = _HEADER.search(text)
    if header is None:
        raise ValueError("is no UPF file of version 2 (PP_HEADER with attributes)")
    told = dict(_ATTRIBUTE.findall(header[1]))
    try:
        return Upf(
            element=told["element"],
            electrons=float(told["z_valence"].replace("d", "e").replace("D", "e")),
            functional=" ".join(told["functional"].replace("-", " ").split()),
            kind=told["pseudo_type"].upper(),
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"its PP_HEADER lacks something: {error}") from None


def core_orbital(upf: str) -> str:
    """Return the 1s orbital of a pseudopotential file as ``xspectra.x`` reads it: r (bohr) and r R(r), line by line.

    Raises
    ------
    ValueError
        It has none.
    """
    mesh = _MESH.search(upf)
    for attributes, values in _CORE.findall(upf):
        label = dict(_ATTRIBUTE.findall(attributes)).get("label", "")
        if label.upper() == "1S" and mesh is not None:
            pairs = zip(mesh[1].split(), values.split(), strict=True)
            return "# 1s\n" + "".join(f"{float(r):.9e} {float(u):.9e}\n" for r, u in pairs)
    raise ValueError("the pseudopotential holds no 1s orbital (PP_GIPAW_CORE_ORBITAL)")


def join_waves(upf: str, radius_a0: float) -> str:
    """Return a file of ``ld1.x`` whose pseudo partial waves join the all-electron ones outside of the radius.

    ``ld1.x`` gives a pseudo wave the value of the all-electron one at the pseudopotential's radius. An empty function
    may have its node there: then a small shift of the node puts the whole wave out of scale (3p of oxygen with a hole:
    26 times), and with it the spectrum made of its projector. Here the pseudo wave is scaled for the least squares of
    the difference from the radius to twice of it. What is left is the error of the pseudopotential itself, see
    :func:`wave_misfits`.

    Raises
    ------
    ValueError
        The file holds no partial waves.
    """

    def scaled(match: re.Match[str]) -> str:
        r, ae, ps = _waves(upf, match[3])
        outside = _outside(r, radius_a0)
        factor = float(ps[outside] @ ae[outside]) / float(ps[outside] @ ps[outside])
        lines = [
            "  ".join(f"{v:22.15E}" for v in ps[i : i + _PER_LINE] * factor)
            for i in range(0, len(ps), _PER_LINE)
        ]
        block = _PS.sub(lambda m: m[1] + "\n" + "\n".join(lines) + "\n" + m[3], match[3])
        return match[0].replace(match[3], block)

    joined, count = _WAVE.subn(scaled, upf)
    if not count:
        raise ValueError("the pseudopotential holds no partial waves (PP_GIPAW_ORBITAL)")
    return joined


def wave_misfits(upf: str, radius_a0: float) -> dict[str, float]:
    """Return how far each pseudo partial wave is from its all-electron one outside of the radius, by label.

    The greatest difference from the radius to twice of it, over the greatest value there. Waves that do not join make
    projectors, and spectra, out of scale.
    """
    misfits: dict[str, float] = {}
    for _, attributes, block in _WAVE.findall(upf):
        r, ae, ps = _waves(upf, block)
        outside = _outside(r, radius_a0)
        label = dict(_ATTRIBUTE.findall(attributes)).get("label", "?")
        misfits[label] = float(np.abs(ae - ps)[outside].max() / np.abs(ae[outside]).max())
    return misfits


def _outside(r: FloatArray, radius_a0: float) -> npt.NDArray[np.bool_]:
    return np.asarray((r >= radius_a0) & (r <= 2 * radius_a0))


def _waves(upf: str, block: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    def numbers() -> Iterator[str]:
        for pattern, text, group in ((_MESH, upf, 1), (_AE, block, 2), (_PS, block, 2)):
            found = pattern.search(text)
            if found is None:
                raise ValueError("a partial wave lacks its mesh, or one of its two functions")
            yield found[group]

    r, ae, ps = (np.array(text.split(), dtype=np.float64) for text in numbers())
    if not len(r) == len(ae) == len(ps):
        raise ValueError("a partial wave does not fit the mesh")
    return r, ae, ps


def find(name: str, element: str, environment: Mapping[str, str] = os.environ) -> tuple[bytes, Upf]:
    """Return a file of the user's by its name, and what it says of itself.

    Raises
    ------
    UserError
        It is not in the folders of ``HTXAS_QE_PSEUDOS``, unreadable, of another element or functional than PBE.
    """
    if "/" in name or not name:
        raise UserError(
            f"qe: {name!r} is not the name of a file",
            hint=f"its folder belongs into {FOLDERS}, here and on clusters",
        )
    folders = _folders(environment)
    path = next((p for f in folders if (p := f / name).is_file()), None)
    if path is None:
        where = " or ".join(str(f) for f in folders) or f"any folder: {FOLDERS} is not set"
        raise UserError(f"qe: there is no pseudopotential {name} in {where}", hint=f"set {FOLDERS}")
    try:
        content = path.read_bytes()
        upf = read_upf(content.decode(errors="replace"))
    except (OSError, ValueError) as error:
        raise UserError(f"qe: {path}: {error}") from None
    if upf.element != element:
        raise UserError(f"qe: {path} is a pseudopotential of {upf.element}, not of {element}")
    if upf.functional.upper() not in _PBE:
        raise UserError(f"qe: {path} was made with {upf.functional}, the calculation's functional is PBE")
    return content, upf


def fetch(name: str, digest: str, environment: Mapping[str, str]) -> bytes:
    """Return a file of the user's whose content was settled when it was submitted.

    Raises
    ------
    EngineFailure
        BAD_INPUT: it is not there, or has another content now.
    """
    folders = _folders(environment)
    others = []
    for folder in folders:
        path = folder / name
        if path.is_file():
            content = path.read_bytes()
            if sha256(content).hexdigest() == digest:
                return content
            others.append(str(path))
    raise EngineFailure(
        Cause.BAD_INPUT,
        f"{others[0]} is another file than the one submitted (SHA-256 {digest[:12]}...)"
        if others
        else f"there is no pseudopotential {name}",
        where=others[0] if others else ":".join(map(str, folders)) or FOLDERS,
        hint=f"put it into a folder of {FOLDERS}, set in the engine's environment on this cluster",
    )


def _folders(environment: Mapping[str, str]) -> list[Path]:
    return [Path(f).expanduser() for f in environment.get(FOLDERS, "").split(":") if f]
