"""What becomes of an agent's tasks: outcomes delivered, attempts cut short, leases given back or lost.

Used by the clerk's thread alone, but for :meth:`Ledger.hand_out`. Everything may be repeated after an outage: what was
done is recognised.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from htxas.domain.calculation import Kind, State
from htxas.engines.registry import get_engine
from htxas.errors import Cause
from htxas.launch.agent.assembling import assemble
from htxas.launch.agent.books import Books
from htxas.launch.agent.delivery import AT_ONCE, Courier
from htxas.launch.agent.maker import Ground
from htxas.launch.agent.source import Held, Lent, Source
from htxas.launch.agent.stock import Stock, Stocked
from htxas.launch.disk.keeper import Keeper
from htxas.launch.work.ladder import next_step
from htxas.launch.work.task import Task
from htxas.store.outcomes import Outcome, failed
from htxas.store.records import ControlState

__all__ = ["Ledger"]

_SHARED_S = 300.0  # of work for each worker of others that waits

_log = logging.getLogger(__name__)


class Ledger:
    """Keeps the books of an agent and the database in agreement.

    Parameters
    ----------
    courier
        Of the agent's folder.
    source
        Where tasks come from and outcomes go.
    tell
        Passes news on to the agent: fields of :class:`htxas.launch.agent.books.News`.
    keeper
        Is told which run folders may be packed.
    """

    def __init__(
        self, courier: Courier, source: Source, tell: Callable[..., None], keeper: Keeper | None
    ) -> None:
        self.books = Books()
        self.stock = Stock()
        self._courier = courier
        self._source = source
        self._tell = tell
        self._keeper = keeper
        self._own: list[Outcome] = []  # that no worker made
        self._doubted = False  # whether our leases are still ours
        self._leaving: list[Task] = []  # of stock, on its way back into the queue

    @property
    def owes(self) -> bool:
        """Whether there are outcomes that no journal has, or stock that is to go back."""
        return bool(self._own or self._leaving)

    def deliver(self) -> int:
        """Bring what is new in the journals, and what no worker made, into the database; return how much it was."""
        count = 0
        while True:
            carried = self._courier.carry()
            count += len(carried)
            for outcome, answer in carried:
                self._conclude(outcome, answer)
            if len(carried) < AT_ONCE:
                break
        if self._own:
            answers = self._source.store.deliver(self._own)
            own, self._own = self._own, []
            count += len(own)
            for outcome, answer in zip(own, answers, strict=True):
                self._conclude(outcome, answer)
        if self._doubted:  # whoever took one has probably taken all: ask before more is computed in vain
            self._doubted = False
            before = self.books.attempts()
            self.lose(before, {lease.key for lease in self._source.store.held(self._source.owner)})
        return count

    def _conclude(self, outcome: Outcome, answer: str) -> None:
        task = self.books.ended(outcome.lease)
        if task is None:
            return
        held = self.books.held.get(task.batch)
        if answer == "refused":
            _log.warning("%s: the lease of attempt %d was lost, its outcome refused", task.key, task.attempt)
            self._doubted = True
            self.books.elsewhere[task.key] = task.batch
        elif outcome.state is State.READY:
            cause = outcome.entry["cause"]
            _log.info("%s: %s: once more, with a correction", task.key, cause)
            self.books.again[task.key] = task.batch
        else:
            if held is not None:
                held.conclude(task, outcome.state)
            if self._keeper is not None:
                self._keeper.note([task.key])
            if outcome.state is not State.DONE:
                _log.warning("%s: %s: %s", task.key, outcome.entry["cause"], outcome.fields.get("message"))
            if task.kind is Kind.GROUND:
                fields = outcome.fields
                cause = str(outcome.entry["cause"] or outcome.state.value)
                message = str(fields.get("message") or "")
                self._source.maker.note(
                    Ground(task.key, outcome.state, fields.get("directory"), cause, message)
                )
                self.ground_known(task.key)

    def ground_known(self, key: str) -> None:
        """Pass on what became of a ground state."""
        ground = self._source.maker.ground(key)
        if ground is None:
            return
        waiting = self.books.waiting_for(key)
        if ground.state is State.DONE:
            directory = ground.directory or ""
            for task in waiting:  # on stock, perhaps, for long
                self.books.tasks[task.key] = replace(
                    task,
                    ground_directory=directory,
                    ground_energy_eV=ground.energy_eV,
                    ground_numerics=ground.numerics,
                )
            self._tell(grounds={key: directory})
        else:
            self._fail([(task, ground) for task in waiting])

    def _fail(self, failures: Sequence[tuple[Task, Ground]]) -> None:
        """End sites whose ground state has no result, by name."""
        for task, ground in failures:
            message = f"the ground state {ground.key[:12]} has no result: {ground.cause}: {ground.message}"
            evidence = {"ground": ground.key, "ground_cause": ground.cause}
            self._own.append(
                failed(task.lease, Cause.GROUND_FAILED, message, evidence, corrections=task.corrections)
            )
        if failures:
            self._tell(forgotten={task.key: False for task, _ in failures})

    def bury(self, number: int, keys: Sequence[str], evidence: dict[str, Any], out_of_memory: bool) -> None:
        """Settle what a dead worker had: charge what it was at, take the rest back."""
        started = self._courier.in_hand(f"journal-{number}.bin")
        left = [task for key in keys if (task := self.books.tasks.get(key)) is not None]
        hit = next(
            (t for t in left if started and (t.key, t.attempt) == (started.key, started.attempt)), None
        )
        if hit is not None and out_of_memory:
            message = "out of memory; the kernel killed its worker"
            places = self._source.places
            step = next_step(get_engine(hit.engine), hit, Cause.OUT_OF_MEMORY, places=places, slots=hit.slots)
            again = None if step is None else step.to_dict()
            self._own.append(
                failed(
                    hit.lease,
                    Cause.OUT_OF_MEMORY,
                    message,
                    evidence,
                    corrections=hit.corrections,
                    again=again,
                )
            )
        elif hit is not None:
            how = evidence.get("signal") or f"status {evidence.get('returncode')}"
            message = f"its worker ended without a word ({how}): killed, out of memory, or a bug of htxas"
            _log.warning("%s: %s", hit.key, message)
            self.interrupt(hit.key, Cause.LOST, message, evidence)
        self._tell(tasks=[task for task in left if task is not hit])

    def interrupt(self, key: str, cause: Cause, message: str, evidence: dict[str, Any]) -> None:
        """End an attempt that was cut short; it is leased again."""
        task = self.books.tasks.get(key)
        if task is None:
            return
        evidence = {**evidence, "last_worker": task.owner}
        self._source.release([task.lease], cause=cause, message=message, evidence=evidence, in_hand=[key])
        self.books.ended(task.lease)
        self.books.again[key] = task.batch

    def withdraw(self, keys: Collection[str]) -> None:
        """Give tasks back, and with them, in the end, their batches."""
        tasks = [task for key in keys if (task := self.books.tasks.get(key)) is not None]
        self._source.release([task.lease for task in tasks])
        for task in tasks:
            self.books.ended(task.lease)
            if (held := self.books.held.get(task.batch)) is not None:
                held.returning = True
            if (heir := self.books.heir(task.key, task.batch)) is not None:
                self.books.elsewhere[task.key] = heir  # a ground state that others wait for

    def lose(self, before: Mapping[str, int], now: set[str]) -> None:
        """Forget tasks whose lease is gone: those known before that the database does not have now."""
        known = self.books.attempts()
        lost = [key for key, n in before.items() if key not in now and known.get(key) == n]
        for key in lost:
            _log.warning("%s: the lease is lost; what comes of it would be refused", key)
            task = self.books.tasks[key]
            self.books.ended(task.lease)
            self.books.elsewhere[key] = task.batch
        if lost:
            self._tell(forgotten=dict.fromkeys(lost, True))

    def admit(self, held: Held, lent: Lent, *, ahead_s: float | None = None) -> None:
        """Enter what came of leasing calculations of a batch; it goes on stock if all of it fits ``ahead_s``."""
        for task in (*lent.tasks, *(task for task, _ in lent.failed)):
            self.books.take(task)
        for key in lent.elsewhere:
            self.books.elsewhere.setdefault(key, held.batch)
        new = Stocked(held, tuple(lent.tasks))
        if ahead_s is not None and lent.tasks and new.longest_s <= ahead_s:
            self.stock.put(new)
        else:
            self._tell(tasks=lent.tasks)
        self._fail(lent.failed)
        for record in lent.over:
            held.found(record)
            if record.kind is Kind.GROUND:
                self.ground_known(record.key)

    def control(self) -> None:
        """Return what is paused, cancelled or used up; give others of the stock."""
        if not self._source.look_at_controls():
            return
        self._share()
        if self._source.blocked:
            for held in self.books.held.values():
                self._stop(held)

    def _stop(self, held: Held) -> None:
        """Have back what of a batch is for stopped campaigns only, and all of it that nobody has begun."""
        blocked = self._source.blocked
        stopped = [
            key
            for key in self.books.keys_of(held)
            if not self._source.may_run(held.wanted.get(key, held.wanted_by))
        ]
        if not stopped or (held.stopped and held.returning):
            return
        held.stopped = held.returning = True
        cancelled = {
            key: all(blocked[c] is ControlState.CANCELLED for c in held.wanted.get(key, held.wanted_by))
            for key in stopped
        }
        _log.info("batch %s goes back: %d of it are stopped", held.batch[:12], len(stopped))
        unopened = self.stock.remove(held.batch)
        if unopened is not None:
            self._leaving += unopened.tasks
        kept = {task.key for task in self._leaving}
        self._tell(withdrawn={key: stop for key, stop in cancelled.items() if key not in kept})

    def return_stock(self) -> None:
        """Give back what was taken out of the stock for that; after an outage, what is left of it."""
        if self._leaving:
            self.withdraw([task.key for task in self._leaving if self._is_ours(task)])
            self._leaving.clear()

    def _is_ours(self, task: Task) -> bool:
        """Whether a task is still in hand under the attempt it was leased for."""
        known = self.books.tasks.get(task.key)
        return known is not None and known.attempt == task.attempt

    def _as_known(self, one: Stocked) -> Stocked:
        """Return a batch with its tasks as they are known now, if they are still ours."""
        return Stocked(one.held, tuple(self.books.tasks[t.key] for t in one.tasks if self._is_ours(t)))

    def _take_back(self, one: Stocked) -> bool:
        """Take a batch out of the stock for :meth:`return_stock`."""
        if self.stock.remove(one.held.batch) is None:
            return False
        one.held.returning = True
        self._leaving += one.tasks
        return True

    def _share(self) -> None:
        """Give back, last things first, what agents that have nothing to do will need until they are asked again."""
        hungry = self._source.hungry
        donors = max(1, 1 + self._source.fellows - len(hungry))
        need_s = _SHARED_S * sum(h.workers for h in hungry) / donors
        for one in reversed(self.stock.batches()):
            if need_s <= 0:
                return
            now = self._as_known(one)
            suits = now.independent and any(now.suits(h) for h in hungry)
            if suits and self._take_back(one):
                _log.info("batch %s goes back for agents that have nothing to do", one.held.batch[:12])
                need_s -= now.seconds

    def trim(self, room_s: float) -> None:
        """Give back what there will be no time for any more."""
        for one in self.stock.batches():
            if one.longest_s > room_s:
                self._take_back(one)

    def hand_out(self) -> bool:
        """Pass the batch on whose turn it is; False if the stock is empty. Also from the agent's thread."""
        one = self.stock.take()
        if one is None:
            return False
        ended = {outcome.lease.key for outcome in list(self._own)}
        known = [self.books.tasks.get(task.key) for task in one.tasks]
        attempts = {task.key: task.attempt for task in one.tasks}
        self._tell(
            tasks=[t for t in known if t is not None and t.attempt == attempts[t.key] and t.key not in ended]
        )
        return True

    def settle(self, *, all_back: bool = False, quiet: bool = False) -> None:
        """Complete the batches that are done, give back those that are to go.

        Parameters
        ----------
        all_back
            Whether all are.
        quiet
            Whether nothing has come in for a while.
        """
        mine = self.books.batches()
        done = [held for held in self.books.held.values() if not held.open]
        back = [
            held
            for held in self.books.held.values()
            if held.open
            and held.batch not in mine
            and (held.returning or all_back or (quiet and self._stuck(held)))
        ]
        for held in (*done, *back):
            assemble(self._source.store, self._source.maker, held.computed)
            held.computed.clear()
        if done:
            self._source.complete(done)
        if back:
            self._source.give_back(back)
        for held in (*done, *back):
            _log.info("batch %s: %s, %d left", held.batch[:12], dict(held.tally), len(held.open))
            self.stock.remove(held.batch)
            self.books.forget(held)
        if done or back:
            self._tell()

    def _stuck(self, held: Held) -> bool:
        """Whether others compute all that is left of what is in hand: it may wait in the queue as well."""
        return not self.books.tasks and held.open <= self.books.elsewhere.keys()
