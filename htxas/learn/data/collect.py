"""One pass over a source: check every molecule, take its windows, its curves and its targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from htxas.domain.spectrum import Spectrum, broaden, combine
from htxas.errors import DatasetError
from htxas.learn.data.chemistry import canonical_smiles, reduced_formula
from htxas.learn.data.curve_window import curve_row, known_eV, refuse_unknown
from htxas.learn.data.curves import pdos_row
from htxas.learn.data.features import check_grid, window_row
from htxas.learn.data.qm9 import QM9_PREFIX, Qm9Table
from htxas.learn.data.recipe import MIN_MOLECULES, Align, Recipe, Rows
from htxas.learn.data.records import Method, SiteRecord, SpectrumRecord
from htxas.learn.data.source import Source
from htxas.learn.data.targets import describe, ratios, target_value

__all__ = ["Collected", "Part", "collect", "parts"]


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """Rows sorted by name, ready to be frozen.

    Attributes
    ----------
    names, keys, groups
        Name, content key and molecule (what must not be divided between sides) of each row.
    spectra, ratios, targets
        Shapes (n, points) and (n, 3) float32, (n, t) float64. Crystals have no ratios: (n, 0).
    curves
        By name, shape (n, m) float32.
    atoms, heavy_atoms
        Of each row's molecule, shape (n,) int16.
    smiles
        Canonical SMILES of each group; None if some molecule has none.
    formulas
        Reduced formula of each group; None if some of them is a molecule.
    method, sigma_eV
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
    continuum: tuple[float, str] | None
    elements: tuple[str, ...]
    left_out: dict[str, list[str]]
    origins: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    name: str
    key: str
    smiles: str | None
    molecule: str
    spectrum: npt.NDArray[np.float32]
    ratios: list[float]
    targets: list[float]
    curves: list[npt.NDArray[np.float32]]
    atoms: int
    heavy_atoms: int
    formula: str | None  # reduced, of a crystal

    @property
    def structure(self) -> str:
        return self.molecule if self.formula is None else f"{self.formula} {self.molecule}"


