"""Read files of the published layout (:mod:`htxas.datafile.published`), ours or the published ones.

Units: everything here is in A^2 (sticks) or A^2/eV (spectra), both spins; sites' energies are relative to their
``excitation_energy``, molecules' are absolute.

How far the states are complete
-------------------------------
Our files say so (``window_eV``). Elsewhere it is the last state, where states are read; where only spectra are, the end
of the grid less its margin, less the 1 eV that rounding may have added: the last state is at most that much higher.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py

from htxas.datafile.layout import FORMAT
from htxas.datafile.published import MARGIN_EV
from htxas.datafile.published_entry import Content, PublishedMolecule, PublishedSite, read_molecule
from htxas.datafile.published_node import root_of
from htxas.errors import DatasetError

__all__ = ["Content", "PublishedFiles", "PublishedMolecule", "PublishedSite", "published_paths"]

_SIGMA = re.compile(r"_(\d+(?:\.\d+)?)eV$")
_DAMAGED = (KeyError, ValueError, TypeError, OSError, RuntimeError)


def published_paths(path: Path) -> dict[Content, Path]:
    """Return what is there of the layout: in a folder, by name; of a file, by what is in it.

    Raises
    ------
    DatasetError
        Two files of a kind in a folder, or a file that is not HDF5.
    """
    if path.is_file():
        kind = _content(path)
        return {} if kind is None else {kind: path}
    found = {}
    for kind in Content:
        files = sorted(path.glob(kind.value))
        if len(files) > 1:
            raise DatasetError(
                f"holds {files[0].name} and {files[1].name}",
                where=str(path),
                hint="give one of the files instead, or move the others away",
            )
        if files:
            found[kind] = files[0]
    return found


def _content(path: Path) -> Content | None:
    try:
        with h5py.File(path, "r") as file:
            if str(file.attrs.get("format", "")) == FORMAT:
                return None
            root = root_of(file)
            for molecule in (root.group(n) for n in root.names() if root.is_group(n)):
                if "spectrum" in molecule:
                    return Content.MOLECULES
                for site in (molecule.group(n) for n in molecule.names() if molecule.is_group(n)):
                    if "eigenvalues" in site:
                        return Content.STATES
                    return Content.SITES if "spectrum" in site else None
            return None
    except OSError as error:
        raise DatasetError("not a readable HDF5 file", where=str(path)) from error


class PublishedFiles:
    """Open files of the published layout; a context manager.

    Parameters
    ----------
    path
        A folder with any of the three files, or one of them.

    Raises
    ------
    DatasetError
        If there is none, or one cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.paths = published_paths(path)
        if not self.paths:
            raise DatasetError(
                "holds nothing of the published layout",
                where=str(path),
                hint="a folder with any of " + ", ".join(c.value.replace("*", "0.5") for c in Content),
            )
        self._files: dict[Content, Any] = {}
        for content, file in self.paths.items():
            try:
                self._files[content] = h5py.File(file, "r")
            except OSError as error:
                self.close()
                raise DatasetError("not a readable HDF5 file", where=str(file)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def attributes(self) -> Mapping[str, str]:
        """Return what the files tell of themselves, as text: nothing of the published ones."""
        first = next(iter(self._files.values()))
        return {name: str(value) for name, value in sorted(first.attrs.items())}

    def sigma_eV(self, content: Content) -> float:
        """Return the broadening of a file of spectra: what it tells, else what its name does.

        Raises
        ------
        DatasetError
            If neither does.
        """
        told = self._files[content].attrs.get("sigma_eV")
        match = _SIGMA.search(self.paths[content].stem)
        if told is None and match is None:
            raise DatasetError(
                "neither the file nor its name tells the broadening",
                where=str(self.paths[content]),
                hint="call it as published, such as site_spectra_0.5eV.hdf5",
            )
        return float(match.group(1) if told is None and match else told)

    def beside(self, content: Content) -> Content | None:
        """Return the other file that :meth:`molecules` reads, if any."""
        wanted = {Content.MOLECULES: (Content.SITES, Content.STATES), Content.STATES: (Content.SITES,)}
        return next((c for c in wanted.get(content, ()) if c in self.paths), None)

    def molecules(self, content: Content) -> Iterator[PublishedMolecule]:
        """Yield complete molecules, in the order of their numbers.

        Parameters
        ----------
        content
            What is read: spectra of molecules (and what the other files tell of their sites), spectra of sites, or
            states. States are checked against the spectra of sites where those are there.

        Raises
        ------
        DatasetError
            Naming the molecule whose data are not there, or do not fit together.
        """
        beside = self.beside(content)
        sigma_eV = next(
            (self.sigma_eV(c) for c in (content, beside) if c is not None and c is not Content.STATES), 0.0
        )
        margin_eV = float(self._files[content].attrs.get("margin_eV", MARGIN_EV))
        root = root_of(self._files[content])
        other_root = None if beside is None else root_of(self._files[beside])
        for name in root.names():
            where = f"{self.paths[content]}: {name}"
            try:
                group = root.group(name)
                if group.has("complete") and not group.flag("complete"):
                    continue
                other = None if other_root is None else other_root.group(name)
                molecule = read_molecule(name, content, group, other, sigma_eV, margin_eV, where)
            except _DAMAGED as error:
                raise DatasetError(f"damaged entry: {error}", where=where) from error
            yield molecule
