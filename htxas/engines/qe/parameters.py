"""Parameters of Quantum ESPRESSO: what a calculation depends on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from htxas.engines.cells import Box, Mesh, Supercell
from htxas.engines.models import Strict, validated

__all__ = [
    "RECIPE",
    "Ground",
    "Hole",
    "UserHole",
    "UserUpf",
    "ground_from",
    "hole_from",
    "of_site",
]

RECIPE = 1
"""Raised when the engine's own algorithm changes a result; part of every identity."""


class UserUpf(Strict):
    """A pseudopotential file of the user's: its name, its content, and the valence electrons it says it has."""

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    electrons: float = Field(gt=0)


class UserHole(UserUpf):
    """The user's pseudopotential of the absorber with a full core hole.

    Attributes
    ----------
    atom_eV
        (all-electron - pseudo) of the isolated atom with the hole, minus the same without: what the pseudopotentials do
        not know of the excitation. Whoever made the files has these energies, ``ld1.x`` prints them.
    radius_a0
        Greatest cutoff radius of its p waves, bohr; the files do not say it.
    """

    atom_eV: float
    radius_a0: float = Field(gt=0.3, lt=5)


class Ground(Strict):
    """What the ground state depends on; the core-hole state is computed with the same.

    Attributes
    ----------
    functional
        Of the pseudopotentials too.
    pseudopotentials
        Set of recipes, see :mod:`htxas.engines.qe.recipes`.
    upf
        Pseudopotentials of the user's own in place of the set's, by element. Given as names of files in the folders of
        ``HTXAS_QE_PSEUDOS``; the identity has their checksums.
    cutoff_Ry
        Of the wave functions. A preset says it in shares of what the absorber needs, see
        :class:`~htxas.engines.qe.recipes.Recipe`.
    density_cutoff_Ry
        Of the density; four times the other unless said, which is right for norm-conserving pseudopotentials only.
    box, supercell
        One of them: a molecule's box, or the crystal's supercell around the hole (the ground state is of the same one).
    kpoints
        Of a crystal; a molecule has one.
    pdos_window_eV
        The ground state's levels are computed to about this far above its vacuum, or above a crystal's gap, for its
        PDOS; to where exactly, it says.
    energy_tolerance_Ry
        Self-consistency: estimated error of the total energy.
    """

    functional: Literal["PBE"] = "PBE"
    pseudopotentials: str = "tm-pbe-1"
    upf: dict[str, UserUpf] = Field(default_factory=dict)
    cutoff_Ry: float = Field(ge=20, le=400)
    density_cutoff_Ry: float | None = Field(None, ge=80, le=4000)
    box: Box | None = None
    supercell: Supercell | None = None
    kpoints: Mesh | None = None
    pdos_window_eV: float = Field(5.0, gt=0, le=60)
    energy_tolerance_Ry: float = Field(1e-8, gt=0, le=1e-5)

    @model_validator(mode="after")
    def _one_cell(self) -> Self:
        if (self.box is None) == (self.supercell is None):
            raise ValueError("say box (a molecule) or supercell (a crystal)")
        if (self.supercell is None) != (self.kpoints is None):
            raise ValueError("kpoints go with a supercell")
        return self


class Hole(Strict):
    """What only the core-hole part depends on.

    Attributes
    ----------
    electrons
        Taken out of the 1s shell: 1, as published; 0.5, the transition potential; or 0, the ground state's own empty
        levels, to see what the hole does.
    excited_electron
        Whether what was taken out is in the lowest empty level, as published: the cell is neutral. Otherwise it has
        gone; a uniform background makes up for it.
    hole_upf
        The user's own pseudopotential of the absorber with a full hole; ``upf`` must have the one without.
    paw_radius
        Radius of the reconstruction, in cutoff radii of the absorber's pseudopotential.
    window_eV
        Final states are kept up to this far above the first, eV.
    resolution_eV
        Half width to which the spectrum has to be converged, eV.
    tolerance
        Relative change of the spectrum at that width, at which the recursion ends.
    """

    electrons: float = 1.0
    excited_electron: bool = True
    hole_upf: UserHole | None = None
    paw_radius: float = Field(1.5, ge=1, le=3)
    window_eV: float = Field(40.0, ge=5, le=200)
    resolution_eV: float = Field(0.3, ge=0.05, le=2)
    tolerance: float = Field(1e-3, gt=0, le=0.01)

    @field_validator("electrons")
    @classmethod
    def _one_of(cls, value: float) -> float:
        if value not in (0.0, 0.5, 1.0):
            raise ValueError("one of 1, 0.5, 0")
        return value

    @property
    def is_scale(self) -> bool:
        """Whether the state the spectrum is made of is the one of the total-energy difference, too."""
        return self.electrons == 1.0 and self.excited_electron


def of_site(ground: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a ground state's parameters its sites depend on: not how far up its PDOS reaches."""
    return {k: v for k, v in ground.items() if k != "pdos_window_eV"}


def ground_from(document: Mapping[str, Any]) -> Ground:
    """Return the model of a document."""
    return validated("qe", Ground, {k: v for k, v in document.items() if k != "recipe"})


def hole_from(document: Mapping[str, Any]) -> Hole:
    """Return the model of a document."""
    return validated("qe", Hole, document)