@dataclass(slots=True)
class _State:
    """What one pass remembers."""

    rows: list[_Row] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    origins: dict[str, Counter[str]] = field(default_factory=dict)
    elements: set[str] = field(default_factory=set)
    grid: tuple[str, float, float] | None = None  # whose, sigma, step
    unknown: dict[str, tuple[float, float]] = field(default_factory=dict)
    continuum: tuple[str, float, str] | None = None  # whose, lifetime, scale


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A molecule, or a site of it: what becomes a row.

    Attributes
    ----------
    name, key
        ``molecule`` or ``molecule/site``, and what identifies its content.
    spectrum
        With the recipe's broadening; None of a continuum.
    excitation_energy_eV, complete_to_eV
        Where its spectrum starts (None of a continuum), and up to where its states are complete.
    site
        The site, or None of a molecule.
    """

    name: str
    key: str
    spectrum: Spectrum | None
    excitation_energy_eV: float | None
    complete_to_eV: float
    site: SiteRecord | None

    @property
    def where(self) -> str:
        """What errors call it."""
        return f"{'molecule' if self.site is None else 'site'} {self.name}"


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
    state = _State(origins={t: Counter() for t in recipe.targets})
    first: SpectrumRecord | None = None
    for record in source.records(recipe):
        where = f"molecule {record.name}"
        if record.name in state.seen:
            raise DatasetError("the name occurs twice", where=where)
        state.seen.add(record.name)
        first = first or record
        if record.method != first.method:
            raise DatasetError(
                f"is {record.method}, but {first.name} is {first.method}; one dataset, one method",
                where=where,
            )
        smiles = canonical_smiles(record.smiles, where) if record.smiles else None
        properties = qm9.lookup(record.name, smiles) if joined and qm9 else {}
        if properties is None:
            state.left_out.setdefault("not in the QM9 file", []).append(record.name)
            continue
        if record.missing:
            state.left_out.setdefault("not computed", []).extend(f"{record.name}/{m}" for m in record.missing)
        for part in parts(record, recipe, where):
            _take(state, record, part, recipe, smiles, properties)
    rows = state.rows
    if (state.ends or state.unknown) and recipe.drop_uncovered:
        state.left_out["window not covered"] = [*state.ends, *state.unknown]
    elif state.unknown:
        refuse_unknown(state.unknown, len(rows) + len(state.unknown), recipe.window)
    elif state.ends:
        _refuse_uncovered(state.ends, len(rows) + len(state.ends), recipe)
    _refuse_few(rows, state.left_out, source)
    assert first is not None
    rows.sort(key=lambda r: r.name)
    known = all(r.smiles is not None for r in rows)
    # One rule for all rows: a molecule known by SMILES in one row and by structure in another must not be split.
    groups = tuple(str(r.smiles) if known else r.structure for r in rows)
    formulas = _formulas(rows, groups)
    return Collected(
        names=tuple(r.name for r in rows),
        keys=tuple(r.key for r in rows),
        groups=groups,
        spectra=np.array([r.spectrum for r in rows], dtype=np.float32),
        ratios=np.array([r.ratios for r in rows], dtype=np.float32).reshape(len(rows), -1),
        targets=np.array([r.targets for r in rows], dtype=np.float64).reshape(len(rows), -1),
        curves={
            c.name: np.array([r.curves[i] for r in rows], dtype=np.float32)
            for i, c in enumerate(recipe.curves)
        },
        atoms=np.array([r.atoms for r in rows], dtype=np.int16),
        heavy_atoms=np.array([r.heavy_atoms for r in rows], dtype=np.int16),
        smiles={g: g for g in groups} if known else None,
        formulas=formulas,
        method=first.method,
        sigma_eV=(recipe.sigma_eV or 0.0) if state.grid is None else state.grid[1],
        continuum=None if state.continuum is None else state.continuum[1:],
        elements=tuple(sorted(state.elements)),
        left_out={reason: sorted(names) for reason, names in state.left_out.items()},
        origins={t: dict(c) for t, c in state.origins.items()},
    )


def parts(record: SpectrumRecord, recipe: Recipe, where: str) -> Iterator[Part]:
    """Yield what of a molecule becomes rows.

    Raises
    ------
    DatasetError
        If it lacks what the recipe asks for.
    """
    if recipe.rows is Rows.SITE:
        if not record.sites and not record.missing:
            raise DatasetError("has no sites of its own here", where=where, hint="rows: molecule")
        for site in record.sites:
            name = f"{record.name}/{site.name}"
            spectrum = None if site.continuum else _of_site(site, recipe, f"site {name}")
            yield Part(name, site.key, spectrum, site.excitation_energy_eV, site.complete_to_eV, site)
        return
    spectrum = record.spectrum
    if recipe.sigma_eV is not None:
        if not record.sites:
            raise DatasetError("has no sites to be broadened anew", where=where, hint="leave sigma_eV out")
        broadened = [_of_site(s, recipe, where) for s in record.sites]
        spectrum = combine(broadened, [s.multiplicity for s in record.sites])
    if spectrum is None:
        raise DatasetError("has no molecular spectrum here", where=where, hint="rows: site")
    yield Part(record.name, record.key, spectrum, record.excitation_energy_eV, record.complete_to_eV, None)


def _of_site(site: SiteRecord, recipe: Recipe, where: str) -> Spectrum:
    """Return the spectrum of a site with the recipe's broadening, or as it is stored."""
    sigma_eV = 0.5 if recipe.sigma_eV is None else recipe.sigma_eV
    if site.sticks is not None:
        return broaden(site.sticks, sigma_eV=sigma_eV, step_eV=recipe.window.step_eV)
    if site.spectrum is None:
        raise DatasetError("has neither transitions nor a spectrum", where=where)
    if recipe.sigma_eV not in (None, site.spectrum.sigma_eV):
        raise DatasetError(
            f"is broadened by {site.spectrum.sigma_eV} eV and its transitions are not known",
            where=where,
            hint="leave sigma_eV out",
        )
    return site.spectrum


def _take(
    state: _State,
    record: SpectrumRecord,
    part: Part,
    recipe: Recipe,
    smiles: str | None,
    properties: Mapping[str, float],
) -> None:
    """Make a row of a part, or note why not."""
    where = part.where
    continuous = part.site is not None and part.site.continuum is not None
    values = (_of_continuum if continuous else _of_transitions)(state, part, recipe)
    if values is None:
        return
    crystal = record.structure is not None and record.structure.is_periodic
    composition = record.composition
    state.rows.append(
        _Row(
            name=part.name,
            key=part.key,
            smiles=smiles,
            molecule=record.key,
            spectrum=values,
            ratios=[] if crystal else ratios(composition, where),
            targets=_targets(state, record, part, recipe, properties, where),
            curves=[pdos_row(record, _absorbers(record, part), c, where) for c in recipe.curves],
            atoms=sum(composition.values()),
            heavy_atoms=sum(n for e, n in composition.items() if e != "H"),
            formula=reduced_formula(composition) if crystal else None,
        )
    )
    state.elements |= set(composition)


