"""One molecule of files of the published layout; what is checked of it is in here, files are not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from htxas.datafile.published import EIGEN_FILE, MARGIN_EV
from htxas.datafile.published_node import Group
from htxas.domain.spectrum import Quantity, Spectrum, Sticks, gaussians
from htxas.errors import DatasetError

__all__ = ["Content", "PublishedMolecule", "PublishedSite", "read_molecule"]

_STEP_EV = 0.1
_SPINS = 2.0
_ROUNDED_EV = 1.0
_ON_GRID_EV = 1e-6
_SAME = 1e-4  # of the highest point: files in float32 differ by less
FloatArray = npt.NDArray[np.float64]


class Content(Enum):
    """What a file of the layout holds; the value is what to look for in a folder."""

    STATES = EIGEN_FILE
    SITES = "site_spectra_*eV.hdf5"
    MOLECULES = "mol_spectra_*eV.hdf5"


@dataclass(frozen=True, slots=True, eq=False)
class PublishedSite:
    """One site.

    Attributes
    ----------
    atom
        Index of the atom in its structure file, from 0.
    multiplicity
        Atoms it stands for.
    excitation_energy_eV
        Absolute energy of the first final state.
    known_eV
        Up to where its states are complete, above that.
    calculation
        Key of the calculation, in files of htxas.
    spectrum, sticks
        On energies relative to the first final state; None where not asked for.
    """

    atom: str
    multiplicity: int
    excitation_energy_eV: float
    known_eV: float
    calculation: str | None
    spectrum: Spectrum | None
    sticks: Sticks | None


@dataclass(frozen=True, slots=True, eq=False)
class PublishedMolecule:
    """One molecule.

    Attributes
    ----------
    name
        ``gdb_17`` where the group is called 17, or the name that the file tells.
    smiles
        In files of htxas; else None.
    sites
        Empty where only a file of molecules is there.
    spectrum
        On absolute energies; None where not asked for.
    known_eV
        Up to where the states of the site that goes farthest are complete, absolute; None without ``spectrum``.
    """

    name: str
    smiles: str | None
    sites: tuple[PublishedSite, ...]
    spectrum: Spectrum | None
    known_eV: float | None


def read_molecule(
    number: str,
    content: Content,
    group: Group,
    other: Group | None,
    sigma_eV: float,
    margin_eV: float,
    where: str,
) -> PublishedMolecule:
    """Return a molecule.

    Parameters
    ----------
    number
        Name of its group.
    content, group
        What is read.
    other
        The molecule in another file: what tells of its sites, or what their states must give. None without one.
    sigma_eV, margin_eV
        Of the spectra.
    where
        For errors.

    Raises
    ------
    DatasetError
        If its numbers do not fit together.
    """
    spectrum, known_eV, sites = None, None, []
    if content is Content.MOLECULES:
        spectrum = _spectrum(group, sigma_eV, where)
        known_eV = _end_eV(spectrum) - margin_eV - _ROUNDED_EV
        if other is not None:
            sites = [_facts(a, other.group(a), f"{where}/{a}") for a in other.names()]
    elif content is Content.SITES:
        for atom in group.names():
            node = group.group(atom)
            own = _spectrum(node, sigma_eV, f"{where}/{atom}")
            sites.append(_site(atom, node, _known_eV(node, own, f"{where}/{atom}"), spectrum=own))
    else:
        for atom in group.names():
            node = group.group(atom)
            sticks = _sticks(node, f"{where}/{atom}")
            site = _site(atom, node, _known_eV(node, sticks, f"{where}/{atom}"), sticks=sticks)
            if other is not None:
                _check(site, other.group(atom), sigma_eV, f"{where}/{atom}")
            sites.append(site)
    return PublishedMolecule(
        name=group.word("name") or (f"gdb_{int(number)}" if number.isdigit() else number),
        smiles=group.word("smiles"),
        sites=tuple(sites),
        spectrum=spectrum,
        known_eV=known_eV,
    )


def _facts(atom: str, node: Group, where: str) -> PublishedSite:
    """Return a site without what is large."""
    if node.has("window_eV"):
        return _site(atom, node, node.number("window_eV"))
    if "spectrum" in node:
        return _site(atom, node, _known_above_eV(node.array("energies"), where))
    return _site(atom, node, float(_sticks(node, where).energies_eV[-1]))


def _site(
    atom: str, node: Group, known_eV: float, *, spectrum: Spectrum | None = None, sticks: Sticks | None = None
) -> PublishedSite:
    multiplicity = node.number("multiplicity")
    return PublishedSite(
        atom=atom,
        multiplicity=int(multiplicity),
        excitation_energy_eV=node.number("excitation_energy"),
        known_eV=known_eV,
        calculation=node.word("calculation"),
        spectrum=spectrum,
        sticks=sticks,
    )


def _known_eV(node: Group, of: Spectrum | Sticks, where: str) -> float:
    if node.has("window_eV"):
        return node.number("window_eV")
    return float(of.energies_eV[-1]) if isinstance(of, Sticks) else _known_above_eV(of.energies_eV, where)


def _known_above_eV(energies_eV: FloatArray, where: str) -> float:
    """Return the least that a grid of a site tells of its last state: the grid begins with its margin."""
    margin_eV = -float(energies_eV[0])
    if not 0 <= margin_eV < 2 * MARGIN_EV:
        raise DatasetError(
            f"its energies begin at {-margin_eV:.1f} eV; they should be relative to the excitation energy",
            where=where,
        )
    return math.ceil(float(energies_eV[-1]) - _ON_GRID_EV) - margin_eV - _ROUNDED_EV


def _end_eV(spectrum: Spectrum) -> float:
    return float(math.ceil(float(spectrum.energies_eV[-1]) - _ON_GRID_EV))


def _spectrum(node: Group, sigma_eV: float, where: str) -> Spectrum:
    """Return a spectrum; its grid must be the layout's, its first column the mean of the others."""
    energies_eV, columns = node.array("energies"), node.array("spectrum")
    n = len(energies_eV)
    if n < 2 or columns.shape != (n, 4):
        raise DatasetError(f"has {n} energies and a spectrum of shape {columns.shape}", where=where)
    start = round(energies_eV[0] / _STEP_EV) if np.isfinite(energies_eV[0]) else 0
    if not np.abs(energies_eV - np.arange(start, start + n) * _STEP_EV).max() < _ON_GRID_EV:
        raise DatasetError(f"its energies are not whole multiples of {_STEP_EV} eV", where=where)
    total = columns[:, 1:].mean(axis=1)
    if np.abs(total - columns[:, 0]).max() > _SAME * np.abs(total).max():
        raise DatasetError("its total is not the mean of x, y and z", where=where)
    return Spectrum(start, _STEP_EV, columns[:, 1:], sigma_eV, Quantity.DSF)


