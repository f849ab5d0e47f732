"""Molecular spectra: site spectra on absolute energies, added on one grid, weighted by multiplicity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from pymongo import UpdateOne

from htxas.domain.calculation import State
from htxas.domain.identity import content_key
from htxas.domain.spectrum import Spectrum, broaden, combine, smear
from htxas.errors import NotFound, UserError
from htxas.store.connection import Connected, Document, chunks
from htxas.store.documents import (
    curve_from,
    molecule_from,
    spectrum_document,
    spectrum_from,
    sticks_from,
)
from htxas.store.records import MolecularSpectrum, MoleculeRecord, SiteRef

__all__ = ["Assembly"]

_MOLECULES_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class _Grid:
    """Broadening and step in eV."""

    sigma_eV: float
    step_eV: float


class Assembly(Connected):
    """The part of the store that adds sites up."""

    def assemble(
        self, molecule: MoleculeRecord, *, sigma_eV: float | None = None, step_eV: float | None = None
    ) -> MolecularSpectrum:
        """Return the spectrum of a molecule from those of its sites that are done; store it if all are.

        Parameters
        ----------
        molecule
            As the store gave it.
        sigma_eV, step_eV
            Broadening and step; both None for those of the molecule's campaign.

        Raises
        ------
        NotFound
            If no site is done.
        UserError
            If the stored grids differ in broadening or step: nothing is resampled silently. If the spectra differ in
            quantity or have no energy in common.
        """
        wanted = self._wanted(molecule.campaign, sigma_eV, step_eV)
        sites = self._grids([s.key for s in molecule.sites])
        missing = tuple(s.key for s in molecule.sites if s.key not in sites)
        done = [s for s in molecule.sites if s.key in sites]
        if not done:
            raise NotFound("no site of this molecule is done yet", where=molecule.name, hint="htxas status")
        grid = wanted or _common(molecule, [sites[s.key] for s in done])
        key = _key(molecule, grid)
        if not missing and (stored := self._stored([key])):
            return _spectrum_from(stored[key], molecule)
        documents = self._persist(
            lambda: {d["_id"]: d for d in self._db["spectra"].find({"_id": {"$in": [s.key for s in done]}})}
        )
        spectrum = _combined(molecule.name, done, documents, grid)
        if not missing:
            document = _document(molecule, spectrum)
            self._keep({key: document})
            # As stored, so that the first reader sees the very digits that all later ones see.
            return _spectrum_from({"_id": key, **document}, molecule)
        return MolecularSpectrum(
            key=key,
            campaign=molecule.campaign,
            name=molecule.name,
            structure_key=molecule.structure_key,
            ground_key=molecule.ground_key,
            spectrum=spectrum,
            site_keys=tuple(s.key for s in molecule.sites),
            multiplicities=tuple(s.multiplicity for s in molecule.sites),
            complete=False,
            missing=missing,
        )

    def assemble_complete(
        self, molecules: Iterable[MoleculeRecord], *, sigma_eV: float, step_eV: float
    ) -> int:
        """Store the spectra of those among ``molecules`` whose sites are all done; return how many are new.

        Four commands for many molecules, where :meth:`assemble` takes as many for one. Those whose sites cannot be
        added are left to :meth:`assemble`, which tells why.
        """
        grid, count = _Grid(sigma_eV, step_eV), 0
        for chunk in chunks(molecules, _MOLECULES_AT_ONCE // 4):  # all their spectra are in memory at once
            query = {"_id": {"$in": [s.key for m in chunk for s in m.sites]}, "state": State.DONE.value}
            done = {d["_id"] for d in self._persist(self._all, "calculations", query, {"_id": 1})}
            complete = {_key(m, grid): m for m in chunk if m.sites and all(s.key in done for s in m.sites)}
            known = {"_id": {"$in": list(complete)}}
            for d in self._persist(self._all, "molecular_spectra", known, {"_id": 1}):
                del complete[d["_id"]]
            if not complete:
                continue
            keys = {s.key for m in complete.values() for s in m.sites}
            found = self._persist(self._all, "spectra", {"_id": {"$in": list(keys)}})
            documents = {d["_id"]: d for d in found}
            spectra = {}
            for key, m in complete.items():
                if all(s.key in documents for s in m.sites):  # as in `assemble`, what is lost is missing
                    with suppress(UserError):
                        spectra[key] = _document(m, _combined(m.name, m.sites, documents, grid))
            if spectra:
                self._keep(spectra)
            count += len(spectra)
        return count

    def molecular_spectra(
        self, campaign: str, *, sigma_eV: float | None = None, step_eV: float | None = None
    ) -> Iterator[MolecularSpectrum]:
        """Yield the spectra of the molecules of ``campaign`` whose sites are all done, by name.

        Those not assembled before are assembled and stored on the way. Raises like :meth:`assemble`.
        """
        wanted = self._wanted(campaign, sigma_eV, step_eV)
        cursor = self._cursor("molecules", {"campaign": campaign}, sort=[("name", 1)])
        with closing(cursor):
            for chunk in chunks(map(molecule_from, cursor), _MOLECULES_AT_ONCE):
                sites = self._grids([s.key for m in chunk for s in m.sites])
                complete = [m for m in chunk if m.sites and all(s.key in sites for s in m.sites)]
                keys = {
                    m.name: _key(m, wanted or _common(m, [sites[s.key] for s in m.sites])) for m in complete
                }
                stored = self._stored(list(keys.values()))
                for molecule in complete:
                    found = stored.get(keys[molecule.name])
                    if found is None:
                        yield self.assemble(molecule, sigma_eV=sigma_eV, step_eV=step_eV)
                    else:
                        yield _spectrum_from(found, molecule)

    def _wanted(self, campaign: str, sigma_eV: float | None, step_eV: float | None) -> _Grid | None:
        """Return the grid asked for, else the campaign's own: sites it shares may be stored with another's."""
        if (sigma_eV is None) != (step_eV is None):
            raise UserError("give both broadening and step, or neither")
        if sigma_eV is not None and step_eV is not None:
            return _Grid(sigma_eV, step_eV)
        found = self._persist(
            lambda: self._db["campaigns"].find_one({"_id": campaign}, {"document.spectrum": 1})
        )
        grid = (found or {}).get("document", {}).get("spectrum")
        return None if grid is None else _Grid(grid["sigma_eV"], grid["step_eV"])

    def _grids(self, keys: list[str]) -> dict[str, _Grid]:
        """Return broadening and step of those sites among ``keys`` that are done."""
        found: dict[str, _Grid] = {}
        fields = {"grid.sigma_eV": 1, "grid.step_eV": 1}
        for chunk in chunks(keys):
            query = {"_id": {"$in": chunk}, "state": State.DONE.value}
            done = [d["_id"] for d in self._cursor("calculations", query, projection={"_id": 1})]
            for d in self._cursor("spectra", {"_id": {"$in": done}}, projection=fields):
                found[d["_id"]] = _Grid(d["grid"]["sigma_eV"], d["grid"]["step_eV"])
        return found

    def _stored(self, keys: list[str]) -> dict[str, Document]:
        return {d["_id"]: d for d in self._cursor("molecular_spectra", {"_id": {"$in": keys}})}

    def _keep(self, documents: Mapping[str, Document]) -> None:
        new = [UpdateOne({"_id": key}, {"$setOnInsert": d}, upsert=True) for key, d in documents.items()]
        self._persist(lambda: self._db["molecular_spectra"].bulk_write(new, ordered=False))


def _document(molecule: MoleculeRecord, spectrum: Spectrum) -> Document:
    return {
        "structure_key": molecule.structure_key,
        "ground_key": molecule.ground_key,
        "site_keys": [s.key for s in molecule.sites],
        "multiplicities": [s.multiplicity for s in molecule.sites],
        "grid": spectrum_document(spectrum),
    }


def _combined(
    name: str, sites: Sequence[SiteRef], documents: Mapping[str, Document], grid: _Grid
) -> Spectrum:
    try:
        return combine([_on(documents[s.key], grid) for s in sites], [float(s.multiplicity) for s in sites])
    except ValueError as error:
        raise UserError(
            f"the spectra of its sites cannot be added: {error}",
            where=name,
            hint="htxas site show KEY shows each",
        ) from error


def _key(molecule: MoleculeRecord, grid: _Grid) -> str:
    return content_key(
        {
            "sites": [[s.key, s.multiplicity] for s in molecule.sites],
            "sigma_eV": grid.sigma_eV,
            "step_eV": grid.step_eV,
        }
    )


def _common(molecule: MoleculeRecord, grids: list[_Grid]) -> _Grid:
    if len(set(grids)) != 1:
        raise UserError(
            "the sites of this molecule were stored with different broadening or step",
            where=molecule.name,
            hint="say which sigma_eV and step_eV to use: they are then broadened anew from what was computed",
        )
    return grids[0]


def _on(document: Document, grid: _Grid) -> Spectrum:
    """Return a site's spectrum: the stored grid if it is the one wanted, else from the sticks or the curve."""
    stored = document["grid"]
    if _Grid(stored["sigma_eV"], stored["step_eV"]) == grid:
        return spectrum_from(stored)
    if "curve" in document:
        return smear(curve_from(document), sigma_eV=grid.sigma_eV, step_eV=grid.step_eV)
    return broaden(sticks_from(document), sigma_eV=grid.sigma_eV, step_eV=grid.step_eV)


def _spectrum_from(document: Document, molecule: MoleculeRecord) -> MolecularSpectrum:
    return MolecularSpectrum(
        key=document["_id"],
        campaign=molecule.campaign,
        name=molecule.name,
        structure_key=molecule.structure_key,
        ground_key=molecule.ground_key,
        spectrum=spectrum_from(document["grid"]),
        site_keys=tuple(document["site_keys"]),
        multiplicities=tuple(document["multiplicities"]),
        complete=True,
        missing=(),
    )
