"""The next molecules of a campaign: known ones in, a choice among candidates out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

from htxas.errors import DatasetError, UserError
from htxas.learn.choose.candidates import Candidate, Candidates, kinds_of, read_candidates
from htxas.learn.choose.descriptors import DESCRIPTORS, describe_molecule, fingerprints, similarity
from htxas.learn.choose.forest import Forest
from htxas.learn.choose.known import Known
from htxas.learn.choose.strategies import Picked, Strategy, by_diversity, by_uncertainty, spread

__all__ = ["MIN_KNOWN", "Choice", "Proposal", "propose", "smi_text", "write_new"]

FloatArray = npt.NDArray[np.float64]

MIN_KNOWN = 20
"""Fewer computed molecules than this cannot say what they are uncertain about."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A molecule to compute.

    Attributes
    ----------
    name, smiles
        As in the list; canonical SMILES.
    score
        See :class:`htxas.learn.choose.strategies.Picked`; None at random.
    disagreement
        Standard deviation over the trees before anything is picked, in units of the spread of the computed spectra;
        None unless by uncertainty.
    nearest, similarity
        The computed molecule that is most like it, and Tanimoto's similarity of their Morgan fingerprints.
    """

    name: str
    smiles: str
    score: float | None
    disagreement: float | None
    nearest: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to compute next, and from what that follows.

    Attributes
    ----------
    strategy
        How it was chosen.
    choices
        In the order they were picked.
    known
        Number of computed molecules it rests on.
    known_left_out
        Reason -> names of computed molecules it does not rest on.
    pending
        Number of molecules of the campaign that are not computed: taken as known in the choice.
    candidates
        Number of molecules in the list, fit or not.
    left_out
        Reason -> names of candidates that were left out.
    disagreement
        Median and largest disagreement over the fit candidates; None unless by uncertainty.
    """

    strategy: Strategy
    choices: tuple[Choice, ...]
    known: int
    known_left_out: dict[str, list[str]]
    pending: int
    candidates: int
    left_out: dict[str, list[str]]
    disagreement: tuple[float, float] | None


def propose(
    known: Known,
    pending: Sequence[str],
    path: Path,
    *,
    strategy: Strategy,
    budget: int,
    seed: int = 0,
) -> Proposal:
    """Choose ``budget`` molecules of the list ``path``.

    Parameters
    ----------
    known
        Computed molecules.
    pending
        Canonical SMILES of molecules that the campaign has but that are not computed.
    path
        The candidates.
    strategy
        How to choose.
    budget
        How many.
    seed
        Of the trees and of the random choice. The result depends on nothing else, not even on the order of the list
        (but for ties).

    Raises
    ------
    DatasetError
        Too few computed molecules for an uncertainty.
    UserError
        Fewer fit candidates than the budget.
    StructureError
        The list cannot be read.
    """
    if strategy is Strategy.UNCERTAINTY and len(known) < MIN_KNOWN:
        raise DatasetError(
            f"{len(known)} computed molecules; an uncertainty needs at least {MIN_KNOWN}",
            hint="--by diversity needs one",
        )
    kinds = set().union(*(kinds_of(s) for s in known.smiles))
    waiting = [s for s in dict.fromkeys(pending) if s not in {*known.smiles, *known.unused}]
    read = read_candidates(
        path, element=known.element, kinds=kinds, taken={*known.smiles, *known.unused, *waiting}
    )
    fit, rows = _described(read)
    if len(fit) < budget:
        raise UserError(
            f"{len(fit)} of {read.total} candidates are fit to be computed, fewer than {budget}",
            where=str(path),
            hint="lower --budget or give a longer list",
        )
    order = np.argsort([c.smiles for c in fit], kind="stable")
    fit, rows = [fit[i] for i in order], rows[order]
    with threadpool_limits(limits=1):  # the order of every sum, and so every digit, is then fixed
        picked, disagreement = _pick(known, rows, _descriptions(waiting), strategy, budget, seed)
    return Proposal(
        strategy=strategy,
        choices=_choices([fit[i] for i in picked.rows], picked, disagreement, known),
        known=len(known),
        known_left_out=known.left_out,
        pending=len(waiting),
        candidates=read.total,
        left_out=read.left_out,
        disagreement=None
        if disagreement is None
        else (float(np.median(disagreement)), float(disagreement.max())),
    )


def _pick(
    known: Known, rows: FloatArray, ahead: FloatArray, strategy: Strategy, budget: int, seed: int
) -> tuple[Picked, FloatArray | None]:
    """Return the choice among ``rows`` and, by uncertainty, the disagreement over all of them; ``ahead`` still wait."""
    n = len(rows)
    if strategy is Strategy.RANDOM:
        chosen = np.random.default_rng(seed).permutation(n)[:budget]
        return Picked(chosen, np.full(budget, np.nan)), None
    if strategy is Strategy.DIVERSITY:
        given = np.vstack([known.descriptors, ahead])
        return by_diversity(np.vstack([rows, given]), budget, given=range(n, n + len(given))), None
    forest = Forest.fit(known.descriptors, known.spectra, known.targets, seed=seed)
    deviations = forest.deviations(np.vstack([rows, ahead]))
    picked = by_uncertainty(deviations, budget, given=range(n, n + len(ahead)))
    return picked, spread(deviations[:n])


def _described(read: Candidates) -> tuple[list[Candidate], FloatArray]:
    fit, rows = [], []
    for candidate in read.fit:
        try:
            rows.append(describe_molecule(candidate.smiles))
        except DatasetError as error:
            read.left_out.setdefault(error.message, []).append(candidate.name)
            continue
        fit.append(candidate)
    return fit, np.array(rows).reshape(len(rows), DESCRIPTORS)


def _descriptions(smiles: Sequence[str]) -> FloatArray:
    rows = []
    for one in smiles:
        try:
            rows.append(describe_molecule(one))
        except DatasetError:  # cannot be near any candidate: those have descriptors
            continue
    return np.array(rows).reshape(len(rows), DESCRIPTORS)


def _choices(
    chosen: Sequence[Candidate], picked: Picked, disagreement: FloatArray | None, known: Known
) -> tuple[Choice, ...]:
    computed = fingerprints(known.smiles)
    choices = []
    for candidate, mark, row, score in zip(
        chosen, fingerprints([c.smiles for c in chosen]), picked.rows, picked.score, strict=True
    ):
        alike = similarity(mark, computed)
        nearest = int(np.argmax(alike))
        choices.append(
            Choice(
                candidate.name,
                candidate.smiles,
                None if np.isnan(score) else float(score),
                None if disagreement is None else float(disagreement[row]),
                known.names[nearest],
                float(alike[nearest]),
            )
        )
    return tuple(choices)


def smi_text(choices: Sequence[Choice]) -> str:
    """Return ``SMILES name`` lines, as a campaign file takes them."""
    return "".join(f"{c.smiles} {c.name}\n" for c in choices)


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet; the very same one may be.

    Raises
    ------
    UserError
        If another file is in the way.
    """
    if path.exists() and path.read_text() != text:
        raise UserError(
            "this file exists and is another one", where=str(path), hint="give --output another name"
        )
    path.write_text(text)
