"""Molecules added up as soon as their last site is in."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from htxas.domain.calculation import State
from htxas.errors import DatabaseUnavailable, UserError
from htxas.launch.maker import TaskMaker
from htxas.store.store import Store

__all__ = ["assemble"]

_log = logging.getLogger(__name__)


def assemble(store: Store, maker: TaskMaker, computed: Mapping[str, str]) -> None:
    """Add up the molecules that are complete now, given sites just computed (key -> structure).

    Raises
    ------
    DatabaseUnavailable
        Do it again; whoever asks for a molecule adds it up, too.
    """
    if not computed:
        return
    candidates = store.molecules(structure_key=sorted(set(computed.values())))
    # Another campaign may compute the same molecules in another way: not its turn.
    molecules = [m for m in candidates if any(site.key in computed for site in m.sites)]
    states = store.states({site.key for m in molecules for site in m.sites})
    for molecule in molecules:
        if all(states.get(site.key) is State.DONE for site in molecule.sites):
            grid = maker.settings(molecule.campaign)
            try:
                store.assemble(molecule, sigma_eV=grid.sigma_eV, step_eV=grid.step_eV)
            except DatabaseUnavailable:
                raise
            except UserError as error:  # told to whoever asks for the molecule
                _log.warning("%s of %s is not assembled: %s", molecule.name, molecule.campaign, error)
