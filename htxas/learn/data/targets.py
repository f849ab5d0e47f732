"""What can be learned: target names, units, and where each number comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from htxas.errors import DatasetError
from htxas.learn.data.chemistry import molecular_weight, sp3_ratio
from htxas.learn.data.qm9 import QM9_COLUMNS, QM9_PREFIX
from htxas.learn.data.records import SiteRecord, SpectrumRecord
from htxas.learn.data.site_targets import SITE_TARGETS, site_value

__all__ = [
    "OF_SITES",
    "ONLY_OF_SITES",
    "RATIOS",
    "TARGETS",
    "Target",
    "describe",
    "in_house",
    "ratios",
    "target_value",
]

RATIOS: tuple[tuple[str, str], ...] = (("N", "C"), ("O", "C"), ("F", "C"))
"""The composition inputs of Model-B, in column order."""


@dataclass(frozen=True, slots=True)
class Target:
    """A number per molecule, or per site.

    Attributes
    ----------
    unit
        Its unit, ``1`` for a ratio.
    meaning
        One line for tables and cards.
    """

    unit: str
    meaning: str


TARGETS: dict[str, Target] = {
    "gap": Target("eV", "LUMO minus HOMO eigenvalue of the ground state"),
    "homo": Target("eV", "HOMO eigenvalue relative to vacuum"),
    "lumo": Target("eV", "LUMO eigenvalue relative to vacuum"),
    "dipole": Target("D", "norm of the dipole moment"),
    "excitation_energy": Target(
        "eV", "lowest excitation energy among the absorbing sites; of a site: its own"
    ),
    "molecular_weight": Target("Da", "standard atomic weights added up"),
    "sp3_ratio": Target(
        "1", "sp3 carbons / carbons: from SMILES, else four-coordinated carbons of the structure"
    ),
    "ratio_N_C": Target("1", "nitrogen atoms / carbon atoms"),
    "ratio_O_C": Target("1", "oxygen atoms / carbon atoms"),
    "ratio_F_C": Target("1", "fluorine atoms / carbon atoms"),
    "edge_energy": Target(
        "eV", "photon energy of the threshold of a site's continuous spectrum, as computed"
    ),
    **{name: Target(unit, f"of a site: {meaning}") for name, (unit, meaning) in SITE_TARGETS.items()},
    **{QM9_PREFIX + name: Target(c.unit, f"QM9: {c.meaning}") for name, c in QM9_COLUMNS.items()},
}
"""Every target by name. Those called ``qm9_*`` are joined from a file at run time."""

ONLY_OF_SITES = ("edge_energy", *SITE_TARGETS)
"""Targets that a molecule does not have."""

OF_SITES = frozenset({"excitation_energy", *ONLY_OF_SITES})
"""Targets that a site has of its own; all others are its molecule's."""

_GROUND = {"gap": "gap_eV", "homo": "homo_eV", "lumo": "lumo_eV", "dipole": "dipole_D"}


def describe(name: str) -> Target:
    """Return the target called ``name``.

    Raises
    ------
    DatasetError
        With the nearest name.
    """
    if name not in TARGETS:
        near = get_close_matches(name, TARGETS, n=1)
        hint = (
            f"did you mean {near[0]!r}?"
            if near
            else "one of " + " ".join(t for t in TARGETS if t in in_house())
        )
        raise DatasetError(f"no target is called {name!r}", hint=hint)
    return TARGETS[name]


def in_house() -> tuple[str, ...]:
    """Return the targets that need no other file."""
    return tuple(name for name in TARGETS if not name.startswith(QM9_PREFIX))


def ratios(composition: Mapping[str, int] | None, where: str | None = None) -> list[float]:
    """Return N/C, O/C, F/C.

    Raises
    ------
    DatasetError
        Without carbon, or of a molecule of which the composition is not known.
    """
    if composition is None:
        raise _unknown(where)
    if not composition.get("C"):
        raise DatasetError("a ratio to carbon needs carbon atoms", where=where)
    return [composition.get(a, 0) / composition[b] for a, b in RATIOS]


def target_value(name: str, record: SpectrumRecord, site: SiteRecord | None = None) -> tuple[float, str]:
    """Return the in-house target ``name`` of a molecule, or of a site of it, and how it was obtained, in a word.

    Excitation energy and threshold are a site's own, and so is what :mod:`htxas.learn.data.site_targets` says of its
    surroundings; all others are the molecule's.

    Raises
    ------
    DatasetError
        If the record lacks what it needs.
    """
    where = f"molecule {record.name}"
    if name in _GROUND:
        if _GROUND[name] not in record.ground:
            raise DatasetError(f"has no {_GROUND[name]} of a ground state", where=where)
        return record.ground[_GROUND[name]], "ground state"
    if name in SITE_TARGETS:
        if site is None:
            raise DatasetError(f"{name} is a number of a site", where=where, hint="rows: site")
        where = f"site {record.name}/{site.name}"
        if record.structure is None or not site.atoms:
            raise DatasetError(f"{name} needs a structure", where=where)
        return site_value(name, record.structure, site.atoms[0], where)
    if name == "edge_energy":
        if site is None or site.continuum is None:
            raise DatasetError("has no threshold: it is of sites with a continuous spectrum", where=where)
        return site.continuum.edge_eV, "spectrum"
    if name == "excitation_energy":
        energy_eV = (site or record).excitation_energy_eV
        if energy_eV is None:
            raise DatasetError(
                "a continuous spectrum has no excitation energy", where=where, hint="target edge_energy"
            )
        return energy_eV, "spectrum"
    if record.composition is None:
        raise _unknown(where)
    if name == "molecular_weight":
        return molecular_weight(record.composition), "composition"
    if name == "sp3_ratio":
        return sp3_ratio(record.smiles, record.composition, record.structure, where)
    for (a, b), value in zip(RATIOS, ratios(record.composition, where), strict=True):
        if name == f"ratio_{a}_{b}":
            return value, "composition"
    raise DatasetError(f"{name!r} is not computed in-house", where=where)


def _unknown(where: str | None) -> DatasetError:
    return DatasetError(
        "the source does not tell its composition",
        where=where,
        hint="name a file of gdb_id, smiles in the recipe: qm9: {molecules: FILE}",
    )
