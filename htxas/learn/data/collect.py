"""One pass over a source: check every molecule, take its windows, its curves and its targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from htxas.domain.spectrum import Quantity
from htxas.errors import DatasetError
from htxas.learn.data.chemistry import canonical_smiles
from htxas.learn.data.curves import pdos_row
from htxas.learn.data.features import check_grid, window_row
from htxas.learn.data.parts import Part, end_eV_of, parts_of
from htxas.learn.data.qm9 import QM9_PREFIX, Qm9Table
from htxas.learn.data.recipe import MIN_MOLECULES, Recipe
from htxas.learn.data.records import LeftOut, Method, SpectrumRecord
from htxas.learn.data.rows import RowTable
from htxas.learn.data.source import Source
from htxas.learn.data.targets import OF_SITES, describe, ratios, target_value

__all__ = ["Collected", "collect"]


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """Rows sorted by name, ready to be frozen.

    Attributes
    ----------
    names, keys, groups
        Name, content key and molecule (what must not be divided between sides) of each row.
    spectra, ratios, targets
        Shapes (n, points) and (n, 3) float32, (n, t) float64; ratios of shape (n, 0) where the source does not tell
        compositions.
    curves
        By name, shape (n, m) float32.
    atoms, heavy_atoms
        Of each row's molecule, shape (n,) int16; -1 where the source does not tell compositions.
    smiles
        Canonical SMILES of each group; None if some molecule has none.
    method, sigma_eV, quantity
        Shared by all rows.
    elements
        All elements present, sorted.
    left_out
        Reason -> names of molecules (or sites) not used.
    origins
        Target -> how -> number of rows.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]
    groups: tuple[str, ...]
    spectra: npt.NDArray[np.float32]
    ratios: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float64]
    curves: dict[str, npt.NDArray[np.float32]]
    atoms: npt.NDArray[np.int16]
    heavy_atoms: npt.NDArray[np.int16]
    smiles: dict[str, str] | None
    method: Method
    sigma_eV: float
    quantity: Quantity
    elements: tuple[str, ...]
    left_out: dict[str, list[str]]
    origins: dict[str, dict[str, int]]


