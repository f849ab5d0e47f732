"""One trial of a search: a net trained on the training rows and judged by the validation rows, here or on a worker."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from htxas.errors import HtxasError
from htxas.learn.data.dataset import Dataset, load
from htxas.learn.nets.device import deterministic
from htxas.learn.nets.network import Network
from htxas.learn.runs.fitting import Task, fit_net
from htxas.learn.runs.spec import RunSpec
from htxas.learn.runs.tune_config import Pruning, TunePlan

__all__ = ["Here", "OnDask", "pruner"]

_REPORT_EVERY = 5  # epochs
_GRACE = 20  # epochs before a trial may be given up


class _GivenUp(Exception):
    """Ends a training from within."""


def pruner(plan: TunePlan) -> Any:
    """Return Optuna's pruner."""
    from optuna import pruners

    match plan.pruning:
        case Pruning.MEDIAN:
            return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=_GRACE)
        case Pruning.HYPERBAND:
            return pruners.HyperbandPruner(min_resource=_GRACE, max_resource=max(_GRACE, plan.network.epochs))
        case Pruning.NONE:
            return pruners.NopPruner()


class Here:
    """Tries nets in this process, one at a time."""

    slots = 1

    def __init__(self, dataset: Dataset, plan: TunePlan, study: Any) -> None:
        self._dataset, self._plan, self._study = dataset, plan, study
        self._found: tuple[float | None, str] = (None, "fail")

    def start(self, number: int, trial_id: int, network: Network) -> int:
        """Do the trial; return its handle."""
        from optuna.trial import Trial as OptunaTrial

        spec = _spec(self._plan, self._dataset, network)
        self._found = _attempt(str(self._dataset.path), spec, OptunaTrial(self._study, trial_id))
        return number

    def next(self, handles: Sequence[int]) -> tuple[int, float | None, str]:
        """Return handle, loss and state of the trial that was done."""
        return (handles[0], *self._found)


class OnDask:
    """Tries nets on workers, as many at a time as there are threads.

    Workers tell and ask Optuna through the scheduler (optuna-integration's DaskStorage), which reads and writes the
    same journal as this process.
    """

    def __init__(self, client: Any, dataset: Dataset, plan: TunePlan, study: Any, slots: int) -> None:
        self.slots = slots
        self._client, self._dataset, self._plan, self._study = client, dataset, plan, study
        self._storage = _dask_storage(study._storage, None, client).name

    def start(self, number: int, trial_id: int, network: Network) -> Any:
        """Begin a trial; return its handle."""
        name = self._study.study_name
        return self._client.submit(
            _attempt_on_worker, str(self._dataset.path.resolve()), _spec(self._plan, self._dataset, network),
            self._storage, name, trial_id, self._plan, key=("htxas-trial", name, number),
        )  # fmt: skip

    def next(self, handles: Sequence[Any]) -> tuple[Any, float | None, str]:
        """Wait for one of the trials; return its handle, its loss where it came to its end, and its state."""
        import distributed

        library: Any = distributed
        done = next(iter(library.wait(handles, return_when="FIRST_COMPLETED").done))
        error = done.exception()
        if isinstance(error, library.scheduler.KilledWorker):
            return done, None, "fail"
        if error is not None:
            raise error
        return (done, *done.result())


def _dask_storage(storage: Any, name: str | None, client: Any) -> Any:
    import optuna
    from optuna_integration.dask import DaskStorage

    with warnings.catch_warnings():
        # Its interface may change; constraints.txt holds the release that works.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return DaskStorage(storage, name=name, client=client)


def _attempt_on_worker(
    dataset_path: str, spec: RunSpec, storage: str, study_name: str, trial_id: int, plan: TunePlan
) -> tuple[float | None, str]:
    import optuna
    from distributed import get_client

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name=study_name, storage=_dask_storage(None, storage, get_client()), pruner=pruner(plan)
    )
    return _attempt(dataset_path, spec, optuna.trial.Trial(study, trial_id))


def _spec(plan: TunePlan, dataset: Dataset, network: Network) -> RunSpec:
    return RunSpec(dataset.key, plan.dataset.targets, plan.kind, network, plan.seed, split=plan.split)


def _attempt(dataset_path: str, spec: RunSpec, trial: Any) -> tuple[float | None, str]:
    """Train one net; return its lowest validation loss and how it ended."""
    lowest = float("inf")

    def on_epoch(epoch: int, loss: float) -> None:
        nonlocal lowest
        lowest = min(lowest, loss)
        if epoch % _REPORT_EVERY == 0:
            trial.report(lowest, epoch)
            if trial.should_prune():
                raise _GivenUp

    task = Task.of(load(Path(dataset_path)), spec)  # a wrong target is the file's fault, not the trial's
    try:
        with deterministic(), warnings.catch_warnings():
            # A trial that is tried again reports the same numbers again.
            warnings.filterwarnings("ignore", message="The reported value is ignored")
            fit_net(task, on_epoch)
    except _GivenUp:
        return None, "pruned"
    except HtxasError:
        return None, "fail"  # its loss is not finite
    return lowest, "complete"
