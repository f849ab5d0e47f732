"""Species files of Elk: which states of an atom are core, where its local orbitals are, how large its sphere is.

Elk takes occupations of core states from the species file and keeps them through self-consistency; a file of the
absorber alone, with one electron less in its 1s shell and one more in its valence, is a full core hole in a neutral
cell. The core is that of the Dirac equation in both states.

For the spectrum the same 1s shell is described by a local orbital instead, so that the code gives momentum matrix
elements between it and all other levels. The other levels stay what they were.

A table never changes under its set's name: an identity says the set and the absorber's row, and relies on that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from htxas.domain.elements import atomic_number

__all__ = ["SPECIES", "Role", "Shell", "Species", "species_file"]

_LETTERS = "spdf"
_LINEARISATION_HA = 0.15  # Elk's own, on its scale: a little above the bottom of the conduction bands
_CONTINUUM_HA = 1.5  # of p and d levels 40 eV above the edge: without, O K of MgO there has a sixth less
_DEEP_HA = -1.2  # above, levels are bands, and Elk's search for a level fails now and then
# Elk looks for a level upwards and takes the middle of its narrow band; beside it the function of 1s is all tail.
_BELOW_HA = 0.3
_RADIAL_POINTS = 1000  # within a sphere; 400, as Elk comes with, are 0.04 eV off in excitation energies
_LEAST_RADIUS_A0 = 2e-6  # times Z^-1/2, as Elk's own species
_INFINITY_A0 = 50.0


class Role(Enum):
    """What an atom is in a calculation."""

    PLAIN = "plain"
    HOLE = "hole"  # one electron less in 1s, one more in the valence
    PROBE = "probe"  # 1s is a local orbital, for matrix elements; never self-consistent


@dataclass(frozen=True, slots=True)
class Shell:
    """A shell of the free atom.

    Attributes
    ----------
    name
        ``2p``.
    electrons
        In the neutral atom.
    core
        Whether it is solved as an atom's, with its own Dirac equation.
    orbital_Ha
        Of a valence shell: energy of its own local orbital; of a deep one the energy about which Elk looks for it.
        None: it needs none.
    """

    name: str
    electrons: float
    core: bool = False
    orbital_Ha: float | None = None

    @property
    def n(self) -> int:
        """Principal quantum number."""
        return int(self.name[0])

    @property
    def angular(self) -> int:
        """Angular momentum."""
        return _LETTERS.index(self.name[1])


@dataclass(frozen=True, slots=True)
class Species:
    """An element.

    Attributes
    ----------
    radius_a0
        Of its sphere where there is room, bohr.
    shells
        Of the neutral atom, from 1s on.
    spectral
        Whether Elk can hold 1s in a local orbital. It did up to chlorine; in potassium and calcium the function is
        steeper than its radial integration can follow, and the level was lost.
    """

    radius_a0: float
    shells: tuple[Shell, ...]
    spectral: bool = True

    @property
    def can_have_hole(self) -> bool:
        """Whether 1s is a core shell, and its spectrum can be computed."""
        return self.shells[0].core and self.spectral

    @property
    def core_electrons(self) -> float:
        """Electrons in core shells of the neutral atom."""
        return sum(s.electrons for s in self.shells if s.core)

    @property
    def valence_electrons(self) -> float:
        """Electrons in the other shells of the neutral atom."""
        return sum(s.electrons for s in self.shells if not s.core)

    def to_dict(self) -> dict[str, object]:
        """Return it as the identity has it."""
        return {
            "radius_a0": self.radius_a0,
            "shells": [[s.name, s.electrons, s.core, s.orbital_Ha] for s in self.shells],
        }


def _core(names: str) -> tuple[Shell, ...]:
    return tuple(Shell(n, 2.0 * (2 * _LETTERS.index(n[1]) + 1), core=True) for n in names.split())


def _element(
    radius_a0: float, core: str, *valence: tuple[str, float, float | None], spectral: bool = True
) -> Species:
    return Species(radius_a0, _core(core) + tuple(Shell(n, q, False, e) for n, q, e in valence), spectral)


SPECIES: Mapping[str, Mapping[str, Species]] = MappingProxyType(
    {
        "lapw-1": MappingProxyType(
            {
                "H": _element(0.9, "", ("1s", 1, None)),
                "Li": _element(1.8, "", ("1s", 2, -1.88), ("2s", 1, None)),
                "Be": _element(1.7, "1s", ("2s", 2, None)),
                "B": _element(1.45, "1s", ("2s", 2, -0.1), ("2p", 1, None)),
                "C": _element(1.4, "1s", ("2s", 2, -0.2), ("2p", 2, None)),
                "N": _element(1.4, "1s", ("2s", 2, -0.3), ("2p", 3, None)),
                "O": _element(1.7, "1s", ("2s", 2, -0.4), ("2p", 4, None)),
                "F": _element(1.7, "1s", ("2s", 2, -0.7), ("2p", 5, None)),
                "Na": _element(2.1, "1s", ("2s", 2, -2.07), ("2p", 6, -1.06), ("3s", 1, None)),
                "Mg": _element(2.1, "1s", ("2s", 2, -2.91), ("2p", 6, -1.71), ("3s", 2, None)),
                "Al": _element(2.0, "1s 2s", ("2p", 6, -2.56), ("3s", 2, None), ("3p", 1, None)),
                "Si": _element(2.0, "1s 2s 2p", ("3s", 2, None), ("3p", 2, None)),
                "P": _element(2.0, "1s 2s 2p", ("3s", 2, -0.2), ("3p", 3, None)),
                "S": _element(2.0, "1s 2s 2p", ("3s", 2, -0.3), ("3p", 4, None)),
                "Cl": _element(2.1, "1s 2s 2p", ("3s", 2, -0.4), ("3p", 5, None)),
                "K": _element(
                    2.3, "1s 2s 2p", ("3s", 2, -1.29), ("3p", 6, -0.5), ("4s", 1, None), spectral=False
                ),
                "Ca": _element(
                    2.3, "1s 2s 2p", ("3s", 2, -1.72), ("3p", 6, -0.8), ("4s", 2, None), spectral=False
                ),
            }
        )
    }
)
"""By set and element."""


def species_file(
    element: str, species: Species, role: Role, *, radius_a0: float, level_Ha: float | None = None
) -> str:
    """Return a species file.

    Parameters
    ----------
    element, species, role
        What it describes.
    radius_a0
        Of the sphere, bohr.
    level_Ha
        Of a probe: the 1s level on Elk's scale.

    Raises
    ------
    ValueError
        A hole in an element that cannot have it.
    """
    if role is not Role.PLAIN and not species.can_have_hole:
        raise ValueError(f"{element} cannot have the hole")
    z = atomic_number(element)
    states = _states(species, role)
    orbitals = [
        (angular, [(_LINEARISATION_HA, 0, False), (_LINEARISATION_HA, 1, False)]) for angular in (0, 1)
    ]
    orbitals += [(a, [(_LINEARISATION_HA, 0, False), (_CONTINUUM_HA, 0, False)]) for a in (1, 2)]
    for shell in species.shells:
        if shell.orbital_Ha is not None:
            deep = shell.orbital_Ha < _DEEP_HA
            found = [(_LINEARISATION_HA, 0, False), (shell.orbital_Ha, 0, deep)]
            orbitals.append((shell.angular, found))
    if role is Role.PROBE:
        assert level_Ha is not None
        orbitals.append((0, [(_LINEARISATION_HA, 0, False), (level_Ha - _BELOW_HA, 0, True)]))
    lines = [
        f" '{element}' : symbol",
        f" '{element} {role.value}' : name",
        f" {-z:.4f} : charge of the nucleus",
        " 1.0 : mass, which nothing here needs",
        f" {_LEAST_RADIUS_A0 / z**0.5:.6E} {radius_a0:.6f} {_INFINITY_A0:.4f} {_RADIAL_POINTS} : least radius, "
        "sphere, infinity, points",
        f" {len(states)} : states",
        *(f" {n} {a} {k} {q:.6f} {_flag(core)}" for n, a, k, q, core in states),
        " 1 : order of plane waves",
        f" {_LINEARISATION_HA:.4f} 0 F",
        " 0 : exceptions",
        f" {len(orbitals)} : local orbitals",
    ]
    for angular, functions in orbitals:
        lines.append(f" {angular} {len(functions)}")
        lines += [f" {energy:.6f} {derivative} {_flag(search)}" for energy, derivative, search in functions]
    return "\n".join(lines) + "\n"


def _flag(value: bool) -> str:
    return "T" if value else "F"


def _states(species: Species, role: Role) -> list[tuple[int, int, int, float, bool]]:
    """Return n, l, kappa, electrons and whether it is core, of each relativistic subshell."""
    shells = list(species.shells)
    if role is Role.PROBE:
        shells[0] = Shell("1s", 2.0)
    if role is Role.HOLE:
        shells[0] = Shell("1s", 1.0, core=True)
        outer = shells[-1]
        # of the starting density alone: where the electron is, self-consistency finds
        room = 2.0 * (2 * outer.angular + 1) - outer.electrons
        if room >= 1:
            shells[-1] = Shell(outer.name, outer.electrons + 1)
        else:
            shells.append(Shell(f"{outer.n}{_LETTERS[outer.angular + 1]}", 1.0))
    states = []
    for shell in shells:
        angular = shell.angular
        capacity = 2.0 * (2 * angular + 1)
        for kappa in (angular, angular + 1):
            if kappa:
                share = 2 * kappa / capacity
                states.append((shell.n, angular, kappa, shell.electrons * share, shell.core))
    return states
