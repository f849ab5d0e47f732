"""Whether what CASTEP did is what was asked for, and its runs belong together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from htxas.engines.base import Job
from htxas.engines.castep.bands import OutputError
from htxas.engines.castep.binary import CoreElements
from htxas.engines.castep.log import CastepLog
from htxas.engines.castep.parameters import CastepParameters, State
from htxas.engines.castep.write import Layout, extra_bands
from htxas.errors import Cause, EngineFailure

__all__ = [
    "refuse_narrow",
    "refuse_other_atoms",
    "refuse_other_ground",
    "refuse_other_hole",
    "refuse_other_settings",
]

_SAME_GROUND_EV = 0.005
_SAME_ATOM_EV = 0.005
_SAME_CUTOFF_EV = 1e-3
_COVERED = 0.9  # of the window that was asked for


def refuse_other_settings(log: CastepLog, ground: State) -> None:
    """Refuse a run that CASTEP says it did with another cutoff, or in a charged cell.

    Raises
    ------
    OutputError
        It did.
    """
    if log.cutoff_eV is None or abs(log.cutoff_eV - ground.cutoff_eV) > _SAME_CUTOFF_EV:
        raise OutputError(f"the cutoff was {log.cutoff_eV} eV, not {ground.cutoff_eV:g}")
    if log.charge != 0:
        raise OutputError(f"the cell had the charge {log.charge}")


def refuse_other_hole(ground: CastepLog, log: CastepLog, label: str) -> None:
    """Refuse a run without the hole, with another number of electrons than it leaves, or with other pseudopotentials.

    Raises
    ------
    OutputError
        It is one.
    """
    made_of = log.configurations.get(label, "")
    if made_of.split()[:1] != ["1s1"]:
        raise OutputError(
            f"the pseudopotential of {label} was made of {made_of or 'nothing'}, without a hole in 1s"
        )
    _refuse_other_potentials(ground, log)
    with_hole, without = log.electrons, ground.electrons
    if with_hole is None or without is None or abs(with_hole - without - 1) > 1e-3:
        raise OutputError(
            f"there are {with_hole} electrons with the hole and {without} without: not one more"
        )


def _refuse_other_potentials(ground: CastepLog, log: CastepLog) -> None:
    """Refuse total energies that rest on different pseudopotentials: of libraries or versions that are not the same."""
    for label in ground.pseudopotentials.keys() & log.pseudopotentials.keys():
        if ground.pseudopotentials[label] != log.pseudopotentials[label]:
            raise OutputError(f"the pseudopotential of {label} is another one with the hole than without")
        for energies in ((ground.all_electron_eV, log.all_electron_eV), (ground.pseudo_eV, log.pseudo_eV)):
            without, with_hole = (e.get(label) for e in energies)
            if without is not None and with_hole is not None and abs(without - with_hole) > _SAME_ATOM_EV:
                raise OutputError(
                    f"the isolated atom {label} has {with_hole} eV with the hole and {without} eV without: were they "
                    "the same CASTEP?"
                )


def refuse_other_atoms(elements: CoreElements, indices: Mapping[tuple[int, int], int]) -> None:
    """Refuse matrix elements whose atoms are not counted as the log counts them; hydrogen has no core.

    Raises
    ------
    OutputError
        They are not.
    """
    there = {(int(s), int(r)) for s, r in zip(elements.species, elements.rank, strict=True)}
    species = {s for s, _ in there}
    if there != {place for place in indices if place[0] in species}:
        raise OutputError("the matrix elements are of other atoms than those of the log")


def refuse_narrow(parameters: CastepParameters, layout: Layout, window_eV: float, directory: Path) -> None:
    """Refuse levels that end well below what was asked for, and say how many would do.

    Raises
    ------
    EngineFailure
        GATE_REJECTED: a retry would end there again.
    """
    hole = parameters.hole
    if hole.extra_bands is not None or window_eV >= _COVERED * hole.window_eV:
        return
    asked = extra_bands(layout.cell, hole.window_eV)
    # free electrons' levels grow with the power 3/2 from the bottom of the band, with less from the gap
    enough = math.ceil(asked * (hole.window_eV / max(window_eV, 1.0)) ** 1.5)
    raise EngineFailure(
        Cause.GATE_REJECTED,
        f"{asked} empty bands reach {window_eV:.1f} eV above the first final state; window_eV is {hole.window_eV:g}",
        evidence={"window_eV": window_eV, "extra_bands": asked},
        where=str(directory),
        hint=f"say extra_bands: {enough}",
    )


def refuse_other_ground(job: Job, found_eV: float, directory: Path) -> None:
    """Refuse a ground state, computed here again, whose energy (eV, of one structure) is not the stored one.

    Raises
    ------
    EngineFailure
        GATE_REJECTED.
    """
    stored = job.ground_energy_eV
    if stored is not None and abs(found_eV - stored) > _SAME_GROUND_EV:
        raise EngineFailure(
            Cause.GATE_REJECTED,
            f"the ground state here is {(found_eV - stored) * 1000:+.1f} meV from the stored one: "
            "they are not the same state",
            evidence={"ground_eV": found_eV, "stored_eV": stored},
            where=str(directory),
        )
