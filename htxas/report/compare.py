"""The same sites by several campaigns: where their spectra begin, how they differ, how alike they look, what they cost.

Absolute energies are each engine's own. What is compared apart from them:

shift
    Onset of a site minus the campaign's mean onset over the sites that all campaigns have: differences between sites,
    free of each engine's zero.
similarity
    Cosine of two total spectra, ``<a, b> / (|a| |b|)``, on the energies from 2 eV below to 15 eV above the onset of
    the first campaign's, the other spectrum moved by whatever shift between -3 and +3 eV about equal onsets makes it
    greatest. The shift is told; both are broadened with the same Gaussian on top of what is in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from htxas.domain.calculation import State
from htxas.domain.spectrum import Spectrum
from htxas.errors import UserError
from htxas.report.results import Results
from htxas.store.records import MoleculeRecord, SiteRef

__all__ = ["Compared", "Entry", "Row", "compare", "similarity"]

FloatArray = npt.NDArray[np.float64]
_BELOW_EV, _ABOVE_EV = 2.0, 15.0
_SHIFTS_EV = 3.0
_STEP_EV = 0.1


@dataclass(frozen=True, slots=True)
class Entry:
    """A site in one campaign.

    Attributes
    ----------
    onset_eV
        Where its spectrum begins: first final state or threshold.
    wall_s
        Seconds its last attempt took; None if nobody knows.
    similarity, moved_eV
        With the first campaign's spectrum, and by how much this one was moved for it; None for the first itself.
    another_geometry
        Whether its structure is not the first campaign's.
    """

    onset_eV: float
    wall_s: float | None
    similarity: float | None = None
    moved_eV: float | None = None
    another_geometry: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A site that all campaigns have: its molecule, absorber in the file, and one entry per campaign, in order."""

    molecule: str
    site: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """What was found.

    Attributes
    ----------
    campaigns, engines
        Names, in the order given, and the engine of each.
    rows
        Sites that all have.
    missing
        How many sites of the first campaign at least one other has not, or not yet.
    """

    campaigns: tuple[str, ...]
    engines: tuple[str, ...]
    rows: tuple[Row, ...]
    missing: int

    def onsets_eV(self) -> FloatArray:
        """Return the onsets, shape (sites, campaigns)."""
        return np.array([[e.onset_eV for e in row.entries] for row in self.rows])

    def shifts_eV(self) -> FloatArray:
        """Return the onsets from the mean of each campaign, shape (sites, campaigns)."""
        onsets = self.onsets_eV()
        return np.asarray(onsets - onsets.mean(axis=0))

    def summary(self) -> list[dict[str, Any]]:
        """Return for each campaign: offset and spread against the first, similarity, seconds."""
        onsets, shifts = self.onsets_eV(), self.shifts_eV()
        told = []
        for i, (campaign, engine) in enumerate(zip(self.campaigns, self.engines, strict=True)):
            entries = [row.entries[i] for row in self.rows]
            alike = [e.similarity for e in entries if e.similarity is not None]
            seconds = [e.wall_s for e in entries if e.wall_s is not None]
            differences = shifts[:, i] - shifts[:, 0]
            told.append(
                {
                    "campaign": campaign,
                    "engine": engine,
                    "sites": len(entries),
                    "offset_eV": float((onsets[:, i] - onsets[:, 0]).mean()),
                    "shift_rms_eV": float(np.sqrt((differences**2).mean())),
                    "shift_worst_eV": float(np.abs(differences).max()),
                    "shift_correlation": _correlation(shifts[:, i], shifts[:, 0]),
                    "similarity_median": float(np.median(alike)) if alike else None,
                    "seconds_median": float(np.median(seconds)) if seconds else None,
                }
            )
        return told


def _correlation(a: FloatArray, b: FloatArray) -> float | None:
    if len(a) < 3 or a.std() < 1e-9 or b.std() < 1e-9:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def similarity(
    first: Spectrum, first_onset_eV: float, other: Spectrum, other_onset_eV: float
) -> tuple[float, float]:
    """Return the similarity of two spectra and by how much the other was moved for it (eV), see the module.

    Raises
    ------
    ValueError
        They have steps other than 0.1 eV, or nothing within the window.
    """
    if first.step_eV != _STEP_EV or other.step_eV != _STEP_EV:
        raise ValueError("spectra are compared on steps of 0.1 eV")
    low = round((first_onset_eV - _BELOW_EV) / _STEP_EV)
    high = round((first_onset_eV + _ABOVE_EV) / _STEP_EV)
    a = _cut(first, low, high)
    equal = round((first_onset_eV - other_onset_eV) / _STEP_EV)
    reach = round(_SHIFTS_EV / _STEP_EV)
    best, moved = -1.0, 0
    for steps in range(equal - reach, equal + reach + 1):
        b = _cut(other, low - steps, high - steps)
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        if norm == 0.0:
            continue
        value = float(a @ b) / norm
        if value > best:
            best, moved = value, steps
    if best < 0:
        raise ValueError("a spectrum is empty where they are compared")
    return best, moved * _STEP_EV


