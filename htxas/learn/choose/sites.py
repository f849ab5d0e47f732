"""The sites of a campaign or a dataset file as a stream: of each only the numbers that a check needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from htxas.datafile import DatasetFile, SiteEntry
from htxas.domain.calculation import State
from htxas.domain.result import SiteResult, Spectral
from htxas.domain.spectrum import Quantity, Spectrum, broaden
from htxas.domain.structure import Structure
from htxas.errors import DatasetError
from htxas.learn.choose.descriptors import describe_molecule
from htxas.learn.choose.environment import Environment, environment, table_of
from htxas.learn.data.chemistry import canonical_smiles
from htxas.learn.data.features import window_row
from htxas.learn.data.recipe import Window
from htxas.learn.data.source import site_parameters_key

if TYPE_CHECKING:
    from htxas.store.store import Store

__all__ = ["BIN_EV", "SiteRow", "SiteTable", "file_sites", "store_sites", "tabulate"]

BIN_EV = 0.5
_WINDOW = Window(start_eV=-2.0, points=175, step_eV=0.1)
_POINTS_PER_BIN = 5
_SIGMA_EV = 1.0  # wider than for training: a line that moved by a few tenths of an eV is no other shape
_MOLECULES_AT_ONCE = 100
_BEYOND = f"not complete to {_WINDOW.stop_eV:.1f} eV above its onset"


@dataclass(frozen=True, slots=True, eq=False)
class SiteRow:
    """One finished site.

    Attributes
    ----------
    key
        Calculation key.
    molecule, file_atom
        Where it is; the atom in the order of the structure file.
    group
        What must not be on both sides of a test: the molecule.
    onset_eV, ionization_eV
        First final state, or threshold of a continuous spectrum; ionisation energy where the engine has one.
    spectrum
        Mean over 0.5 eV each, from 2 eV below to 15.5 eV above the onset, shape (35,); None if it is not
        complete to there.
    surroundings
        See :func:`htxas.learn.choose.environment.environment`.
    smiles
        Of the molecule, or None.
    """

    key: str
    molecule: str
    file_atom: int
    group: str
    onset_eV: float
    ionization_eV: float | None
    spectrum: npt.NDArray[np.float32] | None
    surroundings: Environment
    smiles: str | None


@dataclass(frozen=True, slots=True, eq=False)
class SiteTable:
    """All sites that can be judged, by key.

    Attributes
    ----------
    keys, molecules, file_atoms, groups
        As in :class:`SiteRow`, n each.
    energies_eV
        Name -> shape (n,): ``onset``, and ``ionization`` where every site has one.
    spectra
        Shape (n, bins), float32.
    surroundings
        Shape (n, d), float32.
    whole
        The molecule of each site, shape (n, m), float32: descriptors of its SMILES; where one has none, the mean of the
        surroundings of its sites, for all.
    left_out
        Reason -> ``MOLECULE/ATOM`` of sites that cannot be judged.
    """

    keys: tuple[str, ...]
    molecules: tuple[str, ...]
    file_atoms: tuple[int, ...]
    groups: tuple[str, ...]
    energies_eV: dict[str, npt.NDArray[np.float64]]
    spectra: npt.NDArray[np.float32]
    surroundings: npt.NDArray[np.float32]
    whole: npt.NDArray[np.float32]
    left_out: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.keys)


def tabulate(sites: Iterator[SiteRow]) -> SiteTable:
    """Collect a stream; a calculation that several molecules share counts once."""
    rows: dict[str, SiteRow] = {}
    left_out: dict[str, list[str]] = {}
    for site in sites:
        if site.spectrum is None:
            left_out.setdefault(_BEYOND, []).append(f"{site.molecule}/{site.file_atom}")
        else:
            rows.setdefault(site.key, site)
    found = [rows[key] for key in sorted(rows)]
    if not found:
        raise DatasetError("no finished site that could be judged", hint="htxas status")
    energies = {"onset": np.array([r.onset_eV for r in found])}
    ionizations = [r.ionization_eV for r in found if r.ionization_eV is not None]
    if len(ionizations) == len(found):
        energies["ionization"] = np.array(ionizations)
    surroundings = table_of([r.surroundings for r in found])
    return SiteTable(
        keys=tuple(r.key for r in found),
        molecules=tuple(r.molecule for r in found),
        file_atoms=tuple(r.file_atom for r in found),
        groups=tuple(r.group for r in found),
        energies_eV=energies,
        spectra=np.array([r.spectrum for r in found], dtype=np.float32),
        surroundings=surroundings,
        whole=_whole(found, surroundings),
        left_out=left_out,
    )


def _whole(found: Sequence[SiteRow], surroundings: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    smiles = [r.smiles for r in found if r.smiles is not None]
    if len(smiles) == len(found):
        try:
            described = {s: describe_molecule(s).astype(np.float32) for s in set(smiles)}
        except DatasetError:
            pass
        else:
            return np.array([described[s] for s in smiles])
    rows: dict[str, list[int]] = {}
    for i, r in enumerate(found):
        rows.setdefault(r.group, []).append(i)
    whole = np.empty_like(surroundings)
    for members in rows.values():
        whole[members] = surroundings[members].mean(axis=0)
    return whole


def file_sites(paths: Sequence[Path]) -> Iterator[SiteRow]:
    """Yield the finished sites of dataset files, one molecule in memory at a time.

    Raises
    ------
    DatasetError
        If a file is damaged, or computed by another engine or with other parameters than the first.
    """
    first = ""
    for path in paths:
        with DatasetFile(path) as data:
            method = f"{data.meta.engine} {site_parameters_key(data)}"
            if method != (first := first or method):
                raise DatasetError(
                    f"was not computed as {paths[0].name} was", where=str(path), hint="judge it by itself"
                )
            yield from _entries(data)


def _entries(data: DatasetFile) -> Iterator[SiteRow]:
    for entry in data:
        smiles = None if entry.smiles is None else canonical_smiles(entry.smiles, entry.name)
        canonical = {file_atom: i for i, file_atom in enumerate(entry.file_order)}
        for site in entry.sites:
            yield SiteRow(
                site.key,
                entry.name,
                site.file_atom,
                smiles or entry.structure.key,
                site.excitation_energy_eV,
                site.ionization_eV,
                _binned(_broadened(site), site.excitation_energy_eV, site.window_eV, entry.name),
                environment(entry.structure, canonical[site.file_atom]),
                smiles,
            )


def store_sites(store: Store, campaign: str) -> Iterator[SiteRow]:
    """Yield the finished sites of a campaign, a hundred molecules' records and one result in memory at a time.

    Raises
    ------
    NotFound
        If there is no such campaign.
    """
    store.campaign(campaign)
    molecules = store.molecules(campaign)
    while chunk := list(islice(molecules, _MOLECULES_AT_ONCE)):
        states = store.states(s.key for m in chunk for s in m.sites)
        structures = store.structures({m.structure_key for m in chunk})
        for molecule in chunk:
            structure: Structure = structures[molecule.structure_key].structure
            smiles = None if molecule.smiles is None else canonical_smiles(molecule.smiles, molecule.name)
            for ref in molecule.sites:
                if states.get(ref.key) is not State.DONE:
                    continue
                result: Spectral = store.site_result(ref.key)
                spectrum = result.spectrum(sigma_eV=_SIGMA_EV, step_eV=_WINDOW.step_eV)
                yield SiteRow(
                    ref.key,
                    molecule.name,
                    ref.file_atom,
                    smiles or molecule.structure_key,
                    result.onset_eV,
                    result.ionization_eV if isinstance(result, SiteResult) else None,
                    _binned(spectrum, result.onset_eV, result.window_eV, molecule.name),
                    environment(structure, ref.atom),
                    smiles,
                )


def _broadened(site: SiteEntry) -> Spectrum:
    return broaden(site.sticks, sigma_eV=_SIGMA_EV, step_eV=_WINDOW.step_eV)


def _binned(
    spectrum: Spectrum, onset_eV: float, window_eV: float, where: str
) -> npt.NDArray[np.float32] | None:
    end_eV = min(window_eV + 0.5 * _WINDOW.step_eV, float(spectrum.energies_eV[-1]) - onset_eV + 1e-6)
    start_eV = float(spectrum.energies_eV[0]) - onset_eV
    sticks = spectrum.quantity is Quantity.OSCILLATOR_STRENGTH
    if end_eV < _WINDOW.stop_eV or (not sticks and start_eV > _WINDOW.start_eV):
        return None
    row = window_row(spectrum, onset_eV, _WINDOW, where=where, zero_below=sticks)
    return np.asarray(row.reshape(-1, _POINTS_PER_BIN).mean(axis=1))
