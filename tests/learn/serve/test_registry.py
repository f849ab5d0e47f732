"""Trained models in the database, beside those on disk."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from htxas.cli.main import _run
from htxas.errors import DatabaseUnavailable, DatasetError, NotFound, StoreError, UserError
from htxas.learn.runs.training import Trained
from htxas.learn.serve.model import find_model
from htxas.learn.serve.registry import compare, find_record, known, record_of, register
from htxas.store.records import ModelRecord


def _folders(trained: Trained) -> list[Path]:
    return [trained.out_dir / "models" / name for name in trained.summary["models"].values()]


@pytest.fixture
def record(trained: Trained) -> ModelRecord:
    return record_of(find_model("t/gap-A", trained.out_dir.parent))


@pytest.fixture
def open_store(store: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    from htxas.store.store import Store

    monkeypatch.setattr(Store, "open", staticmethod(lambda: nullcontext(store)))
    return store


def test_a_record_is_the_card_without_its_test_rows(record: ModelRecord, trained: Trained) -> None:
    card = trained.cards["gap-A"]
    assert (record.key, record.name, record.training) == (card["key"], "gap-A", "t")
    assert record.dataset["key"] == trained.dataset.key
    assert record.dataset["path"] == str(trained.dataset.path)
    assert record.targets["gap"]["metrics"] == card["targets"]["gap"]["metrics"]
    assert not {"test", "history", "spec"} & set(record.card)
    assert len(json.dumps(dataclasses.asdict(record), default=str)) < 20_000
    assert record.created is None
    with pytest.raises(DatasetError, match="not a trained model"):
        record_of(trained.out_dir)


@pytest.mark.mongo
def test_models_are_stored_once_and_found_by_the_start_of_their_key(store: Any, record: ModelRecord) -> None:
    before = datetime.now(UTC)
    other = dataclasses.replace(record, key="0" * 32, name="gap-B")
    assert store.put_models([record, other]) == 2
    moved = dataclasses.replace(record, folder="/elsewhere", host="other")
    assert store.put_models([moved]) == 0
    found = store.model(record.key[:6])
    assert found.folder == "/elsewhere"
    assert found.created is not None
    assert (found.created - before).total_seconds() > -1
    assert dataclasses.replace(found, created=None) == moved
    assert {r.key for r in store.models()} == {record.key, other.key}
    assert {r.key for r in store.models(dataset_key=record.dataset["key"])} == {record.key, other.key}
    assert store.models(dataset_key="x") == []
    for key, words in [
        ("zz", "is not the key of a model"),
        ("f" * 32, "no registered model's key starts with"),
    ]:
        with pytest.raises(NotFound, match=words):
            store.model(key)
    store.put_models([dataclasses.replace(record, key="00" + "1" * 30)])
    with pytest.raises(UserError, match="several models start with '00'"):
        store.model("00")


@pytest.mark.mongo
def test_a_document_of_a_newer_htxas_and_one_that_is_no_model_are_refused(
    store: Any, record: ModelRecord
) -> None:
    store.put_models([record])
    with pytest.raises(StoreError, match="refuses a document"):
        store._persist(store._db["models"].insert_one, {"_id": "x", "schema": 1})
    store._db["models"].update_one({"_id": record.key}, {"$set": {"schema": 2}})
    with pytest.raises(StoreError, match="model document of schema 2"):
        store.model(record.key)


@pytest.mark.mongo
def test_registered_models_and_those_only_on_disk_are_one_list(
    open_store: Any, trained: Trained, record: ModelRecord
) -> None:
    models = trained.out_dir.parent
    assert register(_folders(trained)[:2]) == (
        2,
        "registered in the database: 2 models, 2 new (htxas model list)",
    )
    assert register(_folders(trained)[:2])[1].endswith("2 models, 0 new (htxas model list)")
    listed = known(models, open_store)
    assert len(listed) == len(trained.summary["models"]) == 4
    assert [r.created is None for r in listed] == [False, False, True, True]
    assert find_record(record.key[:8], models, open_store).key == record.key
    assert find_record("t/gap-A", models, open_store).created is not None
    assert find_record("t/pdos-B", models, open_store).created is None
    with pytest.raises(NotFound, match="did you mean"):
        find_record("t/gap-C", models, open_store)


def test_without_a_database_models_are_listed_from_disk(trained: Trained) -> None:
    registered, said = register(_folders(trained))
    assert registered is None
    assert said.startswith("not registered: ")
    assert "htxas db up" in said
    assert "\n" not in said
    assert len(known(trained.out_dir.parent, said)) == 4
    with pytest.raises(NotFound, match="the database was not asked"):
        find_record("ffff", trained.out_dir.parent, "it is down")


def test_a_database_that_goes_away_meanwhile_is_no_failure(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    from htxas.store.store import Store

    class Gone:
        def put_models(self, records: Any) -> int:
            raise DatabaseUnavailable("the database does not answer")

    monkeypatch.setattr(Store, "open", staticmethod(lambda: nullcontext(Gone())))
    assert register(_folders(trained)) == (None, "not registered: the database does not answer")


def test_models_are_compared_and_what_differs_is_said(record: ModelRecord, trained: Trained) -> None:
    other = record_of(find_model("t/gap-B", trained.out_dir.parent))
    found = compare([record, other])
    assert (found.targets, found.same_test, found.notes) == (("gap",), True, ())
    elsewhere = dataclasses.replace(
        other, test_set="x", dataset={**other.dataset, "key": "y", "method": {}}, code={"htxas": "0"}
    )
    notes = compare([record, elsewhere]).notes
    assert len(notes) == 4
    assert "their test sets differ (18, 18 rows)" in notes[0]
    with pytest.raises(UserError, match=r"nothing that all of them predict \(gap-A: gap; pdos-A: pdos\)"):
        compare([record, record_of(find_model("t/pdos-A", trained.out_dir.parent))])


@pytest.mark.mongo
def test_the_commands(
    open_store: Any,
    trained: Trained,
    record: ModelRecord,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTXAS_HOME", str(trained.out_dir.parent.parent))
    register(_folders(trained))
    assert _run(["model", "list"]) == 0
    shown = capsys.readouterr().out
    assert "t/gap-A" in shown
    assert "here" in shown
    assert _run(["model", "list", "--target", "pdos", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["database"] == "asked"
    assert sorted(m["name"] for m in document["models"]) == ["pdos-A", "pdos-B"]
    assert _run(["model", "show", record.key[:8]]) == 0
    shown = capsys.readouterr().out
    for words in ("grouped conformal", "ridge", record.folder, "UTC"):
        assert words in shown
    assert _run(["model", "show", "t/gap-A", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == record.key
    assert _run(["model", "compare", "t/gap-A", "t/gap-B"]) == 0
    assert "best baseline" in capsys.readouterr().out
    assert _run(["model", "compare", "t/gap-A", "t/gap-B", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same_test_set"] is True


def test_the_commands_without_a_database(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["model", "list"]) == 0
    shown = capsys.readouterr().out
    assert "no models; htxas train FILE.yaml" in shown
    assert "on this machine only: " in shown
    for arguments, words in [
        (["model", "show", "x"], "no model 'x'"),
        (["model", "compare", "x"], "give two models or more"),
        (["model", "export", "x", "-o", "x.onnx"], "no model 'x'"),
    ]:
        assert _run(arguments) == 1
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
