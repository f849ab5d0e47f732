"""What is computed already: molecules with their spectra and targets, one row each, without the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from htxas.domain.spectrum import Spectrum
from htxas.errors import DatasetError
from htxas.learn.choose.descriptors import DESCRIPTORS, describe_molecule
from htxas.learn.data.chemistry import canonical_smiles
from htxas.learn.data.features import window_row
from htxas.learn.data.recipe import Align, Recipe, Window
from htxas.learn.data.records import LeftOut, Method, SpectrumRecord
from htxas.learn.data.source import Source
from htxas.learn.data.targets import target_value

__all__ = ["Known", "gather"]

_WITHOUT_SMILES = "without a SMILES"


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """Computed molecules, by canonical SMILES.

    Attributes
    ----------
    names, smiles
        Name in its source and canonical SMILES; every SMILES once.
    descriptors
        Shape (n, :data:`htxas.learn.choose.descriptors.DESCRIPTORS`).
    spectra
        Molecular spectra in the window, shape (n, points), float32.
    targets
        Shape (n, t), columns as in ``target_names``.
    target_names
        As asked for.
    element
        The absorbing element.
    left_out
        Reason -> names of computed molecules that were not used.
    unused
        Their canonical SMILES, where they have one: they are computed all the same.
    """

    names: tuple[str, ...]
    smiles: tuple[str, ...]
    descriptors: npt.NDArray[np.float64]
    spectra: npt.NDArray[np.float32]
    targets: npt.NDArray[np.float64]
    target_names: tuple[str, ...]
    element: str
    left_out: dict[str, list[str]]
    unused: frozenset[str]

    def __len__(self) -> int:
        return len(self.names)


def gather(sources: Sequence[Source], targets: Sequence[str], window: Window) -> Known:
    """Read sources once, one molecule in memory at a time, and keep its row.

    Of a molecule that comes again (in another source, or as another conformer) the first is kept: nothing is averaged.

    Raises
    ------
    DatasetError
        Spectra of different methods, a target that a molecule lacks, nothing left.
    """
    first: SpectrumRecord | None = None
    rows: dict[str, tuple[str, npt.NDArray[np.float64], npt.NDArray[np.float32], list[float]]] = {}
    left_out: dict[str, list[str]] = {}
    unused: set[str] = set()
    for source in sources:
        for record in source.records(Recipe(tuple(targets), window)):
            if isinstance(record, LeftOut):
                left_out.setdefault(record.reason, []).append(record.name)
                continue
            first = first or record
            _refuse_mixed(first.method, record.method, first.name, record.name)
            spectrum, start_eV = record.spectrum, record.excitation_energy_eV
            if spectrum is None or start_eV is None:
                left_out.setdefault("without a molecular spectrum of transitions", []).append(record.name)
                continue
            reason = _unusable(record, spectrum, start_eV, window)
            smiles = "" if record.smiles is None else canonical_smiles(record.smiles, record.name)
            if reason is None and smiles in rows:
                reason = "the same molecule again"
            if reason is None:
                try:
                    described = describe_molecule(smiles)
                except DatasetError as error:
                    reason = error.message
            if reason is not None:
                left_out.setdefault(reason, []).append(record.name)
                unused |= {smiles} - {""}
                continue
            where = f"molecule {record.name}"
            row = window_row(spectrum, start_eV, window, where=where)
            rows[smiles] = (record.name, described, row, [target_value(t, record)[0] for t in targets])
    labels = ", ".join(s.label for s in sources)
    if first is None or not rows:
        gone = "".join(f"; {len(names)} {reason}" for reason, names in left_out.items())
        raise DatasetError(f"no complete molecule with a SMILES{gone}", where=labels, hint="htxas status")
    by_smiles = sorted(rows)
    found = [rows[s] for s in by_smiles]
    return Known(
        names=tuple(r[0] for r in found),
        smiles=tuple(by_smiles),
        descriptors=np.array([r[1] for r in found]).reshape(len(found), DESCRIPTORS),
        spectra=np.array([r[2] for r in found], dtype=np.float32),
        targets=np.array([r[3] for r in found], dtype=np.float64).reshape(len(found), len(targets)),
        target_names=tuple(targets),
        element=first.method.element,
        left_out=left_out,
        unused=frozenset(unused),
    )


def _unusable(record: SpectrumRecord, spectrum: Spectrum, start_eV: float, window: Window) -> str | None:
    if record.smiles is None:
        return _WITHOUT_SMILES
    end_eV = min(record.complete_to_eV, float(spectrum.energies_eV[-1])) + 0.5 * window.step_eV
    if window.align is Align.EXCITATION_ENERGY:
        end_eV -= start_eV
    return None if end_eV >= window.stop_eV else f"not complete to {window.stop_eV:.1f} eV"


def _refuse_mixed(first: Method, other: Method, first_name: str, name: str) -> None:
    if other != first:
        raise DatasetError(
            f"is {other}, but {first_name} is {first}; one model, one method",
            where=f"molecule {name}",
            hint="give datasets of one method",
        )
