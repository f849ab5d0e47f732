"""Recipes of PAW data sets for GPAW's generator, with and without electrons in the 1s shell.

They are made anew for each calculation, in the user's GPAW, by the generator of its published data sets and with their
options (``gpaw.atom.configurations``): scalar-relativistic, PBE. A hole takes electrons out of the 1s shell and leaves
everything else, so that all make the same errors. Each recipe says what the total energy of the atom must come to: a
generator that finds another makes another data set.

A recipe never changes under its set's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["ATOM_TOLERANCE_HA", "RECIPES", "Recipe"]

ATOM_TOLERANCE_HA = 1e-6  # GPAW 22.8 and 26.7 agree within 1e-10


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the data set of an element is made.

    Attributes
    ----------
    valence
        Its valence electrons.
    options
        Of the generator: frozen core, radii (bohr), filter.
    energies_Ha
        Total energy of the spherical, unpolarised atom by electrons taken out of its 1s shell; with 0 alone, the
        element is no absorber.
    """

    valence: int
    options: Mapping[str, Any]
    energies_Ha: Mapping[float, float] = field(default_factory=dict)

    @property
    def spectral(self) -> bool:
        """Whether it can have the hole."""
        return len(self.energies_Ha) > 1

    def to_dict(self) -> dict[str, Any]:
        """Return it as the identity has it."""
        energies = {f"{hole:g}": energy for hole, energy in self.energies_Ha.items()}
        return {"options": dict(self.options), "energies_Ha": energies}


def _helium(valence: int, *energies_Ha: float, **options: Any) -> Recipe:
    return Recipe(valence, {"core": "[He]", **options}, dict(zip((0.0, 0.5, 1.0), energies_Ha, strict=True)))


RECIPES: Mapping[str, Mapping[str, Recipe]] = MappingProxyType(
    {
        "gpaw-pbe-1": MappingProxyType(
            {
                "H": Recipe(1, {"rcut": 0.9}, {0.0: -0.459004944}),
                "B": _helium(3, -24.603290363, -21.046838981, -16.993446389, rcut=1.2),
                "C": _helium(4, -37.764639680, -32.461726831, -26.579176571, rcut=1.2),
                "N": _helium(
                    5,
                    -54.452264799,
                    -47.061608685,
                    -39.008041883,
                    rcut=[1.14, 1.0, 1.09],
                    vbar=["f", 1.12],
                    rcutcomp=1.09,
                    filter=[0.37, 1.8],
                ),
                "O": _helium(
                    6,
                    -74.999943531,
                    -65.178974630,
                    -54.611454468,
                    rcut=[1.3, 1.13, 1.17],
                    vbar=["f", 1.3],
                    rcutcomp=1.26,
                    filter=[0.43, 1.66],
                ),
                "F": _helium(7, -99.740635180, -87.145775012, -73.720462895, rcut=1.2),
            }
        )
    }
)
"""By set and element."""
