"""The published layout: three HDF5 files that the readers of the published C K-edge database understand.

Layout after Shibata, Kikumasa, Kiyohara, Mizoguchi, Sci. Data 9, 214 (2022); figshare collection 5494395.

``site_eigen_dsf.hdf5``
    ``/{molecule}/{atom}/eigenvalues`` (n,) eV and ``/dsf`` (n, 3) A^2, attributes ``n_electron``, ``multiplicity``,
    ``final_energy_gs``, ``final_energy_ex``, ``excitation_energy`` (eV). Readers take ``ev[(n_electron-1)//2]`` as the
    first final state, put it at ``excitation_energy``, and drop what lies below.
``site_spectra_0.5eV.hdf5``
    ``/{molecule}/{atom}/energies`` relative to ``excitation_energy`` and ``/spectrum`` (total, x, y, z).
``mol_spectra_0.5eV.hdf5``
    ``/{molecule}/energies`` absolute, ``/spectrum``: mean over atoms, weighted by multiplicity.

``{atom}`` is the index in the structure file, counted from 0. Intensities are ``2 dsf`` (two spins) times area-
normalised Gaussians of sigma 0.5 eV, in A^2/eV, on steps of 0.1 eV with a margin of 5 eV.

What differs from the published database, and why
-------------------------------------------------
- Occupied levels of the core-hole state are not stored by htxas. Their places, ``(n_electron-1)//2`` entries, hold NaN
  in ``eigenvalues`` and ``dsf``, so the rule above finds the first final state and nothing is invented.
- ``eigenvalues`` are relative to the first final state (which is 0); the published ones have the zero of their code.
- ``n_electron`` counts valence electrons (outside the noble-gas core) plus the excited one, as with pseudopotentials,
  although an engine may treat all electrons.
- ``final_energy_ex - final_energy_gs`` is ``excitation_energy`` itself: no atomic correction is to be added. Where the
  engine's own total energy of the excited state gives exactly that, it is written; where the scale rests on another
  state (an ion, a spin-purified pair), ``final_energy_gs + excitation_energy`` is. ``final_energy_ex_source`` says
  which, and ``scale`` how the absolute energy was fixed.
- ``window_eV`` says how far above ``excitation_energy`` the states are complete.
- ``corrections`` and ``another_state`` name what it took to converge a site and which states may be others than the
  usual way leads to; empty where nothing was needed, ``unknown`` where the source does not tell.
- Groups are numbers where every molecule is named like ``gdb_17`` (or when numbering is asked for) and names otherwise;
  some published tools sort groups as integers. The attribute ``name`` always has the name.
- The x, y and z columns of a molecule are its orientation average, three times the same: what a representative site
  absorbs along x, its equivalents absorb along other directions. Sites keep their polarisations.
- Each engine has its own functional and basis: intensities compare in shape, not digit by digit.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from htxas.datafile.entries import DatasetMeta, MoleculeEntry, SiteEntry
from htxas.datafile.layout import group_name
from htxas.datafile.together import FilesTogether
from htxas.domain.elements import atomic_number
from htxas.domain.spectrum import Spectrum, Sticks, broaden, dsf_A2
from htxas.domain.structure import Structure
from htxas.errors import DatasetError

__all__ = [
    "EIGEN_FILE",
    "MARGIN_EV",
    "MOLECULE_FILE",
    "SITE_FILE",
    "PublishedWriter",
    "gdb_number",
    "valence_electrons",
]

EIGEN_FILE = "site_eigen_dsf.hdf5"
SITE_FILE = "site_spectra_0.5eV.hdf5"
MOLECULE_FILE = "mol_spectra_0.5eV.hdf5"
MARGIN_EV = 5.0
_SIGMA_EV = 0.5
_STEP_EV = 0.1
_NOBLE_GASES = (2, 10, 18, 36, 54, 86)
_SPINS = 2.0
_SAME_ENERGY_EV = 1e-3
_GDB = re.compile(r"(?:gdb_|gdb9_|dsgdb9nsd_)0*(\d+)")
FloatArray = npt.NDArray[np.float64]


def gdb_number(name: str) -> int | None:
    """Return the QM9 number in a name such as ``gdb_17`` or ``dsgdb9nsd_000017``, else None."""
    match = _GDB.fullmatch(name)
    return None if match is None else int(match.group(1))


def valence_electrons(structure: Structure) -> int:
    """Electrons outside the largest noble-gas core that is smaller than the atom, over all atoms."""
    numbers = (atomic_number(s) for s in structure.symbols)
    return sum(z - max((core for core in _NOBLE_GASES if core < z), default=0) for z in numbers)


class PublishedWriter(FilesTogether):
    """Context manager that streams molecules into the three files of a directory.

    The files appear under their names only when all are written.

    Parameters
    ----------
    directory
        Created if needed; files of an earlier export in it are replaced.
    meta
        Recorded as root attributes.
    numbered
        True: number molecules 1, 2, ... in the order of :meth:`add`. False: QM9 numbers or names, see
        ``use_gdb_numbers``.
    use_gdb_numbers
        Name groups by QM9 number; every molecule must then have one.

    Raises
    ------
    UserError
        If the files cannot be written.
    """

    def __init__(
        self,
        directory: str | Path,
        meta: DatasetMeta,
        *,
        numbered: bool = False,
        use_gdb_numbers: bool = False,
    ) -> None:
        super().__init__(directory)
        self._meta = meta
        self._numbered = numbered
        self._use_gdb = use_gdb_numbers
        self._groups: set[str] = set()

    def _open_all(self) -> None:
        for name in (EIGEN_FILE, SITE_FILE, MOLECULE_FILE):
            # the latest format: published readers open the files in SWMR mode, which needs its superblock
            self._open[name] = h5py.File(self._draft(name), "w", libver="latest")
            self._open[name].attrs.update(self._root_attributes())

    def _root_attributes(self) -> dict[str, Any]:
        return {
            "layout": "Shibata et al., Sci. Data 9, 214 (2022)",
            "campaign": self._meta.campaign,
            "engine": self._meta.engine,
            "parameters": json.dumps(dict(self._meta.parameters), sort_keys=True),
            "created_by": self._meta.created_by,
            "sigma_eV": _SIGMA_EV,
            "margin_eV": MARGIN_EV,
            "occupied_levels": "NaN: not stored; the first final state is ev[(n_electron-1)//2] = 0",
        }

    def add(self, entry: MoleculeEntry) -> None:
        """Append one molecule. An incomplete one goes to the site files, flagged, and has no molecular spectrum.

        Raises
        ------
        DatasetError
            If two molecules would share a group, or a site has a continuous spectrum.
        UserError
            If the disk is full.
        """
        entry.refuse_curves()
        group = self._group(entry)
        if group in self._groups:
            raise DatasetError(f"two molecules are called {group!r}", where=str(self._directory))
        self._groups.add(group)
        with self._telling():
            for name in (EIGEN_FILE, SITE_FILE):
                molecule = self._molecule(name, group, entry)
                for site in entry.sites:
                    node = molecule.create_group(str(site.file_atom))
                    node.attrs.update(_site_attributes(site))
                    if name == EIGEN_FILE:
                        _write_eigen(node, site, valence_electrons(entry.structure) + 1)
                    else:
                        _write_spectrum(node, _published_spectrum(_relative(site)))
            if entry.complete:
                _write_spectrum(
                    self._molecule(MOLECULE_FILE, group, entry), _published_spectrum(_molecular(entry))
                )

    def _group(self, entry: MoleculeEntry) -> str:
        if self._numbered:
            return str(len(self._groups) + 1)
        if not self._use_gdb:
            return group_name(entry.name)
        number = gdb_number(entry.name)
        if number is None:
            raise DatasetError(f"{entry.name!r} has no QM9 number", where=str(self._directory))
        return str(number)

    def _molecule(self, file: str, group: str, entry: MoleculeEntry) -> Any:
        node = self._open[file].create_group(group)
        node.attrs.update({"name": entry.name, "smiles": entry.smiles or "", "complete": entry.complete})
        return node


def _site_attributes(site: SiteEntry) -> dict[str, Any]:
    ground = site.energies_eV["ground"]
    derived = ground + site.excitation_energy_eV
    excited = site.energies_eV.get("excited", np.inf)
    own = abs(excited - derived) < _SAME_ENERGY_EV
    return {
        "multiplicity": site.multiplicity,
        "final_energy_gs": ground,
        "final_energy_ex": excited if own else derived,
        "final_energy_ex_source": "engine" if own else "final_energy_gs + excitation_energy",
        "excitation_energy": site.excitation_energy_eV,
        "window_eV": site.window_eV,
        "scale": site.scale,
        "calculation": site.key,
        "corrections": _words(site.corrections),
        "another_state": _words(site.another_state),
    }


def _words(names: tuple[str, ...] | None) -> str:
    return "unknown" if names is None else ", ".join(names)


def _write_eigen(node: Any, site: SiteEntry, n_electron: int) -> None:
    occupied = (n_electron - 1) // 2
    relative = site.sticks.energies_eV - site.sticks.energies_eV[0]
    node.attrs["n_electron"] = n_electron
    _dataset(node, "eigenvalues", np.concatenate([np.full(occupied, np.nan), relative]))
    _dataset(node, "dsf", np.concatenate([np.full((occupied, 3), np.nan), dsf_A2(site.sticks)]))


def _relative(site: SiteEntry) -> Sticks:
    energies = site.sticks.energies_eV - site.sticks.energies_eV[0]
    return Sticks(energies, _SPINS * dsf_A2(site.sticks))


def _molecular(entry: MoleculeEntry) -> Sticks:
    weights = np.array([s.multiplicity for s in entry.sites], dtype=np.float64)
    weights /= weights.sum()
    energies = np.concatenate([s.sticks.energies_eV for s in entry.sites])
    strengths = np.concatenate(
        [_SPINS * w * _orientation_mean(dsf_A2(s.sticks)) for w, s in zip(weights, entry.sites, strict=True)]
    )
    order = np.argsort(energies, kind="stable")
    return Sticks(energies[order], strengths[order])


def _orientation_mean(strengths: FloatArray) -> FloatArray:
    """Return strengths with their mean over x, y, z in each column: equivalent atoms are rotated against each other."""
    return np.repeat(strengths.mean(axis=1, keepdims=True), 3, axis=1)


def _published_spectrum(sticks: Sticks) -> tuple[FloatArray, FloatArray]:
    spectrum: Spectrum = broaden(sticks, sigma_eV=_SIGMA_EV, step_eV=_STEP_EV, margin_eV=MARGIN_EV)
    # the published grid is arange(floor, ceil, step): without its end point
    return spectrum.energies_eV[:-1], spectrum.columns[:-1]


def _write_spectrum(node: Any, spectrum: tuple[FloatArray, FloatArray]) -> None:
    _dataset(node, "energies", spectrum[0])
    _dataset(node, "spectrum", spectrum[1])


def _dataset(node: Any, name: str, array: FloatArray) -> None:
    node.create_dataset(name, data=array, compression="gzip", compression_opts=9)