@dataclass(slots=True, eq=False)
class _State:
    """What one pass remembers: rows in the source's order, numbers in tables, and what is to be told at the end."""

    spectra: RowTable
    ratios: RowTable
    targets: RowTable
    sizes: RowTable
    curves: tuple[RowTable, ...]
    names: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    molecules: list[_Molecule] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    origins: dict[str, Counter[str]] = field(default_factory=dict)
    elements: set[str] = field(default_factory=set)
    grid: tuple[str, float, float, Quantity] | None = None  # whose, sigma, step, of what

    @classmethod
    def of(cls, recipe: Recipe) -> _State:
        return cls(
            RowTable(np.float32),
            RowTable(np.float32),
            RowTable(np.float64),
            RowTable(np.int16),
            tuple(RowTable(np.float32) for _ in recipe.curves),
            origins={t: Counter() for t in recipe.targets},
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Molecule:
    """What identifies the molecule of a row."""

    key: str
    smiles: str | None


class _Whole:
    """What all rows of a molecule share, found when the first of them is taken."""

    def __init__(self, record: SpectrumRecord, recipe: Recipe, properties: Mapping[str, float]) -> None:
        self.record = record
        self.where = f"molecule {record.name}"
        self._recipe = recipe
        self._properties = properties

    @cached_property
    def sizes(self) -> list[int]:
        """Atoms and heavy atoms."""
        counts = self.record.composition
        if counts is None:
            return [-1, -1]
        return [sum(counts.values()), sum(n for e, n in counts.items() if e != "H")]

    @cached_property
    def ratios(self) -> list[float]:
        """Ratios to carbon; none without a composition."""
        return [] if self.record.composition is None else ratios(self.record.composition, self.where)

    @cached_property
    def targets(self) -> dict[str, tuple[float, str]]:
        """Targets of the molecule and how they were obtained."""
        found = {}
        for name in self._recipe.targets:
            if name.startswith(QM9_PREFIX):
                found[name] = self._properties[name.removeprefix(QM9_PREFIX)], "QM9 file"
            elif name not in OF_SITES:
                found[name] = target_value(name, self.record)
        return found


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
    state = _State.of(recipe)
    first: SpectrumRecord | None = None
    for record in source.records(recipe):
        where = f"molecule {record.name}"
        if record.name in state.seen:
            raise DatasetError("the name occurs twice", where=where)
        state.seen.add(record.name)
        if isinstance(record, LeftOut):
            state.left_out.setdefault(record.reason, []).append(record.name)
            continue
        first = first or record
        _check_alike(record, first, where)
        smiles = canonical_smiles(record.smiles, where) if record.smiles else None
        properties = qm9.lookup(record.name, smiles) if joined and qm9 else {}
        if properties is None:
            state.left_out.setdefault("not in the QM9 file", []).append(record.name)
            continue
        whole = _Whole(record, recipe, properties)
        molecule = _Molecule(record.key, smiles)
        for part in parts_of(record, recipe, where):
            _take(state, whole, molecule, part, recipe)
    if state.ends and recipe.drop_uncovered:
        state.left_out["window not covered"] = list(state.ends)
    elif state.ends:
        _refuse_uncovered(state.ends, len(state.names) + len(state.ends), recipe)
    return _collected(state, first, recipe, source)


def _check_alike(record: SpectrumRecord, first: SpectrumRecord, where: str) -> None:
    if record.method != first.method:
        raise DatasetError(
            f"is {record.method}, but {first.name} is {first.method}; one dataset, one method", where=where
        )
    if (record.composition is None) != (first.composition is None):
        raise DatasetError(
            f"the composition of one is known and that of the other is not: {record.name}, {first.name}",
            where=where,
            hint="name a file of gdb_id, smiles in the recipe: qm9: {molecules: FILE}",
        )


def _collected(state: _State, first: SpectrumRecord | None, recipe: Recipe, source: Source) -> Collected:
    known = all(m.smiles is not None for m in state.molecules)
    # One rule for all rows: a molecule known by SMILES in one row and by structure in another must not be split.
    groups = [str(m.smiles) if known else m.key for m in state.molecules]
    _refuse_few(len(set(groups)), state.left_out, source)
    assert first is not None
    assert state.grid is not None
    order = sorted(range(len(groups)), key=state.names.__getitem__)
    sizes = state.sizes.taken(order)
    _, sigma_eV, _, quantity = state.grid
    return Collected(
        names=tuple(state.names[i] for i in order),
        keys=tuple(state.keys[i] for i in order),
        groups=tuple(groups[i] for i in order),
        spectra=state.spectra.taken(order),
        ratios=state.ratios.taken(order),
        targets=state.targets.taken(order),
        curves={c.name: t.taken(order) for c, t in zip(recipe.curves, state.curves, strict=True)},
        atoms=sizes[:, 0],
        heavy_atoms=sizes[:, 1],
        smiles={g: g for g in groups} if known else None,
        method=first.method,
        sigma_eV=sigma_eV,
        quantity=quantity,
        elements=tuple(sorted(state.elements)),
        left_out={reason: sorted(names) for reason, names in state.left_out.items()},
        origins={t: dict(c) for t, c in state.origins.items()},
    )


def _take(state: _State, whole: _Whole, molecule: _Molecule, part: Part, recipe: Recipe) -> None:
    """Make a row of a part, or note why not."""
    record, spectrum = whole.record, part.spectrum
    where = f"{'molecule' if part.site is None else 'site'} {part.name}"
    state.grid = state.grid or (part.name, spectrum.sigma_eV, spectrum.step_eV, spectrum.quantity)
    whose, sigma_eV, step_eV, quantity = state.grid
    if (spectrum.sigma_eV, spectrum.step_eV) != (sigma_eV, step_eV):
        raise DatasetError(
            f"sigma {spectrum.sigma_eV} eV and step {spectrum.step_eV} eV differ from {whose} ({sigma_eV}, {step_eV})",
            where=where,
        )
    if spectrum.quantity is not quantity:
        raise DatasetError(f"is in {spectrum.quantity}, but {whose} in {quantity}", where=where)
    check_grid(spectrum, recipe.window, where)
    end_eV = end_eV_of(part, recipe.window)
    if end_eV < recipe.window.stop_eV:
        state.ends[part.name] = end_eV
        return
    state.spectra.add(
        window_row(spectrum, part.excitation_energy_eV, recipe.window, where=where, zero_eV=part.zero_eV)
    )
    state.ratios.add(whole.ratios)
    state.targets.add(_targets(state, whole, part, recipe, where))
    state.sizes.add(whole.sizes)
    for table, curve in zip(state.curves, recipe.curves, strict=True):
        table.add(pdos_row(record, _absorbers(record, part), curve, where))
    state.names.append(part.name)
    state.keys.append(part.key)
    state.molecules.append(molecule)
    state.elements.update(record.composition or ())


def _absorbers(record: SpectrumRecord, part: Part) -> list[int]:
    if part.site is not None:
        return list(part.site.atoms)
    return sorted(a for s in record.sites for a in s.atoms)


def _targets(state: _State, whole: _Whole, part: Part, recipe: Recipe, where: str) -> list[float]:
    values = []
    for name in recipe.targets:
        value, how = whole.targets.get(name) or target_value(name, whole.record, part.site)
        if not np.isfinite(value):
            raise DatasetError(f"target {name} is not a finite number", where=where)
        state.origins[name][how] += 1
        values.append(float(value))
    return values


def _refuse_uncovered(ends: Mapping[str, float], total: int, recipe: Recipe) -> None:
    window, what = recipe.window, f"{recipe.rows.value}s"
    worst = min(ends, key=lambda name: ends[name])
    points = int((ends[worst] - window.start_eV) / window.step_eV) + 1
    raise DatasetError(
        f"{len(ends)} of {total} {what} are not complete to the window's end at {window.stop_eV:.1f} eV "
        f"({worst}: {ends[worst]:.1f} eV)",
        hint=f"window.points: {points} covers all; or drop_uncovered: true leaves them out",
    )


def _refuse_few(molecules: int, left_out: Mapping[str, Sequence[str]], source: Source) -> None:
    if molecules >= MIN_MOLECULES:
        return
    gone = "".join(f", {len(names)} left out ({reason})" for reason, names in left_out.items())
    raise DatasetError(
        f"{molecules} complete molecules{gone}; training needs at least {MIN_MOLECULES}",
        where=source.label,
        hint="compute more molecules (htxas status), or train on the reference dataset in workflows/",
    )
