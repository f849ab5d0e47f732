"""Recipes of norm-conserving pseudopotentials for ``ld1.x``, with and without a core hole, and what they tell.

Troullier-Martins, PBE, scalar-relativistic, local p; with the partial waves that spectra need (GIPAW reconstruction:
the valence function and one empty one of each angular momentum). A core hole takes one electron out of the 1s shell and
leaves everything else, so that both make the same errors; half a hole takes half of one.

``ld1.x`` puts the empty waves out of scale; :func:`htxas.engines.qe.upf.join_waves`, part of every recipe, mends that.

A recipe never changes under its set's name: an identity says the set and the absorber's recipe, and relies on that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from htxas.domain.elements import atomic_number

__all__ = ["RECIPES", "AtomEnergies", "Recipe", "ld1_input", "read_ld1"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the pseudopotential of an element is made.

    Attributes
    ----------
    core
        Closed shells under it: ``1s2``, or nothing for hydrogen.
    channels
        Name, angular momentum, electrons and cutoff radius (bohr) of each valence function.
    spectral
        Whether partial waves for spectra are made, and it can have the hole.
    cutoff_Ry
        Of wave functions, at which this absorber's transition energy is within 10 meV of its limit (measured with BF,
        CO, HCN, HF). At three quarters of it 0.02 eV (B, O), 0.15 eV (C, N) or 0.2 eV (F) are left.
    core_correction_a0
        Within this radius (bohr) the core's density is smoothed and kept for exchange and correlation; None: left out.
    """

    core: str
    channels: tuple[tuple[str, int, float, float], ...]
    cutoff_Ry: float
    spectral: bool = True
    core_correction_a0: float | None = None

    @property
    def radius_a0(self) -> float:
        """Greatest cutoff radius, bohr."""
        return max(radius for _, _, _, radius in self.channels)

    def to_dict(self) -> dict[str, object]:
        """Return it as the identity has it."""
        return {"core": self.core, "channels": [list(c) for c in self.channels], "waves": "joined"}


def _sp(s: float, p: float, radius_a0: float, cutoff_Ry: float) -> Recipe:
    return Recipe("1s2", (("2S", 0, s, radius_a0), ("2P", 1, p, radius_a0)), cutoff_Ry)


RECIPES: Mapping[str, Mapping[str, Recipe]] = MappingProxyType(
    {
        "tm-pbe-1": MappingProxyType(
            {
                "H": Recipe("", (("1S", 0, 1.0, 1.1),), 40.0, spectral=False),
                "B": _sp(2.0, 1.0, 1.6, 60.0),
                "C": _sp(2.0, 2.0, 1.5, 60.0),
                "N": _sp(2.0, 3.0, 1.4, 80.0),
                "O": _sp(2.0, 4.0, 1.35, 110.0),
                "F": _sp(2.0, 5.0, 1.3, 110.0),
                "Mg": Recipe(
                    "1s2 2s2 2p6",
                    (("3S", 0, 2.0, 2.1), ("3P", 1, 0.0, 2.1)),
                    40.0,
                    spectral=False,
                    core_correction_a0=1.3,
                ),
            }
        )
    }
)
"""By set and element."""


@dataclass(frozen=True, slots=True)
class AtomEnergies:
    """Total energies of the isolated atom, eV: all electrons, and of the pseudopotential's valence alone."""

    all_electron_eV: float
    pseudo_eV: float


def ld1_input(name: str, element: str, recipe: Recipe, *, hole: float) -> str:
    """Return the input of ``ld1.x`` that makes ``<name>.UPF``; ``hole``: electrons taken out of 1s.

    Raises
    ------
    ValueError
        A hole where the recipe has none.
    """
    if hole and not recipe.spectral:
        raise ValueError(f"{element} has no recipe with a hole")
    core = recipe.core.replace("1s2", f"1s{2 - hole:g}")
    valence = [f"{shell.lower()}{electrons:g}" for shell, _, electrons, _ in recipe.channels]
    spectral = recipe.spectral
    empty = [f"{int(shell[0]) + 1}{shell[1]}" for shell, *_ in recipe.channels] if spectral else []
    smoothed = recipe.core_correction_a0
    correction = "" if smoothed is None else f", nlcc=.true., rcore={smoothed:g}"
    charge = (
        f", zval={sum(c[2] for c in recipe.channels) + hole:g}" if hole % 1 else ""
    )  # asked for if no integer
    config = " ".join([core, *valence, *(f"{shell.lower()}0" for shell in empty)]).strip()
    rows = [_row(c[1] + 1, *c) for c in recipe.channels]
    lines = [
        "&input",
        f" title='{name}', prefix='{name}', zed={atomic_number(element)}.0, rel=1, config='{config}', iswitch=3,"
        " dft='PBE'",
        "/",
        "&inputp",
        f" pseudotype=1, tm=.true., lloc={max(c[1] for c in recipe.channels)}, file_pseudopw='{name}.UPF',"
        f" author='htxas', lgipaw_reconstruction=.{str(spectral).lower()}.{correction}{charge}",
        "/",
        str(len(rows)),
        *rows,
    ]
    if spectral:
        waves = [
            row
            for channel, higher in zip(recipe.channels, empty, strict=True)
            for row in (
                _row(channel[1] + 1, *channel),
                _row(channel[1] + 2, higher, channel[1], 0.0, channel[3]),
            )
        ]
        lines += ["&test", " nconf=1", "/", str(len(waves)), *waves]
    return "\n".join(lines) + "\n"


def _row(n: int, shell: str, momentum: int, electrons: float, radius_a0: float) -> str:
    """Return a line: name, n counted from the lowest of its l in the valence, l, electrons, energy, radii, j."""
    return f"{shell} {n} {momentum} {electrons:.2f} 0.00 {radius_a0:.3f} {radius_a0:.3f} 0.0"


_AE = re.compile(r"^\s*Etot\s*=\s*\S+ Ry,\s*\S+ Ha,\s*(\S+) eV", re.MULTILINE)
_PS = re.compile(r"^\s*Etotps\s*=\s*\S+ Ry,\s*\S+ Ha,\s*(\S+) eV", re.MULTILINE)


def read_ld1(text: str) -> AtomEnergies:
    """Return the atom's energies from what ``ld1.x`` printed.

    Raises
    ------
    ValueError
        They are not there: it did not end well.
    """
    all_electron, pseudo = _AE.findall(text), _PS.findall(text)
    if not all_electron or not pseudo:
        raise ValueError("ld1.x printed no energies of the atom")
    return AtomEnergies(float(all_electron[0]), float(pseudo[-1]))
