"""Files of the published layout as a source: the published database itself, or an export of ours like it.

They hold spectra and little else. Intensities are in A^2/eV (:attr:`Quantity.DSF`) and their method is called
``published``: a dataset of them never mixes with ours. Molecules known by QM9's number get their SMILES, and from it
their composition, from a file of the user's.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from htxas.datafile import Content, PublishedFiles, PublishedMolecule, PublishedSite, published_paths
from htxas.domain.identity import content_key
from htxas.domain.spectrum import Quantity
from htxas.errors import DatasetError
from htxas.learn.data.chemistry import canonical_smiles, composition_of
from htxas.learn.data.qm9 import gdb_id, read_smiles
from htxas.learn.data.recipe import Align, Recipe, Rows
from htxas.learn.data.records import LeftOut, Method, SiteRecord, SpectrumRecord

__all__ = ["PublishedSource"]

_TOLD = "or the window the file tells"
_GRID = "the end of the grid less its margin and 1 eV of rounding"
_COMPLETE_TO = {
    Content.STATES: f"each site's last state, {_TOLD}",
    Content.SITES: f"each site: {_GRID}, {_TOLD}",
    Content.MOLECULES: f"the first of its sites to end: {_GRID}, {_TOLD}; where no file tells of sites, {_GRID} of "
    "the molecule",
}
_PROCESS = ("created_by", "campaign")  # attributes that do not say how a spectrum was computed


@dataclass(frozen=True, slots=True)
class PublishedSource:
    """A folder with any of the three files, or one of them; what is read of it.

    Attributes
    ----------
    path
        Folder or file.
    content
        What rows are made of.
    beside
        What else is read, or None.
    molecules
        CSV file of ``gdb_id, smiles``, or None.
    """

    path: Path
    content: Content
    beside: Content | None = None
    molecules: Path | None = None

    @classmethod
    def of(cls, path: Path, recipe: Recipe, molecules: Path | None = None) -> PublishedSource:
        """Choose what a recipe needs.

        For rows of molecules their spectra, for rows of sites theirs, as long as the recipe's broadening is theirs;
        otherwise the states, checked against the spectra of sites.

        Raises
        ------
        DatasetError
            If it is not there.
        """
        with PublishedFiles(path) as files:
            content = _content(files, recipe)
            return cls(path, content, files.beside(content), molecules)

    @property
    def query(self) -> Mapping[str, Any]:
        """Checksums of the files that are read: their names and places do not matter."""
        paths = published_paths(self.path)
        read = [c for c in (self.content, self.beside) if c is not None]
        return {
            "published_sha256": {c.name.lower(): _sha256(paths[c]) for c in read},
            "molecules_sha256": None if self.molecules is None else _sha256(self.molecules),
            "states_complete_to": _COMPLETE_TO[self.content],
        }

    @property
    def label(self) -> str:
        """Name for people."""
        return f"published layout, {self.path.name}"

    def records(self, recipe: Recipe) -> Iterator[SpectrumRecord | LeftOut]:
        """Yield every complete molecule; those whose number is not in the file of molecules are left out."""
        known = None if self.molecules is None else read_smiles(self.molecules)
        with PublishedFiles(self.path) as files:
            method = Method("published", "C", "K", _parameters_key(files))
            for molecule in files.molecules(self.content):
                yield _record(molecule, known, method)


def _content(files: PublishedFiles, recipe: Recipe) -> Content:
    """Return which file a recipe needs."""
    there, where = files.paths, str(files.path)
    spectra = Content.SITES if recipe.rows is Rows.SITE else Content.MOLECULES
    if spectra in there and recipe.sigma_eV in (None, files.sigma_eV(spectra)):
        if spectra is Content.MOLECULES and len(there) == 1 and _needs_energies(recipe):
            raise DatasetError(
                "spectra of molecules alone do not tell excitation energies",
                where=where,
                hint=f"put {Content.SITES.value.replace('*', '0.5')} beside it, or align: absolute",
            )
        return spectra
    if Content.STATES in there:
        return Content.STATES
    if spectra in there:
        raise DatasetError(
            f"is broadened by {files.sigma_eV(spectra)} eV, and another broadening needs the states",
            where=where,
            hint=f"put {Content.STATES.value} beside it, or leave sigma_eV out",
        )
    if spectra is Content.SITES:
        raise DatasetError("holds only molecules", where=where, hint="rows: molecule, or give files of sites")
    raise DatasetError(
        "spectra of sites are on grids of their own, not added up without their states",
        where=where,
        hint=f"rows: site, or put {Content.STATES.value} or {Content.MOLECULES.value.replace('*', '0.5')} beside it",
    )


def _needs_energies(recipe: Recipe) -> bool:
    return recipe.window.align is Align.EXCITATION_ENERGY or "excitation_energy" in recipe.targets


def _record(
    molecule: PublishedMolecule, known: Mapping[int, str] | None, method: Method
) -> SpectrumRecord | LeftOut:
    where = f"molecule {molecule.name}"
    number = gdb_id(molecule.name)
    smiles = molecule.smiles
    if known is not None and number is not None:
        if number not in known:
            return LeftOut(molecule.name, "not in the file of molecules")
        if smiles is not None and canonical_smiles(smiles, where) != canonical_smiles(known[number], where):
            raise DatasetError(f"is {smiles} here, and {known[number]} in the file of molecules", where=where)
        smiles = known[number]
    sites = tuple(_site(molecule.name, s) for s in molecule.sites)
    ends = [s.complete_to_eV for s in sites] or [math.inf if molecule.known_eV is None else molecule.known_eV]
    return SpectrumRecord(
        name=molecule.name,
        key=molecule.name,  # QM9's number says which structure it is
        smiles=smiles,
        composition=None if smiles is None else composition_of(smiles, where),
        structure=None,
        spectrum=molecule.spectrum,
        excitation_energy_eV=min((s.excitation_energy_eV for s in molecule.sites), default=math.nan),
        complete_to_eV=min(ends),
        method=method,
        ground={},
        sites=sites,
    )


def _site(molecule: str, site: PublishedSite) -> SiteRecord:
    return SiteRecord(
        name=site.atom,
        key=site.calculation or f"{molecule}/{site.atom}",
        multiplicity=site.multiplicity,
        excitation_energy_eV=site.excitation_energy_eV,
        complete_to_eV=site.excitation_energy_eV + site.known_eV,
        sticks=site.sticks,
        spectrum=site.spectrum,
        zero_eV=site.excitation_energy_eV,
        quantity=Quantity.DSF,
    )


def _parameters_key(files: PublishedFiles) -> str:
    return content_key({k: v for k, v in files.attributes().items() if k not in _PROCESS})


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
