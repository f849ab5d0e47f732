from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner

from htxas.cli.db import db
from htxas.errors import DatabaseUnavailable, UserError
from htxas.store.store import Store


def call(*arguments):
    return CliRunner().invoke(db, arguments, catch_exceptions=False)


@pytest.mark.mongo
def test_up_status_down(require_mongod, tmp_path, monkeypatch):
    monkeypatch.setenv("HTXAS_HOME", str(tmp_path))
    assert call("status").exit_code == 1
    assert "never started" in call("status").output
    try:
        started = json.loads(call("up", "--json").output)
        assert started["state"] == "up"
        shown = call("status")
        assert shown.exit_code == 0
        assert f"on port {started['port']}" in shown.output
        secret = (tmp_path / "db" / "password").read_text().strip()
        assert secret not in shown.output
        monkeypatch.setenv("HTXAS_DB_URI_FILE", str(tmp_path / "db" / "uri"))
        assert json.loads(call("status", "--json").output)["version"] == started["version"]
        with pytest.raises(UserError, match="unset HTXAS_DB_URI_FILE"):
            call("up")
        monkeypatch.delenv("HTXAS_DB_URI_FILE")
    finally:
        stopped = call("down")
    assert stopped.output.startswith("stopped")
    assert call("down").output.startswith("was not running")
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match=r"not running \(htxas db up\)"):
        Store.open()
    assert time.monotonic() - started < 1
    assert json.loads(call("status", "--json").output)["state"] == "down"
