"""The order in which news from the clerk and answers from the workers reach an agent: any."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from htxas.errors import Cause
from htxas.launch.agent.books import News
from htxas.launch.agent.config import Desk
from htxas.launch.agent.crew import Answer, Crew, Gone
from htxas.launch.agent.floor import Floor
from htxas.launch.agent.meter import Meter
from htxas.launch.agent.room import RoomWatch
from htxas.launch.disk.usage import DiskQuota
from htxas.launch.work.task import Task
from tests.launch.agent.tasks import task


class Workers:
    """Notes what workers are told."""

    def __init__(self) -> None:
        self.given: list[tuple[str, int]] = []
        self.dropped: list[str] = []
        self.killed: list[int] = []

    def mans(self, place: int) -> bool:
        return True

    def give(self, place: int, tasks: Iterable[Task]) -> None:
        self.given += [(t.key, t.attempt) for t in tasks]

    def drop(self, place: int, keys: Iterable[str]) -> None:
        self.dropped += keys

    def kill(self, place: int) -> None:
        self.killed.append(place)


class Clerk:
    """Notes what a clerk is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args: self.told.append((name, *args))


class Site:
    """A floor of one worker."""

    def __init__(self, folder: Path) -> None:
        self.workers, self.clerk = Workers(), Clerk()
        crew, desk = cast(Crew, self.workers), cast(Desk, self.clerk)
        room = RoomWatch(DiskQuota(), 60.0)
        self.floor = Floor(crew, desk, Meter(1, time.monotonic()), room, folder, 1)

    def news(self, **fields: Any) -> None:
        news = News()
        news.add(**fields)
        self.floor.read(news)
        self.floor.dispatch(float("inf"))

    def answer(self, **said: Any) -> None:
        self.floor.hear(Answer(0, said))
        self.floor.dispatch(float("inf"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


ENDED = {"cause": Cause.ENGINE_CRASH, "state": "ready", "wall_s": 1.0, "directory": "d"}


def test_a_task_leased_again_before_its_worker_told_of_the_first_attempt_is_run(site: Site) -> None:
    site.news(tasks=[task("a")])
    site.news(tasks=[task("a", 2)])  # the clerk has read the journal
    assert site.workers.given == [("a", 1)]
    site.answer(key="a", **ENDED)
    assert site.workers.given == [("a", 1), ("a", 2)]
    assert site.floor.held == 1
    site.answer(key="a", **ENDED)
    assert (site.floor.held, site.floor.at_work) == (0, False)


def test_so_is_one_whose_worker_dies_without_telling(site: Site) -> None:
    site.news(tasks=[task("a")])
    site.news(tasks=[task("a", 2)])
    site.floor.bury(Gone(0, 1, {"returncode": -9, "log": []}))
    site.floor.dispatch(float("inf"))
    assert site.workers.given == [("a", 1), ("a", 2)]
    assert site.clerk.told == [("gone", 1, [], {"returncode": -9, "log": []}, False)]


def test_a_lost_lease_that_is_taken_again_before_the_worker_has_dropped_it(site: Site) -> None:
    site.news(tasks=[task("a")])
    news = News()
    news.add(forgotten={"a": True})
    news.add(tasks=[task("a", 2)])
    site.floor.read(news)
    assert site.workers.dropped == ["a"]
    site.answer(key="a", returned="dropped", elapsed_s=1.0)
    assert site.workers.given[-1] == ("a", 2)
    assert site.clerk.told == []


def test_the_last_word_on_a_task_counts(site: Site) -> None:
    news = News()
    news.add(tasks=[task("a"), task("b")])
    news.add(forgotten={"a": False, "b": False})
    news.add(tasks=[task("b", 2)])
    site.floor.read(news)
    assert [item.key for item in site.floor.pool] == ["b"]


def test_a_site_forgotten_with_its_ground_state_does_not_wait_for_ever(site: Site) -> None:
    chunk = [replace(task("g"), estimate_s=0.1), replace(task("s", ground="g"), estimate_s=0.1)]
    site.news(tasks=[*chunk, replace(task("x"), estimate_s=0.01), replace(task("y"), estimate_s=0.01)])
    assert site.workers.given == [("g", 1), ("s", 1)]
    site.answer(key="g", **ENDED | {"state": "failed"})
    site.news(forgotten={"s": False})
    site.answer(key="s", returned="ground")
    assert site.workers.given[2:] == [("x", 1), ("y", 1)]
    assert (len(site.floor.pool), site.floor.held) == (0, 2)


def test_a_new_attempt_takes_the_place_of_one_that_waits(site: Site) -> None:
    site.news(tasks=[task("s", ground="g")])
    site.news(tasks=[task("s", 2, ground="g")])
    site.news(grounds={"g": "d"})
    assert site.workers.given == [("s", 2)]


def test_what_is_to_come_later_can_be_withdrawn(site: Site) -> None:
    site.news(tasks=[task("a")])
    site.news(tasks=[task("a", 2)])
    site.news(withdrawn={"a": False})
    assert site.clerk.told == [("withdrawn", ["a"])]
    site.answer(key="a", **ENDED)
    assert site.workers.given == [("a", 1)]


def test_clocks_stand_while_the_agent_is_frozen_with_its_workers(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, ahead = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock() + ahead[0])
    site.news(tasks=[task("a")])
    for seconds in (3600.0, 5.0):
        ahead[0] += seconds
        site.floor.kill_overdue()
    assert site.workers.killed == []
    for _ in range(20):
        ahead[0] += 9.0
        site.floor.kill_overdue()
    assert site.workers.killed == [0]


def test_who_waits_for_room_is_neither_overdue_nor_waited_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, ahead = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock() + ahead[0])
    site.news(tasks=[task("a")])
    site.answer(full=True)
    for _ in range(100):
        ahead[0] += 9.0
        site.floor.kill_overdue()
    assert site.workers.killed == []
    site.floor.stop_full()
    assert site.workers.dropped == ["a"]
