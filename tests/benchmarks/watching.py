"""Milliseconds of what watches, with a hundred thousand calculations and more in the database.

    python tests/benchmarks/watching.py [--calculations 130000] [--pilots 2000] [--agents 500]

A database is made in the server the environment names and dropped at the end. All calculations are of one campaign,
most of them ended within the last hour: the worst case, as only the last hour's endings are read one by one.
"""

from __future__ import annotations

import argparse
import random
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from htxas.launch.watching.notify import Notifier, NotifyModel
from htxas.launch.watching.watch import Watcher, look
from htxas.store.records import PilotRecord, PilotState
from htxas.store.store import Store

_CAUSES = ("walltime", "scf_unconverged", "engine_crash")


def fill(store: Store, calculations: int, pilots: int, agents: int, hour_share: float) -> None:
    store.put_campaign("many", {"a": 1})
    store.seal_campaign("many")
    now, rng = datetime.now(UTC), random.Random(1)
    documents = []
    for i in range(calculations):
        done = rng.random() < 0.9
        cause = rng.choice(_CAUSES) if done and rng.random() < 0.02 else None
        age = rng.uniform(0, 3600 / hour_share)
        documents.append(
            {
                "_id": secrets.token_hex(16),
                "kind": "ground" if i % 7 == 0 else "site",
                "structure_key": "s" * 32,
                "engine": "fake",
                "parameters_key": "p" * 32,
                "element": "C",
                "edge": "K",
                "atom": 1,
                "state": "ready" if not done else "failed" if cause else "done",
                "cause": cause,
                "message": None,
                "evidence": {},
                "attempts": 1,
                "batch": "b" * 32,
                "estimate_s": 100.0 * rng.random(),
                "wall_s": 100.0 * rng.random() if done else None,
                "worker": "w",
                "campaigns": ["many"],
                "scalars": {"excitation_energy_eV": 285.0},
                "provenance": {"libraries": {"numpy": "2.0"}, "host": "n", "directory": "/r" * 40},
                "ladder": None,
                "history": [],
                "interrupted": {},
                "interruptions": 0,
                "updated": now,
                "finished": now - timedelta(seconds=age) if done else None,
            }
        )
        if len(documents) == 10_000 or i == calculations - 1:
            store._db["calculations"].insert_many(documents, ordered=False)
            documents = []
    store.put_pilots(
        PilotRecord(
            f"p{i}",
            f"cluster{i % 3}",
            str(i),
            None,
            PilotState.RUNNING if i < agents else PilotState.ENDED,
            None,
            "main",
            1,
            64,
            3600.0,
            now,
            allocated_s=100.0,
            engine_s=97.0,
        )
        for i in range(pilots)
    )
    for i in range(agents):
        store.heartbeat(
            f"o{i}",
            {
                "host": "h",
                "pilot": f"p{i}",
                "cluster": f"cluster{i % 3}",
                "workers": 16,
                "in_hand": ["k" * 32] * 16,
            },
        )


def timed(what: str, call: Callable[[], Any], times: int = 5) -> None:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    print(f"{what:<44} {1000 * sorted(seconds)[len(seconds) // 2]:8.1f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calculations", type=int, default=130_000)
    parser.add_argument("--pilots", type=int, default=2000)
    parser.add_argument("--agents", type=int, default=500)
    parser.add_argument(
        "--hour-share", type=float, default=0.9, help="share of the endings within the last hour"
    )
    options = parser.parse_args()
    name = f"htxas_bench_{secrets.token_hex(3)}"
    with Store.open(name=name) as store:
        try:
            fill(store, options.calculations, options.pilots, options.agents, options.hour_share)
            timed("progress", lambda: store.progress("many"))
            timed("endings of the last hour", lambda: store.endings(3600.0))
            timed("workers, controls, stamps", lambda: (store.workers(), store.controls(), store.stamps()))
            timed("pilots", store.pilots)
            timed("one whole look", lambda: look(store))
            notifier = Notifier(store, NotifyModel(command=["true"], on=[]))
            timed("a tick of the notifier", lambda: notifier.tick(every_s=0))
            with Watcher(None, lambda: Store.open(name=name)) as watcher:
                watcher.look()
                timed("a look of the live page", watcher.look)
        finally:
            store.drop()


if __name__ == "__main__":
    main()
