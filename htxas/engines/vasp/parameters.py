"""What a VASP calculation's result depends on, and its presets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from htxas.domain.elements import atomic_number
from htxas.domain.strength import bare_atom_strength
from htxas.engines.base import ResolvedParameters
from htxas.engines.cells import Box, Mesh, Supercell
from htxas.engines.models import Strict, nearest, one_cell, overridden, validated
from htxas.engines.vasp.potcar import find, read_header
from htxas.errors import UserError

__all__ = ["PRESETS", "RECIPE", "Ground", "Hole", "Potcar", "ground_from", "hole_from", "of_site", "resolve"]

RECIPE = 1
"""Raised when the engine's own algorithm changes a result; part of every identity."""


class Potcar(Strict):
    """A POTCAR of the user's library: its name, its content, and what it says of itself.

    Attributes
    ----------
    name
        In the library: ``Mg_sv_GW``.
    titel
        As VASP repeats it.
    sha256
        Of the unpacked file.
    electrons
        Of its valence.
    cutoff_eV
        The least cutoff it is made for (ENMAX).
    """

    name: str
    titel: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    electrons: float = Field(gt=0)
    cutoff_eV: float = Field(gt=0)


class Ground(Strict):
    """What the ground state depends on; the core-hole state is computed with the same.

    Attributes
    ----------
    functional
        Of the POTCARs too.
    potcars
        By element. Given as names in the user's library: ``{Mg: Mg_sv_GW, O: O_GW}``. VASP's makers recommend those
        with ``_GW`` for spectra: many others have no partial waves for high empty states.
    cutoff_eV
        Of the wave functions; no less than each POTCAR asks for.
    box, supercell
        One of them: a molecule's box, or the crystal's supercell around the hole (the ground state is of the same one).
    kpoints
        Of a crystal; a molecule has the zone's centre.
    smearing_eV
        Gaussian width of occupations; energies are those extrapolated to none.
    energy_tolerance_eV
        Self-consistency: change of the total energy (and of the sum of levels) in a step.
    pdos_window_eV
        The ground state's levels are computed to about this far above a molecule's vacuum, or above what the valence
        electrons would fill as free ones in a crystal.
    """

    functional: Literal["PBE"] = "PBE"
    potcars: dict[str, Potcar] = Field(min_length=1)
    cutoff_eV: float = Field(ge=100, le=3000)
    box: Box | None = None
    supercell: Supercell | None = None
    kpoints: Mesh | None = None
    smearing_eV: float = Field(0.05, ge=0.001, le=0.2)
    energy_tolerance_eV: float = Field(1e-6, gt=0, le=1e-4)
    pdos_window_eV: float = Field(5.0, gt=0, le=60)

    @model_validator(mode="after")
    def _one_cell(self) -> Self:
        if (self.box is None) == (self.supercell is None):
            raise ValueError("say box (a molecule) or supercell (a crystal)")
        if (self.supercell is None) != (self.kpoints is None):
            raise ValueError("kpoints go with a supercell")
        return self


class Hole(Strict):
    """What only the core-hole part depends on.

    The hole is a full one in 1s (``ICORELEVEL = 2``).

    Attributes
    ----------
    electron
        ``kept``: the excited electron is in the lowest empty level, as VASP puts it there. ``removed``: a uniform
        background is in its place; crystals only. VASP's makers found that better where the lowest empty levels are
        localised (Unzog, Tal and Kresse, Phys. Rev. B 106, 155133 (2022)).
    window_eV
        How far above the first final state there shall be states: as many bands are asked for as free electrons in the
        cell would have.
    broadening_eV
        ``CH_SIGMA``: of the Gaussian that VASP puts on every transition. Keep it small; users' own comes on top.
    points
        ``CH_NEDOS``: of VASP's energy axis, which spans all of its bands.
    reference_eV
        None: energies are on VASP's own axis, levels minus the core level, which sites must not be compared by.
        Otherwise the first peak is put at this plus the difference of the total energies with and without the hole,
        which is right for shifts between sites of one element whose first final state is bright. VASP does not know the
        absolute energy: take the number from a compound that was measured, computed with the same POTCARs and cutoff.
        The excited electron must be kept.
    """

    electron: Literal["kept", "removed"] = "kept"
    window_eV: float = Field(25.0, ge=5, le=100)
    broadening_eV: float = Field(0.1, ge=0.01, le=1)
    points: int = Field(6000, ge=500, le=100_000)
    reference_eV: float | None = Field(None, ge=-200_000, le=200_000)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.reference_eV is not None and self.electron == "removed":
            raise ValueError("reference_eV needs the total energy with the excited electron: electron: kept")
        return self


PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "crystal": (
        "a crystal's supercell with full core holes 9 A apart, excited electron kept, PBE",
        {"supercell": {"distance_A": 9.0}, "kpoints": {"spacing_invA": 0.4}, "cutoff_eV": 500.0},
    ),
    "molecule": (
        "a molecule in a cubic box of 15 A, full core hole, excited electron kept, PBE",
        {"box": {"side_A": 15.0}, "cutoff_eV": 500.0},
    ),
}
"""Line for people, ground state."""


def resolve(preset: str, overrides: Mapping[str, Any], *, element: str, edge: str) -> ResolvedParameters:
    """Return the full parameters of a preset with the user's overrides.

    Raises
    ------
    UserError
        Unknown preset, key or value; an edge other than K; a POTCAR that is not there, or that has 1s in its valence.
    """
    if preset not in PRESETS:
        raise UserError(f"vasp has no preset {preset!r}", hint=nearest(preset, PRESETS))
    if edge != "K":
        raise UserError(
            f"the vasp engine makes holes in 1s only, not {element} {edge}", hint="use feff for other edges"
        )
    if bare_atom_strength(element, edge, 1.0) is None:
        raise UserError(
            f"what a bare {element} absorbs at its K edge is not known: spectra are in units of that"
        )
    ground, hole = overridden("vasp", overrides, (Ground, PRESETS[preset][1]), (Hole, {}))
    one_cell(ground, overrides)
    ground["potcars"] = _potcars(ground.get("potcars"))
    if element not in ground["potcars"]:
        raise UserError(f"vasp: the absorber {element} has no POTCAR", hint=f"potcars: {{{element}: NAME}}")
    if atomic_number(element) - ground["potcars"][element]["electrons"] < 2 - 1e-6:
        name = ground["potcars"][element]["name"]
        raise UserError(f"vasp: 1s is a valence state in {name}: it has no hole in its core")
    common = {"recipe": RECIPE, **ground_from(ground).model_dump(mode="json", exclude_none=True)}
    hole_model = hole_from(hole)
    if "box" in common and hole_model.electron == "removed":
        raise UserError("vasp: a charged molecule in a periodic box has no sound levels; electron: kept")
    site = {"ground": of_site(common), "hole": hole_model.model_dump(mode="json", exclude_none=True)}
    return ResolvedParameters(site=site, ground=common)


def _potcars(names: Any) -> dict[str, Any]:
    if not isinstance(names, Mapping) or not names or not all(isinstance(n, str) for n in names.values()):
        raise UserError(
            "vasp: say which POTCARs of your library to take", hint="potcars: {Mg: Mg_sv_GW, O: O_GW}"
        )
    found = {}
    for element, name in sorted(names.items()):
        content = find(name, os.environ)
        try:
            header = read_header(content.decode(errors="replace"))
        except ValueError as error:
            raise UserError(f"vasp: the POTCAR {name} {error}") from None
        if header.element != element:
            raise UserError(f"vasp: the POTCAR {name} is one of {header.element}, not of {element}")
        if header.functional != "PE":
            raise UserError(f"vasp: the POTCAR {name} is made for {header.functional}, not for PBE (PE)")
        found[element] = {
            "name": name,
            "titel": header.titel,
            "sha256": sha256(content).hexdigest(),
            "electrons": header.electrons,
            "cutoff_eV": header.cutoff_eV,
        }
    return found


def of_site(ground: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a ground state's parameters its sites depend on: not how far up its PDOS reaches."""
    return {k: v for k, v in ground.items() if k != "pdos_window_eV"}


def ground_from(document: Mapping[str, Any]) -> Ground:
    """Return the model of a document."""
    return validated("vasp", Ground, {k: v for k, v in document.items() if k != "recipe"})


def hole_from(document: Mapping[str, Any]) -> Hole:
    """Return the model of a document."""
    return validated("vasp", Hole, document)
