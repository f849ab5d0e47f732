"""Search of better nets: trials on Dask, judged by the validation rows, given up early where they are poor.

Optuna proposes and prunes; its journal in the output folder is the memory: a search goes on where it was stopped. What
is proposed as trial n comes from a generator seeded by the file's seed and n: with one worker a search that was
interrupted ends as one that was not. The test rows are never predicted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from htxas.domain.identity import content_key
from htxas.errors import DatasetError
from htxas.learn.data.dataset import Dataset
from htxas.learn.nets.network import Network
from htxas.learn.runs.parallel import default_workers, open_client
from htxas.learn.runs.queue_cluster import QueueWorkers
from htxas.learn.runs.spec import code_versions
from htxas.learn.runs.trials import Here, OnDask, pruner
from htxas.learn.runs.tune_config import TunePlan

__all__ = ["JOURNAL", "Trial", "Tuned", "network_of_trial", "tune"]

JOURNAL = "journal.log"
_RANDOM = 8  # trials before the search learns from others


@dataclass(frozen=True, slots=True)
class Trial:
    """A net that was tried.

    Attributes
    ----------
    number
        From 0: the file's own net.
    state
        ``complete``, ``pruned``, or ``fail``.
    loss
        Lowest mean validation loss of its epochs; of a pruned one the lowest until then. None where it failed.
    network
        The net.
    epochs
        How far it got.
    """

    number: int
    state: str
    loss: float | None
    network: Network
    epochs: int


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """Outcome of a search.

    Attributes
    ----------
    trials
        By number.
    best
        The lowest loss among those that came to their end.
    importance
        Share of the loss's variance by setting; empty where it cannot be said.
    """

    trials: tuple[Trial, ...]
    best: Trial
    importance: dict[str, float]


def tune(
    plan: TunePlan,
    dataset: Dataset,
    out_dir: Path,
    *,
    workers: int | None,
    scheduler: str | None = None,
    queue: QueueWorkers | None = None,
    on_done: Callable[[int], None] | None = None,
) -> Tuned:
    """Try nets until ``plan.trials`` have been tried, counting those of earlier calls with the same plan and dataset.

    Parameters
    ----------
    out_dir
        Holds the journal.
    workers, scheduler, queue
        As of :func:`htxas.learn.runs.parallel.run_all`.
    on_done
        Called with the number of trials that are over.

    Raises
    ------
    DatasetError
        If no trial came to its end.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    out_dir.mkdir(parents=True, exist_ok=True)
    study = _open(plan, dataset, out_dir)
    workers = default_workers() if workers is None else workers
    if workers == 0 and scheduler is None and queue is None:
        _search(plan, study, Here(dataset, plan, study), on_done)
    else:
        with open_client(workers, scheduler, queue, out_dir, plan.trials) as client:
            slots = queue.most_jobs * queue.workers if queue else sum(client.nthreads().values())
            _search(plan, study, OnDask(client, dataset, plan, study, max(1, slots)), on_done)
    return _outcome(plan, study)


def _open(plan: TunePlan, dataset: Dataset, out_dir: Path) -> Any:
    """Return Optuna's study of this plan and dataset: another plan in the same folder is another study."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    question = {
        "dataset": dataset.key, "targets": list(plan.dataset.targets), "kind": plan.kind.value, "split": plan.split,
        "network": plan.network.to_dict(), "choices": {n: [list(c) if isinstance(c, tuple) else c for c in v]
        for n, v in plan.choices.items()}, "ranges": {n: list(v) for n, v in plan.ranges.items()},
        "pruning": plan.pruning.value, "seed": plan.seed, "code": code_versions(),
    }  # fmt: skip
    study = optuna.create_study(
        study_name=content_key(question)[:16],
        storage=JournalStorage(JournalFileBackend(str(out_dir / JOURNAL))),
        pruner=pruner(plan),
        load_if_exists=True,
    )
    if not study.trials:
        first = {n: _word(getattr(plan.network, n)) for n in (*plan.choices, *plan.ranges)}
        study.enqueue_trial(first)
    return study


def _distributions(plan: TunePlan) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    made: dict[str, Any] = {
        n: CategoricalDistribution([_word(v) for v in values]) for n, values in plan.choices.items()
    }
    for name, (low, high) in plan.ranges.items():
        made[name] = FloatDistribution(low, high, log=name != "dropout")
    return made


def _word(value: Any) -> Any:
    """Return a value as Optuna stores it: widths as text."""
    return "-".join(map(str, value)) if isinstance(value, tuple) else value


def network_of_trial(plan: TunePlan, parameters: dict[str, Any]) -> Network:
    """Return the net of a trial's parameters."""
    changed = dict(parameters)
    if "widths" in changed:
        changed["widths"] = tuple(int(w) for w in changed["widths"].split("-"))
    return replace(plan.network, **changed)


def _search(plan: TunePlan, study: Any, place: Here | OnDask, on_done: Callable[[int], None] | None) -> None:
    from optuna.samplers import TPESampler
    from optuna.trial import Trial as OptunaTrial
    from optuna.trial import TrialState

    ended = sum(t.state.is_finished() for t in study.trials)
    # What was being tried when an earlier call ended is tried again, as the same trial.
    waiting = [OptunaTrial(study, t._trial_id) for t in study.get_trials(states=(TrialState.RUNNING,))]
    waiting = [t for t in waiting if set(t.params) == {*plan.choices, *plan.ranges}]
    running: dict[Any, Any] = {}
    if on_done is not None:
        on_done(ended)
    while ended < plan.trials:
        while len(running) < place.slots and ended + len(running) < plan.trials:
            if waiting:
                trial = waiting.pop(0)
            else:
                seed = int(content_key({"seed": plan.seed, "trial": len(study.trials)})[:8], 16) % 2**32
                study.sampler = TPESampler(seed=seed, n_startup_trials=_RANDOM)
                trial = study.ask(_distributions(plan))
            running[place.start(trial.number, trial._trial_id, network_of_trial(plan, trial.params))] = trial
        handle, loss, state = place.next(list(running))
        trial = running.pop(handle)
        study.tell(trial.number, loss, state=TrialState[state.upper()])
        ended += 1
        if on_done is not None:
            on_done(ended)


def _outcome(plan: TunePlan, study: Any) -> Tuned:
    import optuna
    from optuna.trial import TrialState

    trials = []
    for t in study.trials:
        if not t.state.is_finished():
            continue
        steps = t.intermediate_values
        loss = (
            t.value
            if t.value is not None and t.state is TrialState.COMPLETE
            else min(steps.values(), default=None)
        )
        trials.append(
            Trial(
                t.number, t.state.name.lower(), None if t.state is TrialState.FAIL else loss,
                network_of_trial(plan, t.params), max(steps, default=0),
            )
        )  # fmt: skip
    complete = [t for t in trials if t.state == "complete"]
    if not complete:
        raise DatasetError(
            f"none of {len(trials)} trials came to its end",
            hint="narrow search.learning_rate, or give more trials",
        )
    importance = {}
    varied = any(t.network != complete[0].network for t in complete)
    if len(complete) >= 4 and varied:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        importance = {name: float(v) for name, v in found.items()}
    best = min(complete, key=lambda t: (t.loss, t.number))
    return Tuned(tuple(trials), best, importance)
