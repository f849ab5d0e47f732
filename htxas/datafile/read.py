"""Read a dataset file, one molecule at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from htxas.datafile.entries import DatasetMeta, MoleculeEntry
from htxas.datafile.layout import FORMAT, VERSION, Node, from_node, group_name
from htxas.datafile.write import content_sha256
from htxas.errors import DatasetError, NotFound, StructureError

__all__ = ["DatasetFile"]


class DatasetFile:
    """An open dataset file; a context manager and an iterable of :class:`MoleculeEntry`.

    Parameters
    ----------
    path
        File written by :class:`htxas.datafile.DatasetWriter`.

    Raises
    ------
    DatasetError
        If the file is missing, not HDF5, of another format, or of a newer version than this program knows.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DatasetError("no such file", where=str(path), hint="htxas export NAME --format dataset")
        try:
            self._file: Any = h5py.File(self.path, "r")
        except OSError as error:
            raise DatasetError("not a readable HDF5 file", where=str(path)) from error
        try:
            self.meta = self._read_meta()
        except DatasetError:
            self._file.close()
            raise
        self._molecules: Any = self._file["molecules"]

    def _read_meta(self) -> DatasetMeta:
        attrs = self._file.attrs
        if attrs.get("format") != FORMAT or "molecules" not in self._file:
            raise DatasetError(f"not an {FORMAT} file", where=str(self.path))
        version = int(attrs["format_version"])
        if version > VERSION:
            raise DatasetError(
                f"format version {version} is newer than {VERSION}", where=str(self.path), hint="update htxas"
            )
        if "content_sha256" not in attrs:
            raise DatasetError("the file was never finished", where=str(self.path), hint="export it again")
        return DatasetMeta(
            campaign=str(attrs["campaign"]),
            engine=str(attrs["engine"]),
            parameters=json.loads(attrs["parameters"]),
            created_by=str(attrs["created_by"]),
            n_molecules=int(attrs["n_molecules"]),
            n_sites=int(attrs["n_sites"]),
            n_incomplete=int(attrs["n_incomplete"]),
            content_sha256=str(attrs["content_sha256"]),
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> DatasetFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self.meta.n_molecules

    def names(self) -> tuple[str, ...]:
        """Return the names of all molecules, in the order they were written."""
        return tuple(str(g.attrs["name"]) for g in self._molecules.values())

    def molecule(self, name: str) -> MoleculeEntry:
        """Read one molecule.

        Raises
        ------
        NotFound
            With the nearest names.
        DatasetError
            If its data do not fit together.
        """
        group = group_name(name)
        if group not in self._molecules:
            near = get_close_matches(name, self.names(), n=3)
            hint = "did you mean " + ", ".join(near) + "?" if near else None
            raise NotFound(f"no molecule is called {name!r}", where=str(self.path), hint=hint)
        return self._entry(group)

    def __iter__(self) -> Iterator[MoleculeEntry]:
        for group in self._molecules:
            yield self._entry(group)

    def verify(self) -> None:
        """Recompute every hash.

        Raises
        ------
        DatasetError
            Naming the first molecule that was changed since it was written.
        """
        hashes = {}
        for name, group in self._molecules.items():
            node = _read(group)
            hashes[name] = node.sha256()
            if hashes[name] != node.attrs.get("content_sha256"):
                raise DatasetError("the data do not match their hash", where=f"{self.path}: {name}")
        if content_sha256(hashes) != self.meta.content_sha256:
            raise DatasetError("molecules were added or removed", where=str(self.path))

    def _entry(self, group: str) -> MoleculeEntry:
        try:
            return from_node(_read(self._molecules[group]))
        except (KeyError, ValueError, StructureError, OSError) as error:
            raise DatasetError(f"damaged entry: {error}", where=f"{self.path}: {group}") from error


def _read(group: Any) -> Node:
    node = Node({name: _plain(value) for name, value in group.attrs.items()})
    for name, item in group.items():
        if isinstance(item, h5py.Dataset):
            node.arrays[name] = item[()]
        else:
            node.children[name] = _read(item)
    return node


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
