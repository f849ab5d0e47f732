"""Models on disk and models in the database, as one list of the same records."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from htxas.domain.identity import content_key
from htxas.errors import DatabaseUnavailable, DatasetError, NotFound, StoreError, UserError
from htxas.learn.data.dataset import CARD
from htxas.learn.runs.run import WEIGHTS
from htxas.learn.runs.summary import METRICS
from htxas.learn.serve.model import find_model
from htxas.store.records import ModelRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from htxas.store.store import Store

__all__ = [
    "Comparison",
    "compare",
    "database",
    "find_folder",
    "find_record",
    "known",
    "on_disk",
    "record_of",
    "register",
]

_NOT_IN_CARD = frozenset({"key", "name", "dataset", "spec", "code", "targets", "test", "history", "schema"})


@contextmanager
def database() -> Iterator[Store | str]:
    """Open the database, or give the reason why not: models are of use without one."""
    from htxas.store.store import Store

    store: Store | None = None
    why = ""
    try:
        store = Store.open()
    except (DatabaseUnavailable, StoreError) as error:
        why = " ".join(str(error).split())
    if store is None:
        yield why
        return
    with store as opened:
        yield opened


def record_of(folder: Path) -> ModelRecord:
    """Return the record of a model's folder.

    Raises
    ------
    DatasetError
        If it is none.
    """
    try:
        card = json.loads((folder / CARD).read_text())
        training = folder.resolve().parent.parent
        return ModelRecord(
            key=card["key"],
            name=card["name"],
            training=training.name,
            dataset={**card["dataset"], "path": _dataset_path(training)},
            spec=card["spec"],
            code=card["code"],
            targets=card["targets"],
            test_set=content_key({"test": sorted(card["test"]["ids"])}),
            card={k: v for k, v in card.items() if k not in _NOT_IN_CARD},
            host=socket.gethostname(),
            folder=str(folder.resolve()),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError("this is not a trained model", where=str(folder)) from error


def _dataset_path(training: Path) -> str | None:
    try:
        return str(json.loads((training / METRICS).read_text())["dataset"]["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def register(folders: Iterable[Path]) -> tuple[int | None, str]:
    """Put models into the database; return how many, or None without one, and one line that says so.

    Never fails for want of a database: models on disk are complete.
    """
    records = [record_of(folder) for folder in folders]
    with database() as store:
        if isinstance(store, str):
            return None, f"not registered: {store}"
        try:
            new = store.put_models(records)
        except (DatabaseUnavailable, StoreError) as error:
            return None, f"not registered: {error}"
    return len(records), f"registered in the database: {len(records)} models, {new} new (htxas model list)"


def on_disk(models: Path) -> list[ModelRecord]:
    """Return the models of all trainings in a folder."""
    found = []
    for summary in sorted(models.glob(f"*/{METRICS}")):
        for folder in sorted((summary.parent / "models").glob("*")):
            if (folder / CARD).is_file() and (folder / WEIGHTS).is_file():
                try:
                    found.append(record_of(folder))
                except DatasetError:  # of an older htxas
                    continue
    return found


def known(models: Path, store: Store | str) -> list[ModelRecord]:
    """Return registered models, newest first, then those that are only on this machine's disk."""
    registered = [] if isinstance(store, str) else store.models()
    keys = {r.key for r in registered}
    return registered + [r for r in on_disk(models) if r.key not in keys]


def find_record(text: str, models: Path, store: Store | str) -> ModelRecord:
    """Return a model by its folder, ``TRAINING/gap-A``, or the start of a registered key.

    Raises
    ------
    NotFound
        If it is neither on this machine nor in the database.
    """
    try:
        return _registered(record_of(find_model(text, models)), store)
    except NotFound as error:
        if isinstance(store, str):
            raise NotFound(f"{error.message}; the database was not asked: {store}", hint=error.hint) from None
        try:
            return store.model(text)
        except NotFound:
            raise error from None


def find_folder(text: str, models: Path, store: Store | str) -> Path:
    """Return the folder of a model given as in :func:`find_record`.

    Raises
    ------
    NotFound
        If there is no such model, or it is on another machine, or its folder has gone.
    """
    record = find_record(text, models, store)
    if Path(record.folder).is_dir():
        return Path(record.folder)
    raise NotFound(f"the model's folder is not here: {record.host}:{record.folder}", where=record.name)


def _registered(record: ModelRecord, store: Store | str) -> ModelRecord:
    if isinstance(store, str):
        return record
    try:
        return replace(record, created=store.model(record.key).created)
    except NotFound:
        return record


@dataclass(frozen=True, slots=True)
class Comparison:
    """Models that predict the same, side by side.

    Attributes
    ----------
    records
        In the order asked for.
    targets
        What all of them predict.
    same_test
        Whether they were tested on the same rows.
    notes
        Why numbers may not be compared; what else differs.
    """

    records: tuple[ModelRecord, ...]
    targets: tuple[str, ...]
    same_test: bool
    notes: tuple[str, ...]


def compare(records: Sequence[ModelRecord]) -> Comparison:
    """Compare models.

    Raises
    ------
    UserError
        If there is nothing that all of them predict.
    """
    common = [t for t in records[0].targets if all(t in r.targets for r in records)]
    if not common:
        predicts = "; ".join(f"{r.name}: {' '.join(r.targets)}" for r in records)
        raise UserError(
            f"there is nothing that all of them predict ({predicts})", where="htxas model compare"
        )
    notes = []
    same_test = len({r.test_set for r in records}) == 1
    if not same_test:
        counts = ", ".join(str(r.card["counts"]["test"]) for r in records)
        notes.append(
            f"their test sets differ ({counts} rows): a difference between these numbers may be the test sets'"
        )
    if len({r.dataset["key"] for r in records}) > 1:
        notes.append("they were trained on different datasets")
    if len({str(r.dataset["method"]) for r in records}) > 1:
        notes.append("their spectra were computed by different methods")
    if len({str(sorted(r.code.items())) for r in records}) > 1:
        notes.append("they were trained by different versions of htxas, torch or numpy")
    return Comparison(tuple(records), tuple(common), same_test, tuple(notes))
