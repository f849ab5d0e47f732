"""What a FEFF calculation's result depends on, its presets, and how it is written as cards.

Everything FEFF is told is in the identity, but what only leads the self-consistency on its way
(:mod:`htxas.engines.feff.corrections`). The same form serves decks that exist: :func:`parameters_of` reads it from
their cards, and what has no name here is kept as it is under ``cards``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from htxas.engines.base import ResolvedParameters
from htxas.engines.feff.deck import Card
from htxas.engines.models import nearest, overridden, validated
from htxas.errors import UserError

__all__ = [
    "EDGES",
    "EXCHANGE",
    "Elnes",
    "FeffParameters",
    "Ldos",
    "MANAGED",
    "PRESETS",
    "Sphere",
    "Xanes",
    "resolve",
]

EDGES: tuple[str, ...] = ("K", "L1", "L2", "L3", "M1", "M2", "M3", "M4", "M5")
"""Edges FEFF knows by these names; it computes one shell at a time."""

EXCHANGE: tuple[str, ...] = ("hedin-lundqvist", "dirac-hara", "ground-state", "dirac-hara-hl", "", "nonlocal")
"""FEFF's ``ixc`` by number."""

MANAGED = frozenset(
    "ATOM POTE TITL END CONT PRIN EDGE HOLE S02 CORE NOHO EXCH SCF FMS XANE ELNE EGRI LDOS POLA ELLI RPAT CIF TARG "
    "RECI REAL LATT COOR RMUL EQUI SGRO KMES CFAV OVER EXAF EXEL DANE FPRI XES NRIX XMCD XNCD INCL LOAD".split()
)
"""Cards that ``cards`` may not hold: they have a name of their own, or make another spectrum of it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Sphere(_Strict):
    """A sphere around the absorber (full multiple scattering) or around each kind of atom (self-consistency).

    Attributes
    ----------
    radius_A
        Its radius, or None.
    atoms
        Instead: whole shells, as near to so many atoms as they come.
    whole
        Instead: the whole molecule.
    center
        ``each`` kind of atom has its own sphere; the ``absorber``'s serves all, as suits molecules.
    """

    radius_A: float | None = Field(None, gt=0, le=60)
    atoms: int | None = Field(None, ge=2, le=2000)
    whole: bool = False
    center: Literal["each", "absorber"] = "each"

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.radius_A is not None) + (self.atoms is not None) + self.whole != 1:
            raise ValueError("say radius_A, atoms, or whole: true")
        return self


class Xanes(_Strict):
    """The energies of the spectrum.

    Attributes
    ----------
    k_max_invA, k_step_invA, e_step_eV
        FEFF's own grid: how far, and the steps far from the edge and near it.
    grid
        Instead: lines of FEFF's ``EGRID``, energies from the threshold: ``[e_grid, -10, 50, 0.1]``.
    """

    k_max_invA: float = Field(5.0, ge=2, le=30)
    k_step_invA: float = Field(0.05, ge=0.005, le=1)
    e_step_eV: float = Field(0.1, ge=0, le=5)
    grid: tuple[tuple[str, float | str, float, float], ...] = ()


class Elnes(_Strict):
    """An electron energy-loss spectrum instead of absorption, averaged over orientations.

    Attributes
    ----------
    beam_keV
        Energy of the electrons.
    collection_mrad, convergence_mrad
        Semi-angles.
    mesh
        Radial and angular points of the integration over momentum transfers.
    """

    beam_keV: float = Field(gt=0, le=3000)
    collection_mrad: float = Field(gt=0, le=500)
    convergence_mrad: float = Field(0.0, ge=0, le=500)
    mesh: tuple[int, int] = (50, 1)


class Ldos(_Strict):
    """Local densities of states.

    Attributes
    ----------
    from_eV, to_eV
        Range, on FEFF's own scale (the Fermi level is near -5 to -10).
    broadening_eV
        Half width of the Lorentzian.
    points
        FEFF's default is 101.
    """

    from_eV: float = Field(-30.0, ge=-500, le=500)
    to_eV: float = Field(20.0, ge=-500, le=500)
    broadening_eV: float = Field(0.1, gt=0, le=10)
    points: int = Field(101, ge=2, le=1000)


class FeffParameters(_Strict):
    """All of them.

    Attributes
    ----------
    version
        Of FEFF, its first number: what another one computed is refused.
    hole
        ``rpa``: screened; ``fsr``: final-state rule, unscreened; ``none``.
    s02
        Amplitude factor; 0 lets FEFF estimate it.
    exchange, background
        Self-energy of the fine structure and of the atomic background, from :data:`EXCHANGE`.
    shift_eV, broadening_eV
        FEFF's own correction of the Fermi level (positive moves the edge down) and uniform decay; 0 is none.
    scf, fms
        Spheres, or None for overlapped atoms and for no multiple scattering.
    cluster_radius_A
        Atoms FEFF is told of, at least those of both spheres around every kind of atom; None takes just these.
    xanes, elnes
        Energies; with ``elnes`` the spectrum is one of energy loss.
    ldos
        Local densities of states, or None; not beside hydrogen, see :mod:`htxas.engines.feff.ldos`.
    polarization
        ``isotropic``, or ``xyz`` for three directions, each of which FEFF computes by itself.
    stoichiometry
        ``structure``; of decks that exist also FEFF's ``xnatph`` of each unique potential, the absorber's first, then
        by atomic number; or ``deck``: none was given, and FEFF counted the atoms it was told of.
    scf_extra, fms_extra
        Further numbers of these cards: the core-valence separation; solver and tolerances of multiple scattering.
    rpath_A
        Paths added beyond the sphere of multiple scattering; -1 is none, ``default`` leaves it to FEFF.
    cards
        Further cards as lines: ``["AFOLP 1.0", "FOLP 1 0.8"]``.
    """

    version: Literal[9, 10] = 10
    hole: Literal["rpa", "fsr", "none"] = "rpa"
    s02: float = Field(1.0, ge=0, le=1.5)
    exchange: Literal["hedin-lundqvist", "dirac-hara", "ground-state", "dirac-hara-hl", "nonlocal"] = (
        "hedin-lundqvist"
    )
    background: Literal["hedin-lundqvist", "dirac-hara", "ground-state", "dirac-hara-hl", "nonlocal"] = (
        "ground-state"
    )
    shift_eV: float = Field(0.0, ge=-100, le=100)
    broadening_eV: float = Field(0.0, ge=0, le=20)
    scf: Sphere | None = None
    fms: Sphere | None = None
    cluster_radius_A: float | None = Field(None, gt=0, le=60)
    xanes: Xanes = Xanes()
    elnes: Elnes | None = None
    ldos: Ldos | None = None
    polarization: Literal["isotropic", "xyz"] = "isotropic"
    stoichiometry: Literal["structure", "deck"] | tuple[float, ...] = "structure"
    scf_extra: tuple[float, ...] = Field((), max_length=2)
    fms_extra: tuple[float, ...] = Field((), max_length=4)
    rpath_A: float | Literal["default"] = -1.0
    cards: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for line in self.cards:
            name = line.split()[0] if line.split() else ""
            if not name[:1].isalpha() or not line.isprintable():
                raise ValueError(f"cards: {line!r} is no card")
            if name[:4].upper() in MANAGED:
                raise ValueError(f"cards: {name} is written by htxas itself, use the parameter for it")
        if self.elnes is not None and self.polarization != "isotropic":
            raise ValueError("FEFF cannot do polarization and elnes at once")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return them as the identity has them: what says nothing is left out."""
        document = self.model_dump(mode="json", exclude_none=True)
        return {k: v for k, v in document.items() if v not in ({}, [])}

    def energy_cards(self) -> list[Card]:
        """Return ``XANES`` or ``ELNES``, and ``EGRID``."""
        x = self.xanes
        words = tuple(_number(v) for v in (x.k_max_invA, x.k_step_invA, x.e_step_eV))
        cards = [
            Card("XANES", words) if self.elnes is None else Card("ELNES", words, _elnes_lines(self.elnes))
        ]
        if x.grid:
            cards.append(Card("EGRID", (), tuple(tuple(_word(v) for v in line) for line in x.grid)))
        return cards