def _of_transitions(state: _State, part: Part, recipe: Recipe) -> npt.NDArray[np.float32] | None:
    """Return the window of a spectrum of transitions, or note where it ends."""
    where, spectrum, start_eV = part.where, part.spectrum, part.excitation_energy_eV
    if recipe.window.align is Align.EDGE:
        raise DatasetError(
            "has an excitation energy and no threshold", where=where, hint="window.align: excitation_energy"
        )
    assert spectrum is not None
    assert start_eV is not None
    sigma_eV, step_eV = spectrum.sigma_eV, spectrum.step_eV
    state.grid = state.grid or (part.name, sigma_eV, step_eV)
    whose, *pair = state.grid
    if [sigma_eV, step_eV] != pair:
        raise DatasetError(
            f"sigma {sigma_eV} eV and step {step_eV} eV differ from {whose} ({pair[0]}, {pair[1]})",
            where=where,
        )
    check_grid(spectrum, recipe.window, where)
    offset_eV = start_eV if recipe.window.align is Align.EXCITATION_ENERGY else 0.0
    # Half a step of grace: "complete to 20 eV" covers a window that ends at 20.04.
    complete_eV = part.complete_to_eV + 0.5 * step_eV
    # How far the states are complete, on the window's axis: a grid alone may go on without them.
    end_eV = min(complete_eV, float(spectrum.energies_eV[-1])) - offset_eV + 1e-6
    if end_eV < recipe.window.stop_eV:
        state.ends[part.name] = end_eV
        return None
    return window_row(spectrum, start_eV, recipe.window, where=where)


def _of_continuum(state: _State, part: Part, recipe: Recipe) -> npt.NDArray[np.float32] | None:
    """Return the window of a continuous spectrum, or note where it is known."""
    assert part.site is not None
    assert part.site.continuum is not None
    continuum = part.site.continuum
    state.continuum = state.continuum or (part.name, continuum.lifetime_eV, continuum.scale)
    whose, *pair = state.continuum
    if [continuum.lifetime_eV, continuum.scale] != pair:
        raise DatasetError(
            f"lifetime {continuum.lifetime_eV} eV, {continuum.scale}: differs from {whose} ({pair[0]} eV, {pair[1]})",
            where=part.where,
        )
    values = curve_row(continuum, recipe, part.where)
    if values is None:
        state.unknown[part.name] = known_eV(continuum, recipe)
    return values


def _formulas(rows: Sequence[_Row], groups: Sequence[str]) -> dict[str, str] | None:
    """Return the reduced formula of each group, None of molecules."""
    crystals = [r.formula is not None for r in rows]
    if any(crystals) and not all(crystals):
        one, other = (
            next(r.name for r, c in zip(rows, crystals, strict=True) if c is is_one)
            for is_one in (True, False)
        )
        raise DatasetError(f"{one} is a crystal and {other} a molecule; one dataset holds one kind")
    return {g: str(r.formula) for g, r in zip(groups, rows, strict=True)} if all(crystals) else None


def _absorbers(record: SpectrumRecord, part: Part) -> list[int]:
    if part.site is not None:
        return list(part.site.atoms)
    return sorted(a for s in record.sites for a in s.atoms)


def _targets(
    state: _State,
    record: SpectrumRecord,
    part: Part,
    recipe: Recipe,
    properties: Mapping[str, float],
    where: str,
) -> list[float]:
    values = []
    for name in recipe.targets:
        if name.startswith(QM9_PREFIX):
            value, how = properties[name.removeprefix(QM9_PREFIX)], "QM9 file"
        else:
            value, how = target_value(name, record, part.site)
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


def _refuse_few(rows: Sequence[_Row], left_out: Mapping[str, Sequence[str]], source: Source) -> None:
    if len(rows) >= MIN_MOLECULES:
        return
    gone = "".join(f", {len(names)} left out ({reason})" for reason, names in left_out.items())
    raise DatasetError(
        f"{len(rows)} complete molecules{gone}; training needs at least {MIN_MOLECULES}",
        where=source.label,
        hint="compute more molecules (htxas status), or train on the reference dataset in workflows/",
    )
