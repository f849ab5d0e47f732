"""Molecules added up as soon as their last site is in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from htxas.launch.agent.maker import TaskMaker
from htxas.store.records import MoleculeRecord
from htxas.store.store import Store

__all__ = ["assemble"]


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
    molecules: dict[str, list[MoleculeRecord]] = defaultdict(list)
    for molecule in candidates:
        if any(site.key in computed for site in molecule.sites):
            molecules[molecule.campaign].append(molecule)
    for campaign, its in molecules.items():
        grid = maker.settings(campaign)
        store.assemble_complete(its, sigma_eV=grid.sigma_eV, step_eV=grid.step_eV)
