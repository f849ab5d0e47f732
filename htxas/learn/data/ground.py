"""What the database knows of a molecule's ground state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from htxas.domain.dos import Pdos
from htxas.errors import NotFound

if TYPE_CHECKING:
    from htxas.store.store import Store

__all__ = ["Ground", "read_ground"]

_SCALARS = ("gap_eV", "homo_eV", "lumo_eV", "dipole_D", "total_energy_eV")


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """The part of a record that tells of the ground state; empty where there is none."""

    scalars: Mapping[str, float] = field(default_factory=dict)
    pdos: Pdos | None = None
    frontier_eV: tuple[float, float] | None = None


def read_ground(store: Store, key: str | None, *, pdos: bool) -> Ground:
    """Return what is stored of a ground state, with its projected levels if ``pdos``."""
    if key is None:
        return Ground()
    scalars = store.calculation(key).scalars
    known = {name: scalars[name] for name in _SCALARS if name in scalars}
    if not pdos:
        return Ground(known)
    try:
        result = store.ground_result(key)
    except NotFound:
        return Ground(known)
    return Ground(known, result.pdos, (result.homo_eV, result.lumo_eV))
