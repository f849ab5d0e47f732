"""The frozen dataset: memory-mapped arrays beside one card; its name is its content hash.

A folder holds ``spectra.npy`` (n, points) float32, ``ratios.npy`` (n, 3) float32, ``targets.npy`` (n, t) float64 (total
energies need the digits), ``split.npy`` (n,) int8, and ``card.json``. It is written beside its final place and renamed:
a folder that exists is whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas import __version__
from htxas.domain.identity import content_key
from htxas.errors import DatasetError
from htxas.learn.data.collect import Collected, collect
from htxas.learn.data.qm9 import Qm9Table
from htxas.learn.data.recipe import Recipe
from htxas.learn.data.source import Source
from htxas.learn.data.split import Split, split_by_group
from htxas.learn.data.targets import RATIOS, describe

__all__ = ["CARD", "Dataset", "freeze", "load"]

CARD = "card.json"
_SCHEMA = 1
_ARRAYS = {"spectra": np.float32, "ratios": np.float32, "targets": np.float64, "split": np.int8}


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A frozen dataset on disk, opened read-only.

    Attributes
    ----------
    path
        Its folder.
    card
        Everything known of it; see ``card.json``.
    spectra
        Input spectra, shape (n, points), float32, memory-mapped.
    ratios
        N/C, O/C, F/C, shape (n, 3), float32, memory-mapped.
    targets
        Shape (n, t), float64, memory-mapped; columns as in ``card["targets"]``.
    split
        :class:`htxas.learn.data.split.Split` of every row, shape (n,), int8.
    """

    path: Path
    card: dict[str, Any]
    spectra: npt.NDArray[np.float32]
    ratios: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float64]
    split: npt.NDArray[np.int8]

    @property
    def key(self) -> str:
        """Content hash."""
        return str(self.card["key"])

    @property
    def recipe(self) -> Recipe:
        """How it was made."""
        return Recipe.from_dict(self.card["recipe"])

    @property
    def ids(self) -> list[str]:
        """Molecule names, in row order."""
        return list(self.card["ids"])

    def rows(self, split: Split) -> npt.NDArray[np.intp]:
        """Return the row numbers of one side."""
        return np.flatnonzero(self.split == split)

    def target(self, name: str) -> npt.NDArray[np.float64]:
        """Return the column of a target, shape (n,).

        Raises
        ------
        DatasetError
            If the dataset has no such target.
        """
        names = [t["name"] for t in self.card["targets"]]
        if name not in names:
            raise DatasetError(
                f"the dataset has no target {name!r}, only {' '.join(names)}", where=str(self.path)
            )
        return np.asarray(self.targets[:, names.index(name)])


def freeze(source: Source, recipe: Recipe, out_dir: Path, *, qm9: Qm9Table | None = None) -> Dataset:
    """Read a source once and write the dataset ``out_dir/<first 16 digits of its key>``.

    The same content gives the same folder: it is then only opened.

    Parameters
    ----------
    source
        Complete molecules.
    recipe
        Window, targets, split.
    out_dir
        Folder of datasets; made if needed.
    qm9
        Joined where the recipe has ``qm9_*`` targets; molecules it does not know are left out and counted.

    Raises
    ------
    DatasetError
        Too few molecules, mixed grids or methods, a window not covered, a number that is not finite, a target missing.
    """
    got = collect(source, recipe, qm9)
    groups = got.groups
    split = split_by_group(groups, validation=recipe.validation, test=recipe.test, seed=recipe.seed)
    arrays: dict[str, npt.NDArray[Any]] = {
        "spectra": got.spectra,
        "ratios": got.ratios,
        "targets": got.targets,
        "split": split,
    }
    card = _card(source, recipe, qm9, got, arrays)
    final = out_dir / card["key"][:16]
    if not (final / CARD).is_file():
        out_dir.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".freeze-", dir=out_dir))
        try:
            for name, array in arrays.items():
                np.save(scratch / f"{name}.npy", array, allow_pickle=False)
            (scratch / CARD).write_text(json.dumps(card, indent=1) + "\n")
            if final.exists():
                shutil.rmtree(final)  # has no card: the rest of an interrupted deletion
            scratch.chmod(0o755)
            scratch.rename(final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return load(final)


def load(path: Path) -> Dataset:
    """Open a frozen dataset; arrays stay on disk until used.

    Raises
    ------
    DatasetError
        If it is not a dataset, or its arrays do not fit its card.
    """
    try:
        card = json.loads((path / CARD).read_text())
        arrays = {n: np.load(path / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in _ARRAYS}
    except (OSError, ValueError) as error:
        raise DatasetError("this is not a frozen dataset", where=str(path)) from error
    if card.get("schema") != _SCHEMA:
        raise DatasetError(f"dataset schema {card.get('schema')}, expected {_SCHEMA}", where=str(path))
    n, points = len(card["ids"]), card["recipe"]["window"]["points"]
    shapes = {
        "spectra": (n, points),
        "ratios": (n, len(RATIOS)),
        "targets": (n, len(card["targets"])),
        "split": (n,),
    }
    for name, kind in _ARRAYS.items():
        if arrays[name].shape != shapes[name] or arrays[name].dtype != kind:
            raise DatasetError(
                f"{name}.npy has shape {arrays[name].shape}, the card says {shapes[name]}", where=str(path)
            )
    return Dataset(path, card, arrays["spectra"], arrays["ratios"], arrays["targets"], arrays["split"])


def _card(
    source: Source, recipe: Recipe, qm9: Qm9Table | None, got: Collected, arrays: dict[str, npt.NDArray[Any]]
) -> dict[str, Any]:
    identity = {
        "schema": _SCHEMA,
        "code": f"htxas {__version__}",
        "query": dict(source.query),
        "recipe": recipe.to_dict(),
        "qm9_sha256": list(qm9.sha256) if qm9 else None,
        "ids": list(got.names),
        "documents": list(got.keys),
        "arrays_sha256": {
            n: hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for n, a in arrays.items()
        },
    }
    window = recipe.window
    split = arrays["split"]
    return {
        "key": content_key(identity),
        **identity,
        "source": source.label,
        "counts": {
            "molecules": len(got.names),
            "distinct_molecules": len(set(got.groups)),
            **{side.name.lower(): int((split == side).sum()) for side in Split},
            "left_out": {reason: len(names) for reason, names in got.left_out.items()},
        },
        "left_out": got.left_out,
        "split_by": "canonical SMILES where every molecule has one, else structure",
        "method": asdict(got.method),
        "broadening_sigma_eV": got.sigma_eV,
        "elements": list(got.elements),
        "input": {
            "quantity": "mean of x, y and z polarisation of the multiplicity-weighted molecular spectrum",
            "unit": "oscillator strength / eV / atom"
            if window.scale == "absolute"
            else "1/eV (area 1 in the window)",
            "energies": f"{window.start_eV} to {window.stop_eV:.4g} eV in steps of {window.step_eV} eV, "
            + ("relative to the excitation energy" if window.align == "excitation_energy" else "absolute"),
            "alignment": f"cubic spline through the {window.step_eV} eV grid, evaluated from the exact start; "
            "zero below the first grid point, where there are no transitions",
        },
        "targets": [
            {
                "name": t,
                "unit": describe(t).unit,
                "meaning": describe(t).meaning,
                "obtained_from": got.origins[t],
            }
            for t in recipe.targets
        ],
        "ratios": [f"{a}/{b}" for a, b in RATIOS],
    }
