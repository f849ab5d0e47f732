"""Counting noise on spectra, as a detector makes it, and the smoothing that is applied against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from htxas.errors import DatasetError

__all__ = ["Noise"]


@dataclass(frozen=True, slots=True)
class Noise:
    """What is done to a spectrum before a net sees it.

    Attributes
    ----------
    counts
        Poisson dose: expected counts at the spectrum's maximum. None: no noise, smoothing only.
    counts_to
        Doses are drawn log-uniformly from ``counts`` to here, one per spectrum; None: all have ``counts``.
    smoothing_eV
        Width of a Savitzky-Golay filter, applied after the noise; None: not smoothed.
    """

    counts: float | None
    counts_to: float | None = None
    smoothing_eV: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is not a dose.

        Raises
        ------
        DatasetError
            A dose or a width that is not positive, a range upside down, or nothing at all.
        """
        if self.counts is None and (self.smoothing_eV is None or self.counts_to is not None):
            raise DatasetError("noise without counts: give counts, or a smoothing alone")
        for name, value in asdict(self).items():
            if value is not None and not 0 < value < float("inf"):
                raise DatasetError(f"noise.{name} is {value}; a positive number is needed")
        if self.counts is not None and self.counts_to is not None and self.counts_to <= self.counts:
            raise DatasetError(f"noise.counts_to {self.counts_to} is not above noise.counts {self.counts}")

    @property
    def label(self) -> str:
        """Short name for tables: ``100 counts, 0.3 eV``."""
        dose = "" if self.counts is None else f"{self.counts:g}"
        dose += "" if self.counts_to is None else f"-{self.counts_to:g}"
        width = "" if self.smoothing_eV is None else f"{self.smoothing_eV:g} eV"
        return ", ".join(part for part in (f"{dose} counts" if dose else "", width) if part)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Noise:
        """Rebuild from :meth:`to_dict`."""
        return cls(**data)
