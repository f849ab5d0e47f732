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
from htxas.learn.data.chemistry import canonical_smiles, reduced_formula
from htxas.learn.data.curves import pdos_row
from htxas.learn.data.parts import Part, parts_of
from htxas.learn.data.qm9 import QM9_PREFIX, Qm9Table
from htxas.learn.data.recipe import MIN_MOLECULES, Recipe
from htxas.learn.data.records import LeftOut, Method, SpectrumRecord
from htxas.learn.data.rows import RowTable
from htxas.learn.data.source import Source
from htxas.learn.data.targets import OF_SITES, describe, ratios, target_value
from htxas.learn.data.together import Molecule, bond_graph, together
from htxas.learn.data.windows import Windows

__all__ = ["Collected", "collect"]


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """Rows sorted by name, ready to be frozen.

    Attributes
    ----------
    names, keys, groups
        Name, content key and molecule (what must not be divided between sides) of each row.
    spectra, ratios, targets
        Shapes (n, points) and (n, 3) float32, (n, t) float64; ratios of shape (n, 0) of crystals, and where the source
        does not tell compositions.
    curves
        By name, shape (n, m) float32.
    atoms, heavy_atoms
        Of each row's molecule, shape (n,) int16; -1 where the source does not tell compositions.
    smiles
        Canonical SMILES of each group, of one of its molecules; None if some group has none.
    formulas
        Reduced formula of each group; None of molecules.
    method, sigma_eV, quantity
        Shared by all rows. Sigma is 0 where a continuous spectrum is not broadened further.
    continuum
        Of continuous spectra: their common lifetime (eV) and scale of energies; else None.
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
    formulas: dict[str, str] | None
    method: Method
    sigma_eV: float
    quantity: Quantity
    continuum: tuple[float, str] | None
    elements: tuple[str, ...]
    left_out: dict[str, list[str]]
    origins: dict[str, dict[str, int]]


@dataclass(slots=True, eq=False)
class _State:
    """What one pass remembers: rows in the source's order, numbers in tables, and what is to be told at the end."""

    windows: Windows
    spectra: RowTable
    ratios: RowTable
    targets: RowTable
    sizes: RowTable
    curves: tuple[RowTable, ...]
    names: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    molecules: list[Molecule] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    origins: dict[str, Counter[str]] = field(default_factory=dict)
    elements: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, recipe: Recipe) -> _State:
        return cls(
            Windows(recipe),
            RowTable(np.float32),
            RowTable(np.float32),
            RowTable(np.float64),
            RowTable(np.int16),
            tuple(RowTable(np.float32) for _ in recipe.curves),
            origins={t: Counter() for t in recipe.targets},
        )


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
        """Ratios to carbon; none of crystals, and none without a composition."""
        if self.record.is_crystal or self.record.composition is None:
            return []
        return ratios(self.record.composition, self.where)

    @cached_property
    def formula(self) -> str | None:
        """Reduced formula of a crystal."""
        counts = self.record.composition
        return reduced_formula(counts) if self.record.is_crystal and counts is not None else None

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
        if not isinstance(record, LeftOut):
            first = first or record
            _check_alike(record, first, where)
        if record.name in state.seen:
            raise DatasetError("the name occurs twice", where=where)
        state.seen.add(record.name)
        if isinstance(record, LeftOut):
            state.left_out.setdefault(record.reason, []).append(record.name)
            continue
        smiles = canonical_smiles(record.smiles, where) if record.smiles else None
        properties = qm9.lookup(record.name, smiles) if joined and qm9 else {}
        if properties is None:
            state.left_out.setdefault("not in the QM9 file", []).append(record.name)
            continue
        whole = _Whole(record, recipe, properties)
        graph = bond_graph(record.structure) if _without_smiles(record) and record.structure else None
        molecule = Molecule(record.key, smiles, whole.formula, graph)
        if record.missing:
            state.left_out.setdefault("not computed", []).extend(f"{record.name}/{m}" for m in record.missing)
        for part in parts_of(record, recipe, where):
            _take(state, whole, molecule, part, recipe)
    if uncovered := state.windows.left_out(len(state.names)):
        state.left_out["window not covered"] = uncovered
    return _collected(state, first, recipe, source)


def _without_smiles(record: SpectrumRecord) -> bool:
    return record.smiles is None and not record.is_crystal


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

    if record.is_crystal != first.is_crystal:
        kinds = ("crystal", "molecule") if record.is_crystal else ("molecule", "crystal")
        raise DatasetError(
            f"is a {kinds[0]}, but {first.name} is a {kinds[1]}; one dataset holds one kind", where=where
        )


def _collected(state: _State, first: SpectrumRecord | None, recipe: Recipe, source: Source) -> Collected:
    groups = together(state.molecules)
    smiles = {g: m.smiles for g, m in zip(groups, state.molecules, strict=True) if m.smiles is not None}
    _refuse_few(len(set(groups)), state.left_out, source)
    assert first is not None
    order = sorted(range(len(groups)), key=state.names.__getitem__)
    sizes = state.sizes.taken(order)
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
        smiles=smiles if len(smiles) == len(set(groups)) else None,
        formulas=_formulas(state.molecules, groups),
        method=first.method,
        sigma_eV=state.windows.sigma_eV,
        quantity=state.windows.quantity,
        continuum=state.windows.continuum,
        elements=tuple(sorted(state.elements)),
        left_out={reason: sorted(names) for reason, names in state.left_out.items()},
        origins={t: dict(c) for t, c in state.origins.items()},
    )


def _formulas(molecules: Sequence[Molecule], groups: Sequence[str]) -> dict[str, str] | None:
    """Return the reduced formula of each group of crystals."""
    found = {g: m.formula for g, m in zip(groups, molecules, strict=True) if m.formula is not None}
    return found or None


def _take(state: _State, whole: _Whole, molecule: Molecule, part: Part, recipe: Recipe) -> None:
    """Make a row of a part, or note why not."""
    record = whole.record
    where = f"{'molecule' if part.site is None else 'site'} {part.name}"
    values = state.windows.row(part)
    if values is None:
        return
    state.spectra.add(values)
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


def _refuse_few(molecules: int, left_out: Mapping[str, Sequence[str]], source: Source) -> None:
    if molecules >= MIN_MOLECULES:
        return
    gone = "".join(f", {len(names)} left out ({reason})" for reason, names in left_out.items())
    raise DatasetError(
        f"{molecules} complete molecules{gone}; training needs at least {MIN_MOLECULES}",
        where=source.label,
        hint="compute more molecules (htxas status), or train on the reference dataset in workflows/",
    )
