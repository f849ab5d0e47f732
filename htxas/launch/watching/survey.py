"""What takes the room in the home of htxas: run folders by campaign and state, archives, logs, caches, the database."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from htxas.launch.disk.usage import Held, Usage, folder_usage, held_in, prefixes
from htxas.settings import home, runs_folder
from htxas.store.store import Store
from htxas.store.watching import Placed

__all__ = ["Row", "Survey", "survey"]

UNKNOWN = "not in this database"
NO_DATABASE = "(no database to ask)"
_LOOK_UP = 1000


@dataclass(slots=True)
class Row:
    """Run folders of one campaign and state.

    Attributes
    ----------
    campaign, state
        A calculation that several campaigns want counts for the first. The state is empty for what the database
        does not know.
    folders, archives
        Calculations with directories, and packed attempts.
    bytes, files
        Of both, as a quota counts them.
    free_bytes, free_files
        Of those directories that packing would replace by one small file each.
    """

    campaign: str
    state: str
    folders: float = 0
    archives: float = 0
    bytes: float = 0
    files: float = 0
    free_bytes: float = 0
    free_files: float = 0


@dataclass(slots=True)
class Survey:
    """All that was found.

    Attributes
    ----------
    rows
        Run folders.
    others
        Other things: name -> usage.
    seen, present
        How many of the folders of keys were walked, and how many there are; the rest is estimated from them.
    """

    rows: list[Row] = field(default_factory=list)
    others: dict[str, Usage] = field(default_factory=dict)
    seen: int = 0
    present: int = 0


def survey(
    store: Store | None,
    *,
    budget_s: float | None = 3.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Measure; random folders of the hashed tree for ``budget_s``, or all of them.

    Parameters
    ----------
    store
        Tells campaigns and states; None if there is no database.
    budget_s
        None walks everything.
    on_progress
        Called with folders walked and folders there are.
    """
    present = prefixes()
    order = random.sample(present, len(present))
    deadline = None if budget_s is None else time.monotonic() + budget_s
    result = Survey(present=len(present))
    rows: dict[tuple[str, str], Row] = {}
    waiting: list[Held] = []
    for prefix in order:
        waiting += held_in(prefix)
        result.seen += 1
        if on_progress is not None:
            on_progress(result.seen, result.present)
        if len(waiting) >= _LOOK_UP:
            _file(store, waiting, rows)
            waiting = []
        if deadline is not None and time.monotonic() > deadline:
            break
    _file(store, waiting, rows)
    factor = result.present / result.seen if result.seen else 1.0
    for row in rows.values():
        for name in ("folders", "archives", "bytes", "files", "free_bytes", "free_files"):
            setattr(row, name, round(factor * getattr(row, name)))
    result.rows = [rows[k] for k in sorted(rows, key=lambda k: (k[0] == UNKNOWN, k))]
    result.others = _others()
    return result


def _file(store: Store | None, found: Iterable[Held], rows: dict[tuple[str, str], Row]) -> None:
    held = list(found)
    placed = store.placed({h.key for h in held if h.key}) if store is not None else {}
    for h in held:
        where: Placed | None = placed.get(h.key)
        name = (UNKNOWN if store is not None else NO_DATABASE, "")
        if where is not None and where.campaigns:
            name = (where.campaigns[0], where.state.value)
        row = rows.setdefault(name, Row(*name))
        row.bytes += h.bytes
        row.files += h.files
        if h.packed:
            row.archives += 1
        elif h.key:
            row.folders += 1
            if name[1] in ("done", "failed", "quarantined"):
                row.free_bytes += max(0, h.bytes - 8192)
                row.free_files += h.files - 1


def _others() -> dict[str, Usage]:
    """Measure all else below the home of htxas; these folders hold few files."""
    found: dict[str, Usage] = {"agents' logs and journals": folder_usage(runs_folder() / "workers")}
    if home().is_dir():
        for path in sorted(home().iterdir()):
            if path != runs_folder() and path.is_dir() and not path.is_symlink():
                found[_NAMES.get(path.name, path.name)] = folder_usage(path)
    return {name: usage for name, usage in found.items() if usage.files}


_NAMES = {"db": "private database"}
