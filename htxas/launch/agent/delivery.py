"""Journals into the database: by the agent that wrote them, or by whoever finds them after its death.

``delivered.json`` in the agent's folder says up to which byte each journal is in the database. It may lag behind: what
is delivered a second time is recognised.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from htxas.launch.work.journal import Returned, Started, read_journal
from htxas.store.outcomes import Outcome

__all__ = ["AT_ONCE", "Courier", "Delivered", "Recipient", "deliver_journals", "journals"]

AT_ONCE = 200
"""Outcomes of a delivery."""

_NOTE = "delivered.json"


class Recipient(Protocol):
    """What takes outcomes: the store."""

    def deliver(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Take outcomes; see :meth:`htxas.store.store.Store.deliver`."""
        ...


@dataclass(slots=True)
class Delivered:
    """What became of the journals of a folder.

    Attributes
    ----------
    stored, again, refused
        Outcomes that are new to the database, that it had already, and that it refused since another attempt has begun.
    in_hand
        Attempts that were being made when the journals ended, whoever holds the calculations now.
    """

    stored: int = 0
    again: int = 0
    refused: int = 0
    in_hand: set[Started] = field(default_factory=set)


def journals(folder: Path) -> list[Path]:
    """Return the journals of an agent, oldest first."""
    return sorted(folder.glob("journal-*.bin"), key=lambda p: (len(p.name), p.name))


class Courier:
    """Carries what is new in the journals of one folder.

    Parameters
    ----------
    folder
        The agent's.
    recipient
        Where to; None to look only.
    """

    def __init__(self, folder: Path, recipient: Recipient | None) -> None:
        self._folder = folder
        self._recipient = recipient
        self._offsets = _noted(folder)
        self._in_hand: dict[str, Started] = {}

    def carry(self) -> list[tuple[Outcome, str]]:
        """Deliver up to :data:`AT_ONCE` outcomes; return each with what became of it.

        Raises
        ------
        DatabaseUnavailable
            If the database does not come back; nothing is lost, the next call tries again.
        """
        offsets, in_hand = dict(self._offsets), dict(self._in_hand)
        outcomes: list[Outcome] = []
        for path in journals(self._folder):
            for record, end in read_journal(path, offsets.get(path.name, 0)):
                offsets[path.name] = end
                if isinstance(record, Started):
                    in_hand[path.name] = record
                    continue
                if isinstance(record, Returned):
                    if in_hand.get(path.name) == Started(record.key, record.attempt):
                        del in_hand[path.name]
                    continue
                in_hand.pop(path.name, None)
                outcomes.append(record)
                if len(outcomes) >= AT_ONCE:
                    break
            if len(outcomes) >= AT_ONCE:
                break
        answers = ["kept"] * len(outcomes)
        if self._recipient is not None and outcomes:
            answers = self._recipient.deliver(outcomes)
        moved = offsets != self._offsets
        self._offsets, self._in_hand = offsets, in_hand
        if moved and self._recipient is not None:
            self._note()
        return list(zip(outcomes, answers, strict=True))

    def in_hand(self, journal: str) -> Started | None:
        """Return what a journal, read to its end, says was started and has no outcome."""
        return self._in_hand.get(journal)

    @property
    def all_in_hand(self) -> set[Started]:
        """All that was started and has no outcome."""
        return set(self._in_hand.values())

    def _note(self) -> None:
        temporary = self._folder / (_NOTE + ".part")
        try:
            temporary.write_text(json.dumps(self._offsets))
            temporary.replace(self._folder / _NOTE)
        except (
            OSError
        ):  # a full disk: the next reader starts a little earlier, and the store knows what it has
            temporary.unlink(missing_ok=True)


def _noted(folder: Path) -> dict[str, int]:
    try:
        noted = json.loads((folder / _NOTE).read_text())
    except (OSError, ValueError):  # absent, or half of it: from the start, then
        return {}
    return {str(k): int(v) for k, v in noted.items()} if isinstance(noted, dict) else {}


def deliver_journals(recipient: Recipient, folder: Path) -> Delivered:
    """Deliver what an agent that no longer lives has left in its folder; removes nothing.

    Raises
    ------
    DatabaseUnavailable
        If the database goes away and does not come back; do it again.
    """
    courier, told = Courier(folder, recipient), Delivered()
    while carried := courier.carry():
        for _, answer in carried:
            setattr(told, answer, getattr(told, answer) + 1)
    # From the very start of the journals: what was in hand may lie before what is delivered.
    everything = Courier(folder, None)
    everything._offsets = {}
    while everything.carry():
        pass
    told.in_hand = everything.all_in_hand
    return told
