"""Continuous spectra of a campaign, site by site."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from htxas.domain.calculation import Kind, State
from htxas.domain.result import CurveResult
from htxas.errors import DatasetError
from htxas.learn.data.ground import read_ground
from htxas.learn.data.records import Continuum, Method, SiteRecord, SpectrumRecord

if TYPE_CHECKING:
    from htxas.store.records import MoleculeRecord
    from htxas.store.store import Store

__all__ = ["curve_record", "curve_records", "has_curves"]


def has_curves(store: Store, campaign: str) -> bool:
    """Return whether what is done of a campaign are continuous spectra: a campaign has one engine."""
    done = store.find(campaign=campaign, state=State.DONE, kind=Kind.SITE, limit=1)
    return any("edge_eV" in record.scalars for record in done)


def curve_records(store: Store, campaign: str, *, pdos: bool) -> Iterator[SpectrumRecord]:
    """Yield the molecules or crystals of a campaign of continuous spectra, by name, with the sites that are done.

    A site by itself needs no other, so those of an incomplete molecule are used too; the others are its ``missing``.
    Ground states come with their projected levels if ``pdos``.

    Raises
    ------
    DatasetError
        If sites of one molecule were computed with different parameters.
    """
    for molecule in store.molecules(campaign):
        yield curve_record(store, molecule, pdos=pdos)


def curve_record(store: Store, molecule: MoleculeRecord, *, pdos: bool = False) -> SpectrumRecord:
    """Return the record of one molecule or crystal; see :func:`curve_records`."""
    where = f"molecule {molecule.name}"
    states = store.states([site.key for site in molecule.sites])
    done = {key for key, state in states.items() if state is State.DONE}
    structure = store.structure(molecule.structure_key).structure
    place = {atom: i for i, atom in enumerate(molecule.file_order)}
    known = store.calculations(site.key for site in molecule.sites)
    methods = {Method(c.engine, c.element or "", c.edge or "", c.parameters_key) for c in known.values()}
    if len(methods) != 1:
        raise DatasetError("its sites differ in edge, engine or parameters", where=where)
    sites = []
    for site in molecule.sites:
        if site.key not in done:
            continue
        result = store.site_result(site.key)
        if not isinstance(result, CurveResult):
            raise DatasetError(
                "has transitions, other sites have continuous spectra", where=f"{where}/{site.file_atom}"
            )
        sites.append(
            SiteRecord(
                name=str(site.file_atom),
                key=site.key,
                multiplicity=site.multiplicity,
                excitation_energy_eV=None,
                complete_to_eV=float(result.curve.energies_eV[-1]),
                atoms=tuple(sorted(place[a] for a in site.equivalent_file_atoms)),
                continuum=Continuum(result.curve, result.edge_eV, result.lifetime_eV, result.scale),
            )
        )
    ground = read_ground(store, molecule.ground_key, pdos=pdos)
    return SpectrumRecord(
        name=molecule.name,
        key=structure.key,
        smiles=molecule.smiles,
        composition=structure.composition,
        structure=structure,
        spectrum=None,
        excitation_energy_eV=None,
        complete_to_eV=min((s.complete_to_eV for s in sites), default=math.inf),
        method=next(iter(methods)),
        ground=ground.scalars,
        sites=tuple(sites),
        pdos=ground.pdos,
        frontier_eV=ground.frontier_eV,
        missing=tuple(str(s.file_atom) for s in molecule.sites if s.key not in done),
    )