def _cut(spectrum: Spectrum, low: int, high: int) -> FloatArray:
    """Return the total from one grid index to another; zero where the spectrum has no points."""
    out = np.zeros(high - low + 1)
    begin, end = max(low, spectrum.start), min(high + 1, spectrum.start + len(spectrum.intensity))
    if end > begin:
        out[begin - low : end - low] = spectrum.total[begin - spectrum.start : end - spectrum.start]
    return out


def compare(
    store: Results,
    campaigns: Sequence[str],
    *,
    molecules: Sequence[str] = (),
    sigma_eV: float = 0.5,
) -> Compared:
    """Compare the sites that all campaigns have finished; the first is what the others are compared with.

    Sites are the same if molecule and atom of the file are. Spectra are read one site at a time.

    Raises
    ------
    UserError
        Fewer than two campaigns, no such campaign, different elements or edges, or no site that all have.
    """
    if len(campaigns) < 2 or len(set(campaigns)) < len(campaigns):
        raise UserError(
            "there is nothing to compare",
            hint="name two or more campaigns: htxas compare quickstart feff-molecules",
        )
    documents = [store.campaign(name) for name in campaigns]
    edges = {(d["element"], d["edge"]) for d in documents}
    if len(edges) > 1:
        told = " and ".join(" ".join(e) for e in sorted(edges))
        raise UserError(
            f"they are of different edges: {told}", hint="compare campaigns of one element and edge"
        )
    rows: list[Row] = []
    missing = 0
    for first in store.molecules(campaigns[0]):
        if molecules and first.name not in molecules:
            continue
        others = [_molecule(store, name, first.name) for name in campaigns[1:]]
        for refs in _sites(first, others):
            row = None if refs is None else _row(store, first, [first, *others], refs, sigma_eV)
            if row is None:
                missing += 1
            else:
                rows.append(row)
    if not rows:
        raise UserError(
            "no site is finished in all of them",
            hint="molecules and atoms must have the same names: htxas status",
        )
    return Compared(tuple(campaigns), tuple(d["engine"] for d in documents), tuple(rows), missing)


def _molecule(store: Results, campaign: str, name: str) -> MoleculeRecord | None:
    from htxas.errors import NotFound

    try:
        return store.molecule(campaign, name)
    except NotFound:
        return None


def _sites(
    first: MoleculeRecord, others: Sequence[MoleculeRecord | None]
) -> Iterator[tuple[SiteRef, ...] | None]:
    """Yield the references to each site of a molecule, or None where somebody has it not."""
    for ref in first.sites:
        same = [
            next((s for s in m.sites if ref.file_atom in s.equivalent_file_atoms), None)
            if m is not None
            else None
            for m in others
        ]
        found = [s for s in same if s is not None]
        yield (ref, *found) if len(found) == len(same) else None


def _row(
    store: Results,
    first: MoleculeRecord,
    molecules: Sequence[MoleculeRecord | None],
    refs: Sequence[SiteRef],
    sigma_eV: float,
) -> Row | None:
    records = store.calculations([r.key for r in refs])
    if any(r.key not in records or records[r.key].state is not State.DONE for r in refs):
        return None
    results = [store.site_result(r.key) for r in refs]
    spectra = [r.spectrum(sigma_eV=sigma_eV, step_eV=_STEP_EV) for r in results]
    entries = [Entry(results[0].onset_eV, records[refs[0].key].wall_s)]
    for molecule, ref, result, spectrum in zip(
        molecules[1:], refs[1:], results[1:], spectra[1:], strict=True
    ):
        assert molecule is not None
        value, moved = similarity(spectra[0], results[0].onset_eV, spectrum, result.onset_eV)
        elsewhere = molecule.structure_key != first.structure_key
        entries.append(Entry(result.onset_eV, records[ref.key].wall_s, value, moved, elsewhere))
    return Row(first.name, f"{refs[0].element}{refs[0].file_atom}", tuple(entries))
