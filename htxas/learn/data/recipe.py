"""What a dataset is made of: plain frozen records, ready to be hashed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

__all__ = [
    "MIN_MOLECULES",
    "Align",
    "CurveRecipe",
    "ModelKind",
    "Part",
    "Recipe",
    "Rows",
    "Scale",
    "Window",
    "Zero",
]

MIN_MOLECULES = 50
"""Fewer molecules than this are refused: a test split of eight molecules already says next to nothing."""


class Align(StrEnum):
    """Where the energy window is anchored."""

    EXCITATION_ENERGY = "excitation_energy"  # energies relative to the molecule's first final state
    EDGE = "edge"  # energies relative to the site's threshold: continuous spectra only
    ABSOLUTE = "absolute"  # energies as computed; the position of the edge stays in the spectrum


class Scale(StrEnum):
    """What the intensity means."""

    ABSOLUTE = (
        "absolute"  # as computed: oscillator strength per eV per absorbing atom, or normalised absorption
    )
    AREA = "area"  # area 1 in the window: a spectrum in arbitrary units can be used later


class Rows(StrEnum):
    """What a row of a dataset is."""

    MOLECULE = "molecule"  # the multiplicity-weighted spectrum of all its absorbing sites
    SITE = "site"  # each symmetry-unique site by itself


class Part(StrEnum):
    """Which levels a density of states counts."""

    BOTH = "both"
    OCCUPIED = "occupied"
    UNOCCUPIED = "unoccupied"


class Zero(StrEnum):
    """What becomes 0 eV of a density of states."""

    HOMO = "homo"
    MIDGAP = "midgap"  # half-way between HOMO and LUMO


class ModelKind(StrEnum):
    """The two published input sets (Kikumasa et al. 2022)."""

    A = "A"  # the spectrum alone
    B = "B"  # the spectrum and the ratios N/C, O/C, F/C


@dataclass(frozen=True, slots=True)
class Window:
    """Energy window of the input.

    Attributes
    ----------
    start_eV
        First point, relative to the anchor of ``align``.
    points
        Number of points.
    step_eV
        Step; of transitions it must be the spectra's own.
    align
        The anchor.
    scale
        Meaning of the intensity.
    """

    start_eV: float = -4.0
    points: int = 240
    step_eV: float = 0.1
    align: Align = Align.EXCITATION_ENERGY
    scale: Scale = Scale.ABSOLUTE

    @property
    def stop_eV(self) -> float:
        """Last point, relative to the anchor."""
        return self.start_eV + (self.points - 1) * self.step_eV


@dataclass(frozen=True, slots=True)
class CurveRecipe:
    """A density of states of the ground state, projected on the absorbing atoms of a row: something to be learned.

    The defaults are those of Chen et al., J. Phys. Chem. Lett. 14, 4858 (2023).

    Attributes
    ----------
    name
        Its name in the dataset.
    start_eV, points, step_eV
        Grid, relative to ``zero``.
    sigma_eV
        Gaussian broadening.
    angular
        Any of s, p, d; added up.
    part
        Levels that count.
    zero
        What becomes 0 eV.
    scale
        ``area``: area 1 on the grid. ``absolute``: states per eV and absorbing atom, both spins.
    """

    name: str = "pdos"
    start_eV: float = -15.0
    points: int = 300
    step_eV: float = 0.1
    sigma_eV: float = 0.5
    angular: tuple[str, ...] = ("s", "p")
    part: Part = Part.BOTH
    zero: Zero = Zero.HOMO
    scale: Scale = Scale.AREA

    @property
    def stop_eV(self) -> float:
        """Last point."""
        return self.start_eV + (self.points - 1) * self.step_eV


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a source becomes a dataset.

    Attributes
    ----------
    window
        The input.
    targets
        Target names (:mod:`htxas.learn.data.targets`).
    rows
        Molecules or their sites.
    curves
        Densities of states to learn, each by another name.
    sigma_eV
        Broadening of the input, made of the transitions; None: as it is stored. Of a continuous spectrum: on top of
        what it has already; None: nothing.
    validation, test
        Fractions of molecules.
    seed
        Of the split.
    drop_uncovered
        Leave out (and count) molecules whose spectrum ends below the window instead of refusing.
    """

    targets: tuple[str, ...]
    window: Window = Window()
    rows: Rows = Rows.MOLECULE
    curves: tuple[CurveRecipe, ...] = ()
    sigma_eV: float | None = None
    validation: float = 0.15
    test: float = 0.15
    seed: int = 0
    drop_uncovered: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        curves = [asdict(c) | {"angular": list(c.angular)} for c in self.curves]
        return asdict(self) | {"targets": list(self.targets), "curves": curves}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Rebuild from :meth:`to_dict`."""
        window = dict(data["window"])
        window |= {"align": Align(window["align"]), "scale": Scale(window["scale"])}
        curves = tuple(
            CurveRecipe(
                **{
                    **c,
                    "angular": tuple(c["angular"]),
                    "part": Part(c["part"]),
                    "zero": Zero(c["zero"]),
                    "scale": Scale(c["scale"]),
                }
            )
            for c in data["curves"]
        )
        return cls(
            **{
                **data,
                "targets": tuple(data["targets"]),
                "window": Window(**window),
                "rows": Rows(data["rows"]),
                "curves": curves,
            }
        )
