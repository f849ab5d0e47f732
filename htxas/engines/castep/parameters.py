"""What a CASTEP calculation's result depends on. Everything that CASTEP is told is in the identity."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from htxas.domain.elements import atomic_number
from htxas.engines.castep.pseudopotentials import SETS, refusal
from htxas.engines.cells import Box, Cell, Mesh, Supercell
from htxas.engines.models import Strict
from htxas.errors import StructureError

__all__ = ["RECIPE", "CastepParameters", "Ground", "Hole", "State", "ground_of", "site_of", "state_document"]

RECIPE = 1
"""Raised when the engine's own algorithm changes a result; part of every identity."""


class State(Strict):
    """What the ground state's density and energy depend on; the core-hole state is computed with the same.

    Attributes
    ----------
    functional, cutoff_eV
        As CASTEP calls them; the published campaign has PBE and 500 eV.
    box
        A molecule's, at the zone's centre. The published one is 15 A wide.
    supercell, kpoints
        Instead: a crystal's.
    smearing_eV
        Width of the Gaussian smearing of occupations, CASTEP's default. A half-filled level of a core-excited molecule
        needs one.
    total_energy
        Which of CASTEP's energies is taken. ``final`` is E with the smeared occupations: a lone half-filled level has
        the same occupation at any width, so this is its energy without smearing; the published readers take it.
        ``zero_kelvin`` is the estimate E - TS/2 for a continuum of levels, as OptaDOS's own tool takes it.
    energy_tolerance_eV, eigenvalue_tolerance_eV
        Of self-consistency, per atom, and of the levels.
    pseudopotential_set
        Name of a set of :data:`htxas.engines.castep.pseudopotentials.SETS`.
    pseudopotentials
        The user's own, before the set's: element -> on-the-fly string, without a hole; or, not of the absorber, a
        library of CASTEP's.
    """

    functional: Literal["PBE", "PBESOL", "RPBE", "LDA"] = "PBE"
    cutoff_eV: float = Field(500.0, ge=100, le=3000)
    box: Box | None = None
    supercell: Supercell | None = None
    kpoints: Mesh | None = None
    smearing_eV: float = Field(0.2, gt=0, le=1)
    total_energy: Literal["final", "zero_kelvin"] = "final"
    energy_tolerance_eV: float = Field(1e-6, gt=0, le=1e-4)
    eigenvalue_tolerance_eV: float = Field(1e-6, gt=0, le=1e-3)
    pseudopotential_set: str = "otfg-1"
    pseudopotentials: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.box is None) == (self.supercell is None):
            raise ValueError("say box (molecules) or supercell (crystals)")
        if (self.kpoints is None) != (self.supercell is None):
            raise ValueError("kpoints go with supercell; a box has the zone's centre alone")
        if self.pseudopotential_set not in SETS:
            raise ValueError(
                f"there is no set of pseudopotentials {self.pseudopotential_set!r}; there is {' '.join(SETS)}"
            )
        for element, string in self.pseudopotentials.items():
            try:
                atomic_number(element)
            except StructureError:
                raise ValueError(f"pseudopotentials: there is no element {element!r}") from None
            if (why := refusal(string)) is not None:
                raise ValueError(f"pseudopotentials: {element} {string!r}: {why}")
        return self

    @property
    def cell(self) -> Box | Supercell:
        """The periodic cell to build."""
        chosen = self.box or self.supercell
        assert chosen is not None
        return chosen

    def divisions(self, cell: Cell) -> tuple[int, int, int]:
        """Return the mesh of k points of self-consistency."""
        return (1, 1, 1) if self.kpoints is None else self.kpoints.build(cell.cell_A)

    def string(self, element: str) -> str | None:
        """Return the pseudopotential of an element, without a hole; None if nobody has said one."""
        return self.pseudopotentials.get(element) or SETS[self.pseudopotential_set].get(element)


class Ground(State):
    """What a ground state's result depends on.

    Attributes
    ----------
    pdos_window_eV
        How far above the lowest empty level there are levels in the projected density of states. No site depends on it.
    """

    pdos_window_eV: float = Field(15.0, ge=5, le=60)


class Hole(Strict):
    """What only the core-hole part depends on: a full hole, the excited electron in the lowest empty level.

    Attributes
    ----------
    window_eV
        How far above the first final state there shall be states: as many empty bands are asked for as
        :func:`htxas.engines.castep.write.extra_bands` says, and a result that falls short by a tenth is refused.
    extra_bands
        Instead: how many empty bands. How far they reach is then the user's.
    hole_kpoints
        k points of the spectrum, if not those of self-consistency; crystals only.
    """

    window_eV: float = Field(22.0, ge=5, le=100)
    extra_bands: int | None = Field(None, ge=5, le=20_000)
    hole_kpoints: Mesh | None = None


class CastepParameters(Strict):
    """All of a site.

    Attributes
    ----------
    ground, hole
        See there.
    absorber
        Pseudopotential of the absorber, with the hole.
    """

    ground: State
    hole: Hole
    absorber: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.ground.box is not None and self.hole.hole_kpoints is not None:
            raise ValueError("hole_kpoints: a box has the zone's centre alone")
        return self


def state_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a ground state's document that its density and energy depend on: a site has that alone."""
    return {k: v for k, v in document.items() if k == "recipe" or k in State.model_fields}


def ground_of(document: Mapping[str, Any]) -> Ground:
    """Return the parameters of a ground state's document.

    Raises
    ------
    ValueError
        Of another recipe: its numbers would be stored under an identity that is not theirs.
    """
    return Ground.model_validate_json(json.dumps(_without_recipe(document)))


def site_of(document: Mapping[str, Any]) -> CastepParameters:
    """Return the parameters of a site's document.

    Raises
    ------
    ValueError
        As :func:`ground_of`.
    """
    state = State.model_validate_json(json.dumps(_without_recipe(document["ground"])))
    hole = Hole.model_validate_json(json.dumps(document["hole"]))
    return CastepParameters(ground=state, hole=hole, absorber=document["absorber"])


def _without_recipe(document: Mapping[str, Any]) -> dict[str, Any]:
    if document["recipe"] != RECIPE:
        raise ValueError(f"recipe {document['recipe']}, and this htxas computes by recipe {RECIPE}")
    return {k: v for k, v in document.items() if k != "recipe"}
