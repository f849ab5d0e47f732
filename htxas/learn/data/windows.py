"""The input of each row, and what all rows must share: step, broadening, quantity, scale of the energies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from htxas.domain.spectrum import Quantity
from htxas.errors import DatasetError
from htxas.learn.data.curve_window import curve_row, known_eV, refuse_unknown
from htxas.learn.data.features import check_grid, window_row
from htxas.learn.data.parts import Part
from htxas.learn.data.recipe import Align, Recipe
from htxas.learn.data.records import Continuum

__all__ = ["Windows"]


@dataclass(slots=True, eq=False)
class Windows:
    """Makes the input of rows, one by one, and remembers what their spectra have in common.

    Attributes
    ----------
    recipe
        What is asked for.
    grid
        Of transitions: the first row's name, sigma (eV), step (eV) and quantity.
    scale
        Of continuous spectra: the first row's name, lifetime (eV) and scale of the energies.
    ends
        Rows of which the states are not complete to the window's end -> where they end, on its axis.
    unknown
        Rows of which the continuous spectrum does not fill the window -> where it begins and ends, on its axis.
    """

    recipe: Recipe
    grid: tuple[str, float, float, Quantity] | None = None
    scale: tuple[str, float, str] | None = None
    ends: dict[str, float] = field(default_factory=dict)
    unknown: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def sigma_eV(self) -> float:
        """Broadening of all rows; 0 where a continuous spectrum is not broadened further."""
        return (self.recipe.sigma_eV or 0.0) if self.grid is None else self.grid[1]

    @property
    def quantity(self) -> Quantity:
        """What all rows are in."""
        return Quantity.ABSORPTION if self.grid is None else self.grid[3]

    @property
    def continuum(self) -> tuple[float, str] | None:
        """Of continuous spectra: lifetime (eV) and scale of the energies of all rows; else None."""
        return None if self.scale is None else self.scale[1:]

    def row(self, part: Part) -> npt.NDArray[np.float32] | None:
        """Return the window of a part, shape (points,); None, and remembered, if its spectrum does not fill it.

        Raises
        ------
        DatasetError
            If it is not like the rows before it, or cannot be put in the window.
        """
        where = f"{'molecule' if part.site is None else 'site'} {part.name}"
        continuum = None if part.site is None else part.site.continuum
        if continuum is not None:
            return self._of_continuum(part.name, continuum, where)
        return self._of_transitions(part, where)

    def left_out(self, rows: int) -> list[str]:
        """Return the names of parts whose spectrum does not fill the window.

        Parameters
        ----------
        rows
            How many others there are.

        Raises
        ------
        DatasetError
            If there are any and the recipe does not leave them out.
        """
        if not self.recipe.drop_uncovered:
            if self.unknown:
                refuse_unknown(self.unknown, rows + len(self.unknown), self.recipe.window)
            if self.ends:
                _refuse_uncovered(self.ends, rows + len(self.ends), self.recipe)
        return [*self.ends, *self.unknown]

    def _of_transitions(self, part: Part, where: str) -> npt.NDArray[np.float32] | None:
        window, spectrum, first_eV = self.recipe.window, part.spectrum, part.excitation_energy_eV
        if window.align is Align.EDGE:
            raise DatasetError(
                "has an excitation energy and no threshold",
                where=where,
                hint="window.align: excitation_energy",
            )
        assert spectrum is not None
        assert first_eV is not None
        self.grid = self.grid or (part.name, spectrum.sigma_eV, spectrum.step_eV, spectrum.quantity)
        whose, sigma_eV, step_eV, quantity = self.grid
        if (spectrum.sigma_eV, spectrum.step_eV) != (sigma_eV, step_eV):
            raise DatasetError(
                f"sigma {spectrum.sigma_eV} eV and step {spectrum.step_eV} eV differ from {whose} "
                f"({sigma_eV}, {step_eV})",
                where=where,
            )
        if spectrum.quantity is not quantity:
            raise DatasetError(f"is in {spectrum.quantity}, but {whose} in {quantity}", where=where)
        check_grid(spectrum, window, where)
        offset_eV = first_eV if window.align is Align.EXCITATION_ENERGY else 0.0
        # Half a step of grace: "complete to 20 eV" covers a window that ends at 20.04.
        complete_eV = part.complete_to_eV + 0.5 * window.step_eV
        # How far the states are complete, on the window's axis: a grid alone may go on without them.
        end_eV = min(complete_eV, part.zero_eV + spectrum.last_eV) - offset_eV + 1e-6
        if end_eV < window.stop_eV:
            self.ends[part.name] = end_eV
            return None
        return window_row(spectrum, first_eV, window, where=where, zero_eV=part.zero_eV)

    def _of_continuum(self, name: str, continuum: Continuum, where: str) -> npt.NDArray[np.float32] | None:
        self.scale = self.scale or (name, continuum.lifetime_eV, continuum.scale)
        whose, lifetime_eV, scale = self.scale
        if (continuum.lifetime_eV, continuum.scale) != (lifetime_eV, scale):
            raise DatasetError(
                f"lifetime {continuum.lifetime_eV} eV, {continuum.scale}: differs from {whose} "
                f"({lifetime_eV} eV, {scale})",
                where=where,
            )
        values = curve_row(continuum, self.recipe, where)
        if values is None:
            self.unknown[name] = known_eV(continuum, self.recipe)
        return values


def _refuse_uncovered(ends: Mapping[str, float], total: int, recipe: Recipe) -> None:
    window, what = recipe.window, f"{recipe.rows.value}s"
    worst = min(ends, key=lambda name: ends[name])
    points = int((ends[worst] - window.start_eV) / window.step_eV) + 1
    raise DatasetError(
        f"{len(ends)} of {total} {what} are not complete to the window's end at {window.stop_eV:.1f} eV "
        f"({worst}: {ends[worst]:.1f} eV)",
        hint=f"window.points: {points} covers all; or drop_uncovered: true leaves them out",
    )
