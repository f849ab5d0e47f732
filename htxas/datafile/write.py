"""Write a dataset file, molecule by molecule, complete or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py

from htxas.datafile.entries import DatasetMeta, MoleculeEntry
from htxas.datafile.layout import FORMAT, VERSION, Node, group_name, to_node
from htxas.errors import DatasetError, UserError

__all__ = ["DatasetWriter", "content_sha256"]


def content_sha256(molecules: dict[str, str]) -> str:
    """Return the hash of a whole file from its molecules' hashes (group name -> hash), in any order."""
    return hashlib.sha256(json.dumps(sorted(molecules.items())).encode()).hexdigest()


class DatasetWriter:
    """Context manager that streams molecules into a new file.

    The file appears under its name only when everything is written; an error or Ctrl-C leaves nothing behind.

    Parameters
    ----------
    path
        File to create or replace.
    meta
        Counts and hash in it are ignored: the writer fills them.

    Raises
    ------
    UserError
        If the file cannot be written (no folder, no permission, disk full).
    """

    def __init__(self, path: str | Path, meta: DatasetMeta) -> None:
        self._path = Path(path)
        self._partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        self._meta = meta
        self._hashes: dict[str, str] = {}
        self._sites = 0
        self._incomplete = 0
        self._file: Any = None

    def __enter__(self) -> DatasetWriter:
        try:
            self._file = h5py.File(self._partial, "w", libver="latest")
        except OSError as error:
            raise self._cannot_write(error) from error
        self._molecules = self._file.create_group("molecules", track_order=True)
        return self

    def add(self, entry: MoleculeEntry) -> None:
        """Append one molecule.

        Raises
        ------
        DatasetError
            If the name is already in the file, or a site has a continuous spectrum.
        UserError
            If the disk is full.
        """
        name = group_name(entry.name)
        if name in self._hashes:
            raise DatasetError(f"two molecules are called {entry.name!r}", where=str(self._path))
        node = to_node(entry)
        digest = node.sha256()
        node.attrs["content_sha256"] = digest
        try:
            _write(self._molecules.create_group(name), node)
        except OSError as error:
            raise self._cannot_write(error) from error
        self._hashes[name] = digest
        self._sites += len(entry.sites)
        self._incomplete += not entry.complete

    def close(self) -> DatasetMeta:
        """Finish the file and return its final meta data. Leaving the ``with`` block does the same."""
        if self._file is None:
            return self._meta
        self._meta = dataclasses.replace(
            self._meta,
            n_molecules=len(self._hashes),
            n_sites=self._sites,
            n_incomplete=self._incomplete,
            content_sha256=content_sha256(self._hashes),
        )
        attrs = dataclasses.asdict(self._meta)
        attrs["parameters"] = json.dumps(attrs["parameters"], sort_keys=True)
        try:
            self._file.attrs.update({"format": FORMAT, "format_version": VERSION, **attrs})
            self._file.close()
            self._partial.replace(self._path)
        except OSError as error:
            self._partial.unlink(missing_ok=True)
            raise self._cannot_write(error) from error
        finally:
            self._file = None
        return self._meta

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        if self._file is not None:
            with contextlib.suppress(OSError):  # the first error (disk full) is the one to tell
                self._file.close()
            self._file = None
        self._partial.unlink(missing_ok=True)

    def _cannot_write(self, error: OSError) -> UserError:
        return UserError(
            f"cannot write: {error}", where=str(self._path), hint="choose another --output or free space"
        )


def _write(group: Any, node: Node) -> None:
    for name, value in node.attrs.items():
        group.attrs[name] = value
    for name, array in node.arrays.items():
        # below a few hundred bytes the filter's own header is larger than what it saves
        small = array.nbytes < 300
        options = {} if small else {"compression": "gzip", "compression_opts": 9, "shuffle": True}
        group.create_dataset(name, data=array, **options)
    for name, child in node.children.items():
        _write(group.create_group(name), child)
