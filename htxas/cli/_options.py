"""Options that several commands share."""

from __future__ import annotations

import click

__all__ = ["SIGMA"]

SIGMA = click.option(
    "--sigma",
    "sigma_eV",
    default=0.5,
    show_default=True,
    metavar="EV",
    type=click.FloatRange(0.01, 10.0),
    help="Gaussian broadening.",
)
