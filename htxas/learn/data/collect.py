"""One pass over a source: check every molecule, take its window and its targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.errors import DatasetError
from htxas.learn.data.chemistry import canonical_smiles
from htxas.learn.data.features import check_grid, window_row
from htxas.learn.data.qm9 import QM9_PREFIX, Qm9Table
from htxas.learn.data.recipe import MIN_MOLECULES, Align, Recipe, Window
from htxas.learn.data.source import Method, Source, SpectrumRecord
from htxas.learn.data.targets import describe, ratios, target_value

__all__ = ["Collected", "collect"]


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """Rows sorted by molecule name, ready to be frozen.

    Attributes
    ----------
    names, keys, groups
        Name, structure key and split group of each row.
    spectra, ratios, targets
        Shapes (n, points) and (n, 3) float32, (n, t) float64.
    method, sigma_eV
        Shared by all rows.
    elements
        All elements present, sorted.
    left_out
        Reason -> names of molecules not used.
    origins
        Target -> how -> number of molecules.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    groups: tuple[str, ...]
    spectra: npt.NDArray[np.float32]
    ratios: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float64]
    method: Method
    sigma_eV: float
    elements: tuple[str, ...]
    left_out: dict[str, list[str]]
    origins: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    name: str
    key: str
    group: str | None
    spectrum: npt.NDArray[np.float32]
    ratios: list[float]
    targets: list[float]


def collect(source: Source, recipe: Recipe, qm9: Qm9Table | None) -> Collected:
    """Read a source once.

    Raises
    ------
    DatasetError
        See :func:`htxas.learn.data.dataset.freeze`.
    """
    for name in recipe.targets:
        describe(name)
    joined = [t for t in recipe.targets if t.startswith(QM9_PREFIX)]
    if joined and qm9 is None:
        raise DatasetError(f"target {joined[0]} needs a file", hint="give dataset.qm9.properties")
    rows: list[_Row] = []
    seen: set[str] = set()
    left_out: dict[str, list[str]] = {}
    ends: dict[str, float] = {}
    origins: dict[str, Counter[str]] = {t: Counter() for t in recipe.targets}
    elements: set[str] = set()
    first: SpectrumRecord | None = None
    for record in source.records():
        where = f"molecule {record.name}"
        if record.name in seen:
            raise DatasetError("the name occurs twice", where=where)
        seen.add(record.name)
        first = first or record
        _refuse_mixed(first, record, where)
        check_grid(record.spectrum, recipe.window, where)
        end_eV = _end_eV(record, recipe.window)
        if end_eV < recipe.window.stop_eV:
            ends[record.name] = end_eV
            continue
        smiles = canonical_smiles(record.smiles, where) if record.smiles else None
        properties = qm9.lookup(record.name, smiles) if joined and qm9 else {}
        if properties is None:
            left_out.setdefault("not in the QM9 file", []).append(record.name)
            continue
        rows.append(_row(record, smiles, recipe, properties, origins))
        elements |= set(record.structure.composition)
    if ends and recipe.drop_uncovered:
        left_out["window not covered"] = list(ends)
    elif ends:
        _refuse_uncovered(ends, len(seen), recipe.window)
    _refuse_few(rows, left_out, source)
    assert first is not None
    rows.sort(key=lambda r: r.name)
    return Collected(
        names=tuple(r.name for r in rows),
        keys=tuple(r.key for r in rows),
        groups=_groups(rows),
        spectra=np.array([r.spectrum for r in rows], dtype=np.float32),
        ratios=np.array([r.ratios for r in rows], dtype=np.float32),
        targets=np.array([r.targets for r in rows], dtype=np.float64),
        method=first.method,
        sigma_eV=first.spectrum.sigma_eV,
        elements=tuple(sorted(elements)),
        left_out={reason: sorted(names) for reason, names in left_out.items()},
        origins={t: dict(c) for t, c in origins.items()},
    )


def _row(
    record: SpectrumRecord,
    smiles: str | None,
    recipe: Recipe,
    properties: Mapping[str, float],
    origins: Mapping[str, Counter[str]],
) -> _Row:
    where = f"molecule {record.name}"
    spectrum = window_row(record.spectrum, record.excitation_energy_eV, recipe.window, where=where)
    values = []
    for name in recipe.targets:
        if name.startswith(QM9_PREFIX):
            value, how = properties[name.removeprefix(QM9_PREFIX)], "QM9 file"
        else:
            value, how = target_value(name, record)
        if not np.isfinite(value):
            raise DatasetError(f"target {name} is not a finite number", where=where)
        origins[name][how] += 1
        values.append(float(value))
    composition = record.structure.composition
    return _Row(record.name, record.structure.key, smiles, spectrum, ratios(composition, where), values)


def _groups(rows: Sequence[_Row]) -> tuple[str, ...]:
    # One rule for all rows: a molecule known by SMILES in one row and by structure in another must not be split.
    if all(r.group is not None for r in rows):
        return tuple(str(r.group) for r in rows)
    return tuple(r.key for r in rows)


def _end_eV(record: SpectrumRecord, window: Window) -> float:
    """Return how far the states are complete, on the window's axis: a grid alone may go on without them."""
    offset = record.excitation_energy_eV if window.align is Align.EXCITATION_ENERGY else 0.0
    # Half a step of grace: "complete to 20 eV" covers a window that ends at 20.04.
    complete = record.complete_to_eV + 0.5 * window.step_eV
    return min(complete, float(record.spectrum.energies_eV[-1])) - offset + 1e-6


def _refuse_uncovered(ends: Mapping[str, float], total: int, window: Window) -> None:
    worst = min(ends, key=lambda name: ends[name])
    points = int((ends[worst] - window.start_eV) / window.step_eV) + 1
    raise DatasetError(
        f"{len(ends)} of {total} molecules are not complete to the window's end at {window.stop_eV:.1f} eV "
        f"({worst}: {ends[worst]:.1f} eV)",
        hint=f"window.points: {points} covers all; or drop_uncovered: true leaves them out",
    )


def _refuse_mixed(first: SpectrumRecord, record: SpectrumRecord, where: str) -> None:
    if record.method != first.method:
        raise DatasetError(
            f"is {record.method}, but {first.name} is {first.method}; one dataset, one method", where=where
        )
    pair = (record.spectrum.sigma_eV, record.spectrum.step_eV)
    if pair != (first.spectrum.sigma_eV, first.spectrum.step_eV):
        raise DatasetError(
            f"sigma {pair[0]} eV and step {pair[1]} eV differ from {first.name} "
            f"({first.spectrum.sigma_eV}, {first.spectrum.step_eV})",
            where=where,
        )


def _refuse_few(rows: Sequence[_Row], left_out: Mapping[str, Sequence[str]], source: Source) -> None:
    if len(rows) >= MIN_MOLECULES:
        return
    gone = "".join(f", {len(names)} left out ({reason})" for reason, names in left_out.items())
    raise DatasetError(
        f"{len(rows)} complete molecules{gone}; training needs at least {MIN_MOLECULES}",
        where=source.label,
        hint="compute more molecules (htxas status), or train on the reference dataset in workflows/",
    )
