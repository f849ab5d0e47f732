"""The frozen dataset: memory-mapped arrays beside one card; its name is its content hash.

A folder holds, for n rows (molecules or sites):

``spectra.npy`` (n, points) float32, ``ratios.npy`` (n, 3) float32 (of crystals (n, 0)), ``targets.npy`` (n, t) float64
(total energies need the digits), ``curve-NAME.npy`` (n, m) float32, ``splits.npy`` (n, s) int8, ``sizes.npy`` (n, 2)
int16 (atoms, heavy atoms), ``rows.npy`` (n, 3) bytes (name, content key, molecule; UTF-8), and ``card.json``. It is
written beside its final place and renamed: a folder that exists is whole.
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
from htxas.learn.data.curves import describe_curve
from htxas.learn.data.qm9 import Qm9Table
from htxas.learn.data.recipe import Recipe, Rows
from htxas.learn.data.source import Source
from htxas.learn.data.split import Split, frozen_splits
from htxas.learn.data.targets import RATIOS, describe
from htxas.learn.data.wording import describe_input

__all__ = ["CARD", "Dataset", "freeze", "load"]

CARD = "card.json"
_SCHEMA = 2
_ROWS = ("name", "key", "molecule")


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
        N/C, O/C, F/C, shape (n, 3), float32, memory-mapped; (n, 0) of crystals, and where the source does not tell
        compositions.
    targets
        Shape (n, t), float64, memory-mapped; columns as in ``card["targets"]``.
    curves
        Curves by name, shape (n, m), float32, memory-mapped; grids as in ``card["curves"]``.
    splits
        :class:`htxas.learn.data.split.Split` of every row by name of the split, shape (n,), int8.
    atoms, heavy_atoms
        Of each row's molecule, shape (n,), int16; -1 where the source does not tell compositions.
    """

    path: Path
    card: dict[str, Any]
    spectra: npt.NDArray[np.float32]
    ratios: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float64]
    curves: dict[str, npt.NDArray[np.float32]]
    splits: dict[str, npt.NDArray[np.int8]]
    atoms: npt.NDArray[np.int16]
    heavy_atoms: npt.NDArray[np.int16]
    _rows: npt.NDArray[np.bytes_]

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
        """Names of molecules, or ``molecule/atom`` of sites, in row order."""
        return self._column("name")

    @property
    def documents(self) -> list[str]:
        """Content keys of the rows: of a structure, or of a site's calculation."""
        return self._column("key")

    @property
    def groups(self) -> list[str]:
        """Molecule of each row: canonical SMILES, or the key of its structure, after the formula of a crystal."""
        return self._column("molecule")

    def _column(self, name: str) -> list[str]:
        return [v.decode() for v in self._rows[:, _ROWS.index(name)].tolist()]

    def __len__(self) -> int:
        return len(self.spectra)

    def rows(self, side: Split, by: str = "molecule") -> npt.NDArray[np.intp]:
        """Return the row numbers of one side of a frozen split.

        Raises
        ------
        DatasetError
            If the dataset has no such split.
        """
        if by not in self.splits:
            why = self.card["splits"]["lacking"].get(by)
            raise DatasetError(
                f"the dataset has no split {by!r}"
                + (f": {why}" if why else f", only {' '.join(self.splits)}"),
                where=str(self.path),
            )
        return np.flatnonzero(self.splits[by] == side)

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
                f"the dataset has no target {name!r}, only {' '.join(names) or 'curves'}",
                where=str(self.path),
            )
        return np.asarray(self.targets[:, names.index(name)])

    def curve(self, name: str) -> npt.NDArray[np.float32]:
        """Return a curve, shape (n, m).

        Raises
        ------
        DatasetError
            If the dataset has no such curve.
        """
        if name not in self.curves:
            raise DatasetError(
                f"the dataset has no curve {name!r}, only {' '.join(self.curves) or 'targets'}",
                where=str(self.path),
            )
        return self.curves[name]


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
    splits, lacking = frozen_splits(
        got.groups,
        got.heavy_atoms.tolist() if got.ratios.shape[1] else None,
        got.smiles,
        formulas=got.formulas,
        sites=got.names if recipe.rows is Rows.SITE else None,
        validation=recipe.validation,
        test=recipe.test,
        seed=recipe.seed,
    )
    rows = np.array([[v.encode() for v in row] for row in zip(got.names, got.keys, got.groups, strict=True)])
    arrays: dict[str, npt.NDArray[Any]] = {
        "spectra": got.spectra,
        "ratios": got.ratios,
        "targets": got.targets,
        **{f"curve-{name}": values for name, values in got.curves.items()},
        "splits": np.column_stack(list(splits.values())),
        "sizes": np.column_stack([got.atoms, got.heavy_atoms]),
        "rows": rows,
    }
    card = _card(source, recipe, qm9, got, arrays, list(splits), lacking)
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
        if card.get("schema") != _SCHEMA:
            raise DatasetError(
                f"dataset schema {card.get('schema')}, expected {_SCHEMA}",
                where=str(path),
                hint="freeze it again",
            )
        wanted = {name: (tuple(shape), dtype) for name, (shape, dtype) in card["arrays"].items()}
        arrays = {n: np.load(path / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in wanted}
        for name, (shape, dtype) in wanted.items():
            if arrays[name].shape != shape or str(arrays[name].dtype) != dtype:
                raise DatasetError(
                    f"{name}.npy has shape {arrays[name].shape}, the card says {shape}", where=str(path)
                )
        names = card["splits"]["names"]
        return Dataset(
            path,
            card,
            arrays["spectra"],
            arrays["ratios"],
            arrays["targets"],
            {c: arrays[f"curve-{c}"] for c in card["curves"]},
            {name: arrays["splits"][:, i] for i, name in enumerate(names)},
            arrays["sizes"][:, 0],
            arrays["sizes"][:, 1],
            arrays["rows"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError("this is not a frozen dataset", where=str(path)) from error


def _card(
    source: Source,
    recipe: Recipe,
    qm9: Qm9Table | None,
    got: Collected,
    arrays: dict[str, npt.NDArray[Any]],
    splits: list[str],
    lacking: dict[str, str],
) -> dict[str, Any]:
    identity = {
        "schema": _SCHEMA,
        "code": f"htxas {__version__}",
        "query": dict(source.query),
        "recipe": recipe.to_dict(),
        "qm9_sha256": list(qm9.sha256) if qm9 else None,
        "arrays_sha256": {
            n: hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for n, a in arrays.items()
        },
    }
    sides = arrays["splits"]
    return {
        "key": content_key(identity),
        **identity,
        "source": source.label,
        "arrays": {n: [list(a.shape), str(a.dtype)] for n, a in arrays.items()},
        "counts": {
            "rows": len(got.names),
            "molecules": len(set(got.groups)),
            **{side.name.lower(): int((sides[:, 0] == side).sum()) for side in Split},
            "left_out": {reason: len(names) for reason, names in got.left_out.items()},
        },
        "left_out": got.left_out,
        "splits": {
            "names": splits,
            "counts": {
                name: {side.name.lower(): int((sides[:, i] == side).sum()) for side in Split}
                for i, name in enumerate(splits)
            },
            "lacking": lacking,
            "of": "molecules: canonical SMILES where every one has one, else structures, a crystal being one"
            + ("; row divides them, to show what that hides" if "row" in splits else ""),
        },
        "method": asdict(got.method),
        "broadening_sigma_eV": got.sigma_eV,
        "elements": list(got.elements),
        "input": describe_input(recipe, got.quantity, got.continuum),
        "targets": [
            {
                "name": t,
                "unit": describe(t).unit,
                "meaning": describe(t).meaning,
                "obtained_from": got.origins[t],
            }
            for t in recipe.targets
        ],
        "curves": {c.name: describe_curve(c) for c in recipe.curves},
        "ratios": [f"{a}/{b}" for a, b in RATIOS] if got.ratios.shape[1] else [],
    }
