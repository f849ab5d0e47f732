"""Did a choice beat chance? Two lists that were both computed, one chosen, one drawn at random, as training molecules.

Unlike :mod:`htxas.learn.choose.study`, which hides what is computed and can choose only among that, the choice was made
here among all candidates. The test molecules are drawn from the random list alone: they stand for the candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from htxas.errors import DatasetError
from htxas.learn.choose.differences import over_molecules
from htxas.learn.choose.known import Known
from htxas.learn.choose.strategies import Strategy
from htxas.learn.choose.study import ERRORS, Curves, Plan, squared_errors

__all__ = ["run_halves"]

Rows = npt.NDArray[np.intp]


def run_halves(
    known: Known,
    start: Sequence[str],
    chosen: Sequence[str],
    random: Sequence[str],
    *,
    test: int,
    step: int,
    repeats: int,
    properties: tuple[str, ...],
    seed: int = 0,
    on_done: Callable[[], None] = lambda: None,
) -> Curves:
    """Draw the learning curves of both lists, added to the same molecules at the start.

    Parameters
    ----------
    known
        All of them, gathered with the targets ``excitation_energy`` and ``properties``, in this order.
    start, chosen, random
        Names of the molecules. Those of ``chosen`` are added in this order. Names that are not known (a calculation
        failed) are left out.
    test, step, repeats, seed
        Test molecules drawn from ``random`` in each repeat, molecules added at once, and how often. The rest of
        ``random`` is added in another order each time. What is in another list, too, is not in ``start``.
    on_done
        Called after each repeat.

    Raises
    ------
    DatasetError
        If there are not enough molecules for one step, or both lists have a molecule.

    Notes
    -----
    The chosen list is one list: standard errors tell what other test molecules would change, not what another run of
    the choice would.
    """
    if both := set(chosen) & set(random):
        raise DatasetError(f"{len(both)} molecules are in both lists, {min(both)} for one")
    row = {name: i for i, name in enumerate(known.names)}
    elsewhere = {*chosen, *random}
    base, ours, drawn = (
        np.array([row[n] for n in names if n in row], dtype=np.intp)
        for names in ([n for n in start if n not in elsewhere], chosen, random)
    )
    steps = min(len(ours), len(drawn) - test) // step
    if steps < 1 or not len(base):
        raise DatasetError(
            f"{len(base)} molecules to start with, {len(ours)} chosen and {len(drawn)} random ones, {test} of them for "
            f"the test, are not enough to add {step}"
        )
    found = {
        s: {e: np.zeros((repeats, steps + 1)) for e in ERRORS}
        for s in (Strategy.UNCERTAINTY, Strategy.RANDOM)
    }
    squares = {s: {e: np.zeros((len(known), steps + 1)) for e in ERRORS} for s in found}
    tested = np.zeros(len(known))
    for repeat in range(repeats):
        order = np.random.default_rng([seed, repeat]).permutation(drawn)
        held, rest = order[:test], order[test:]
        tested[held] += 1
        for strategy, added in ((Strategy.UNCERTAINTY, ours), (Strategy.RANDOM, rest)):
            for i in range(steps + 1):
                train = np.concatenate([base, added[: i * step]])
                for name, value in squared_errors(known, train, held, seed=seed + repeat).items():
                    found[strategy][name][repeat, i] = np.sqrt(value.mean())
                    squares[strategy][name][held, i] += value
        on_done()
    plan = Plan(len(base), step, steps, test / len(known), repeats, properties, seed)
    sizes = tuple(len(base) + i * step for i in range(steps + 1))
    seen = tested > 0
    ours_squares, chance_squares = (
        {e: v[seen] / tested[seen, None] for e, v in squares[s].items()}
        for s in (Strategy.UNCERTAINTY, Strategy.RANDOM)
    )
    differences = {e: over_molecules(ours_squares[e], chance_squares[e], seed) for e in ERRORS}
    return Curves(
        plan,
        len(known),
        test,
        sizes,
        {s.value: by for s, by in found.items()},
        {Strategy.UNCERTAINTY.value: differences},
    )