def _sticks(node: Group, where: str) -> Sticks:
    """Return the final states as the published readers take them: from number ``(n_electron - 1) // 2`` on."""
    levels_eV, dsf = node.array("eigenvalues"), node.array("dsf")
    first = (int(node.number("n_electron")) - 1) // 2
    if levels_eV.ndim != 1 or dsf.shape != (len(levels_eV), 3):
        raise DatasetError(f"has eigenvalues of shape {levels_eV.shape} and dsf of {dsf.shape}", where=where)
    if not (0 <= first < len(levels_eV) and np.isfinite(levels_eV[first])):
        raise DatasetError(
            f"of {len(levels_eV)} levels number {first}, its first final state, is not there", where=where
        )
    final = levels_eV >= levels_eV[first]  # neither those below nor those that are not known, NaN
    order = np.argsort(levels_eV[final], kind="stable")
    return Sticks(levels_eV[final][order] - levels_eV[first], _SPINS * dsf[final][order])


def _check(site: PublishedSite, node: Group, sigma_eV: float, where: str) -> None:
    """Refuse states that do not give the spectrum in the other file, looked at twice per sigma."""
    stored = _spectrum(node, sigma_eV, where)
    assert site.sticks is not None
    margin_eV = -float(stored.energies_eV[0])
    if math.ceil(site.sticks.energies_eV[-1] + margin_eV) != round(_end_eV(stored)):
        raise DatasetError("its states and its spectrum in the other file end elsewhere", where=where)
    every = slice(None, None, max(1, int(sigma_eV / 2 / _STEP_EV)))
    lines = gaussians(stored.energies_eV[every, None] - site.sticks.energies_eV, sigma_eV)
    apart = np.abs(lines @ site.sticks.strengths - stored.intensity[every]).max()
    highest = np.abs(stored.intensity).max()
    if not apart <= _SAME * highest:
        raise DatasetError(
            f"its states do not give its spectrum in the other file: {apart:.3g} A^2/eV apart, of {highest:.3g}",
            where=where,
        )
    if abs(node.number("excitation_energy") - site.excitation_energy_eV) > _ON_GRID_EV:
        raise DatasetError("its excitation energy is another one in the other file", where=where)