def _elnes_lines(elnes: Elnes) -> tuple[tuple[str, ...], ...]:
    beam, averaged, no_cross_terms, relativistic = _number(elnes.beam_keV), "1", "0", "1"
    return (
        (beam, averaged, no_cross_terms, relativistic),
        (_number(elnes.collection_mrad), _number(elnes.convergence_mrad)),
        tuple(str(n) for n in elnes.mesh),
        ("0.0", "0.0"),
    )


def _word(value: float | str) -> str:
    return value if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    return repr(float(value))


_MOLECULE = {
    "scf": {"whole": True, "center": "absorber"},
    "fms": {"whole": True, "center": "absorber"},
    "xanes": {"grid": [["e_grid", -12.0, 60.0, 0.1]]},
}
_CRYSTAL = {
    "scf": {"radius_A": 5.5},
    "fms": {"radius_A": 8.0},
    "xanes": {"grid": [["e_grid", -12.0, 60.0, 0.2]]},
}

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "molecule": (
        "XANES of a molecule, all its atoms in self-consistency and full multiple scattering",
        _MOLECULE,
    ),
    "crystal": (
        "XANES of a crystal: self-consistency within 5.5 A, full multiple scattering within 8 A",
        _CRYSTAL,
    ),
    "shells": (
        "XANES of a crystal with about 100 atoms in self-consistency and in full multiple scattering, as published",
        {**_CRYSTAL, "scf": {"atoms": 100}, "fms": {"atoms": 100}},
    ),
}


def resolve(preset: str, overrides: Mapping[str, Any], *, element: str, edge: str) -> ResolvedParameters:
    """Return the full parameters of a preset with the user's overrides. FEFF has no ground state of its own.

    Raises
    ------
    UserError
        Unknown preset, key or value, or an edge of two shells.
    """
    if preset not in PRESETS:
        raise UserError(f"feff has no preset {preset!r}", hint=nearest(preset, PRESETS))
    if edge not in EDGES:
        shells = " and ".join(edge[:1] + n for n in edge[1:].split(","))
        raise UserError(
            f"FEFF computes one shell at a time, not {element} {edge}",
            hint=f"make it two campaigns: {shells}",
        )
    (values,) = overridden("feff", overrides, (FeffParameters, PRESETS[preset][1]))
    return ResolvedParameters(site=validated("feff", FeffParameters, values).to_dict(), ground=None)
