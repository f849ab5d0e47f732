"""htxas: core-hole spectra by the hundred thousand."""

from __future__ import annotations

__version__ = "0.1.0"
