"""A worker's way through a batch: lease, compute, report, next. One bad calculation never stops the others."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Calculation, Kind, State
from htxas.domain.structure import Structure
from htxas.engines.registry import get_engine
from htxas.errors import Cause, EngineFailure, InternalError, StoreError, UserError
from htxas.launch.compute import CampaignSettings, attempt_directory, compute, walltime_s
from htxas.launch.engine_process import EngineProcess
from htxas.launch.evidence import log_tail
from htxas.launch.liveness import LOG_FILE, worker_folder
from htxas.launch.stop import BatchReturned, Stop
from htxas.settings import runs_folder
from htxas.store.records import CalculationRecord, Lease
from htxas.store.store import Store
from htxas.store.work import MOST_LOST

__all__ = ["LEASE_S", "RUNNER", "BatchRunner", "WorkerUnfit"]

LEASE_S = 600.0
"""A worker that has not renewed its leases for so long has lost them."""

_GROUND_POLL_S = 0.5
_REMEMBERED = 64
_LOOKED_UP_AT_ONCE = 32
_CRASHES_IN_A_ROW = 10
_LEAST_FREE_BYTES = 50_000_000
_log = logging.getLogger(__name__)


class WorkerUnfit(BatchReturned):
    """Every calculation would fail here: the disk is full, or the engine crashes each time."""


class BatchRunner:
    """Computes batches for one worker.

    Parameters
    ----------
    store
        The store.
    owner
        The worker's name in leases.
    folder
        Existing folder of the worker.
    stop
        How it is asked to stop.
    """

    def __init__(self, store: Store, owner: str, folder: Path, stop: Stop) -> None:
        self.store = store
        self.owner = owner
        self.stop = stop
        self.batch_id: str | None = None
        self.current: str | None = None
        self._folder = folder
        self._processes: dict[str, EngineProcess] = {}
        self._settings: dict[str, CampaignSettings] = {}
        self._structures: OrderedDict[str, Structure] = OrderedDict()
        self._grounds: OrderedDict[str, Path | None] = OrderedDict()
        self._crashes = 0

    def run(self, batch_id: str) -> dict[str, int]:
        """Compute what is left of a batch; return how many calculations ended in which way.

        Raises
        ------
        BatchReturned
            If the worker was asked to stop (:class:`WorkerUnfit`: if it must) before the end.
        """
        self.batch_id = batch_id
        runs_folder().mkdir(parents=True, exist_ok=True)
        batch = self.store.batch(batch_id)
        settings = self._campaign(batch.campaign)
        records = self.store.calculations(batch.keys)
        tally: Counter[str] = Counter()
        computed: dict[str, str] = {}
        for key in batch.keys:
            record = records.get(key)
            if record is None or record.state not in (State.READY, State.RUNNING):
                tally["skipped"] += 1
                continue
            if self.stop.asked:
                raise BatchReturned(f"{sum(tally.values())} of {len(batch.keys)} calculations done")
            self._look_up_structures(record, records, batch.keys)
            tally[self._one(record, settings)] += 1
            if record.kind is Kind.SITE:
                computed[key] = record.structure_key
        if computed:
            self._assemble(computed)
        self.batch_id = None
        return dict(tally)

    def close(self) -> None:
        """End the engine processes."""
        for process in self._processes.values():
            process.close()

    def _campaign(self, name: str) -> CampaignSettings:
        if name not in self._settings:
            self._settings[name] = CampaignSettings.from_document(self.store.campaign(name))
        return self._settings[name]

    def _look_up_structures(
        self, record: CalculationRecord, records: Mapping[str, CalculationRecord], keys: Sequence[str]
    ) -> None:
        """Read the structures of this calculation and of those that come next, in one go."""
        if record.structure_key in self._structures:
            return
        coming = dropwhile(lambda key: key != record.key, keys)
        wanted = dict.fromkeys(records[k].structure_key for k in coming if k in records)
        found = self.store.structures(islice(wanted, _LOOKED_UP_AT_ONCE))
        self._structures.update({key: found[key].structure for key in wanted if key in found})
        while len(self._structures) > _REMEMBERED:
            self._structures.popitem(last=False)

    def _structure(self, key: str) -> Structure:
        if key not in self._structures:  # the ground state of a site in a batch of its own
            self._structures[key] = self.store.structure(key).structure
        return self._structures[key]

    def _remember_ground(self, key: str, directory: Path | None) -> None:
        self._grounds[key] = directory
        if len(self._grounds) > _REMEMBERED:
            self._grounds.popitem(last=False)

    def _process(self, engine: str) -> EngineProcess:
        if engine not in self._processes:
            self._processes[engine] = EngineProcess(get_engine(engine), self._folder, self.stop)
        return self._processes[engine]

    def _one(self, record: CalculationRecord, settings: CampaignSettings) -> str:
        """Compute one calculation if it is to be had; return its state or ``skipped``."""
        ground: Path | None = None
        failure: EngineFailure | None = None
        if record.kind is Kind.SITE:
            try:  # before the lease: waiting for another worker must not use it up
                ground = self._ground_directory(record, settings)
            except EngineFailure as error:
                failure = error
        lease = self.store.lease(record.key, self.owner, LEASE_S)
        if lease is None:
            return "failed" if self._given_up(record.key) else "skipped"
        self.current = record.key
        concluded = False
        try:
            if failure is not None:
                raise failure
            outcome = self._compute(lease, record, settings, ground)
            concluded, self._crashes = True, 0
        except EngineFailure as error:
            outcome = self._fail(lease, error)
            concluded = True
        except BatchReturned:
            self.store.release(lease)
            concluded = True
            raise
        finally:
            self.current = None
            if (
                not concluded
            ):  # an error of ours ends this worker; the next one gets the calculation, but not for ever
                self.store.release(lease, lost=True)
        self._refuse_if_unfit()
        return outcome

    def _given_up(self, key: str) -> bool:
        """Take a calculation that ends its worker each time out of the queue; False if it is not one."""
        record = self.store.calculation(key)
        if record.lost < MOST_LOST or record.state not in (State.READY, State.RUNNING):
            return False
        evidence: dict[str, Any] = {"leases_without_outcome": record.lost, "last_worker": record.worker}
        if record.worker is not None:
            evidence["log"] = log_tail(worker_folder(record.worker) / LOG_FILE)
        message = (
            f"its worker ended without a word {record.lost} times: killed, out of memory, or a bug of htxas"
        )
        _log.warning("%s: %s: %s", key, Cause.LOST.value, message)
        return self.store.give_up(key, message, evidence)

    def _compute(
        self, lease: Lease, record: CalculationRecord, settings: CampaignSettings, ground: Path | None
    ) -> str:
        calculation = self._calculation(record, settings)
        structure = self._structure(record.structure_key)
        result, rejection = compute(
            self._process(calculation.engine),
            get_engine(calculation.engine),
            calculation,
            structure,
            attempt_directory(record.key, lease.attempt),
            ground_directory=ground,
            limits=settings.gate,
            timeout_s=walltime_s(settings, record.estimate_s),
        )
        grid = {"spectrum_sigma_eV": settings.sigma_eV, "step_eV": settings.step_eV}
        try:
            if rejection is not None:
                kept = self.store.quarantine(lease, result, rejection, **grid)
                return "quarantined" if kept else "lease lost"
            if not self.store.finish(lease, calculation, structure, result, **grid):
                return "lease lost"
        except (InternalError, StoreError) as error:
            raise EngineFailure(
                Cause.BAD_OUTPUT, f"the result cannot be stored: {error}", evidence={"error": error.to_dict()}
            ) from error
        if record.kind is Kind.GROUND:
            self._remember_ground(record.key, Path(result.provenance.directory))
        return "done"

    def _calculation(self, record: CalculationRecord, settings: CampaignSettings) -> Calculation:
        """Return the calculation of a record; the key tells whether the campaign's parameters are its own."""
        parameters = settings.site_parameters if record.kind is Kind.SITE else settings.ground_parameters
        calculation = Calculation(
            record.kind,
            record.structure_key,
            record.engine,
            parameters,
            record.element,
            record.edge,
            record.atom,
        )
        return calculation if calculation.key == record.key else self.store.identity(record.key)

    def _fail(self, lease: Lease, error: EngineFailure) -> str:
        directory = attempt_directory(lease.key, lease.attempt)
        where = {"directory": str(directory), "host": os.uname().nodename} if directory.exists() else None
        _log.warning("%s: %s: %s", lease.key, error.cause.value, error.message)
        kept = self.store.fail(lease, error.cause, error.message, error.evidence, where)
        self._crashes = self._crashes + 1 if error.cause is Cause.ENGINE_CRASH else 0
        return "failed" if kept else "lease lost"

    def _refuse_if_unfit(self) -> None:
        """Stop this worker where going on would only burn the campaign.

        Raises
        ------
        WorkerUnfit
            No disk space left, or ten crashes in a row.
        """
        if self._crashes >= _CRASHES_IN_A_ROW:
            raise WorkerUnfit(f"{self._crashes} calculations in a row crashed the engine: htxas failures")
        if shutil.disk_usage(runs_folder()).free < _LEAST_FREE_BYTES:
            raise WorkerUnfit(f"less than 50 MB free in {runs_folder()}: make room, then htxas run")

    def _ground_directory(self, record: CalculationRecord, settings: CampaignSettings) -> Path | None:
        """Return where the ground state of a site was computed; compute it or wait for it if need be.

        Raises
        ------
        EngineFailure
            GROUND_FAILED, naming the ground state.
        """
        ground = Calculation(Kind.GROUND, record.structure_key, record.engine, settings.ground_parameters)
        key = ground.key
        while key not in self._grounds:
            state = self.store.calculation(key)
            if state.state is State.DONE:
                self._remember_ground(key, None if state.directory is None else Path(state.directory))
            elif state.state in (State.FAILED, State.QUARANTINED):
                cause = state.cause.value if state.cause else state.state.value
                raise EngineFailure(
                    Cause.GROUND_FAILED,
                    f"the ground state {key[:12]} has no result: {cause}: {state.message}",
                    evidence={"ground": key, "ground_cause": cause},
                )
            elif self._one(state, settings) == "skipped":  # another worker has it
                if self.stop.asked:
                    raise BatchReturned("while another worker computes the ground state")
                time.sleep(_GROUND_POLL_S)
        return self._grounds[key]

    def _assemble(self, computed: Mapping[str, str]) -> None:
        """Add up the molecules that are complete now, given the sites just computed and their structures."""
        candidates = self.store.molecules(structure_key=sorted(set(computed.values())))
        # Another campaign may compute the same molecules in another way: not its turn.
        molecules = [m for m in candidates if any(site.key in computed for site in m.sites)]
        states = self.store.states({site.key for m in molecules for site in m.sites})
        for molecule in molecules:
            if all(states.get(site.key) is State.DONE for site in molecule.sites):
                grid = self._campaign(molecule.campaign)
                try:
                    self.store.assemble(molecule, sigma_eV=grid.sigma_eV, step_eV=grid.step_eV)
                except UserError as error:  # told to whoever asks for the molecule
                    _log.warning("%s of %s is not assembled: %s", molecule.name, molecule.campaign, error)


RUNNER: ContextVar[BatchRunner | None] = ContextVar("htxas_batch_runner", default=None)
"""The runner of the worker in this process; FireWorks builds its task from the database and knows nothing of it."""
