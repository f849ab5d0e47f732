"""The commands, from file to retry, as a user calls them."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fireworks import LaunchPad

from htxas.cli.main import cli
from htxas.errors import NotFound
from htxas.launch.pad import lpad as lpad_module
from htxas.store.store import Store

pytestmark = pytest.mark.mongo


@pytest.fixture
def htxas(store: Store, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Call a command on the test's own database."""
    real = Store.open
    monkeypatch.setattr(Store, "open", staticmethod(lambda **kw: real(**{"name": store.name, **kw})))

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


def test_from_plan_to_retry(
    htxas: Callable[..., str],
    write: Callable[..., Path],
    launchpad: LaunchPad,
    compute_all: Callable[[], Any],
) -> None:
    path = str(write(fail={"C2F:0": "crash"}, fail_attempts=2))  # the second attempt is the ladder's
    planned = json.loads(htxas("campaign", "plan", path, "--json"))
    assert (planned["molecules"], planned["sites"], planned["new"], planned["checked"]) == (3, 6, 9, True)
    assert "nothing was written" in htxas("campaign", "plan", path)
    assert "nothing was written" in htxas("campaign", "submit", path, "--dry-run")
    assert "no campaign yet" in htxas("campaign", "list")
    assert "9 calculations" in htxas("campaign", "submit", path)
    assert "nothing to add" in htxas("campaign", "submit", path)
    assert "chains" in htxas("campaign", "list")
    compute_all()
    seen = json.loads(htxas("status", "chains", "--json"))["campaigns"][0]
    assert (seen["counts"]["done"], seen["causes"]) == (8, {"engine_crash": 1})
    assert "1 engine_crash" in htxas("status")
    shown = htxas("failures", "chains")
    assert "engine_crash: 1 calculation failed" in shown
    assert "not physics" in shown
    assert "htxas retry chains --cause engine_crash" in shown
    assert "nothing to retry" in htxas("retry", "chains", "--cause", "walltime")
    assert "1 calculation is ready again" in htxas("retry", "chains", "--cause", "engine_crash")
    compute_all()
    assert json.loads(htxas("campaign", "list", "--json"))[0]["counts"]["done"] == 9
    assert "nothing failed" in htxas("failures")


def test_plan_without_a_database(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTXAS_HOME", str(tmp_path / "nowhere"))
    monkeypatch.delenv("HTXAS_DB_URI", raising=False)
    result = CliRunner().invoke(cli, ["campaign", "plan", str(write())], catch_exceptions=False)
    assert result.exit_code == 0
    assert "without a database" in result.stdout
    assert "htxas db up" in result.stdout


def test_unknown_campaigns_are_named(htxas: Callable[..., str]) -> None:
    for command in (["status", "nix"], ["failures", "nix"], ["retry", "nix"], ["run", "-c", "nix"]):
        with pytest.raises(NotFound, match="no campaign is called 'nix'"):
            htxas(*command)


def test_lpad_gets_no_secret_on_its_command_line(
    store: Store, launchpad: LaunchPad, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    class Done:
        returncode = 0

    def look(command: list[str], check: bool) -> Done:
        path = Path(command[command.index("-l") + 1])
        seen["mode"] = stat.S_IMODE(path.stat().st_mode)
        seen["host"] = json.loads(path.read_text())["host"]
        seen["command"] = " ".join(command)
        seen["path"] = path
        return Done()

    monkeypatch.setattr(lpad_module.subprocess, "run", look)
    assert lpad_module.lpad(store, ["get_fws", "-d", "count"]) == 0
    assert seen["mode"] == 0o600
    assert seen["host"] == store.uri_for_launchpad()
    assert store.uri_for_launchpad() not in seen["command"]
    assert "mongodb" not in seen["command"]
    assert not seen["path"].exists()


def test_lpad_helps_without_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTXAS_HOME", str(tmp_path / "nowhere"))
    monkeypatch.delenv("HTXAS_DB_URI", raising=False)
    assert CliRunner().invoke(cli, ["lpad", "get_fws", "--help"]).exit_code == 0
    assert "usage: lpad get_fws" in capfd.readouterr().out


def test_lpad_answers(
    store: Store,
    launchpad: LaunchPad,
    home: Path,
    capfd: pytest.CaptureFixture[str],
    submitted: Callable[..., Any],
) -> None:
    done = submitted()
    assert lpad_module.lpad(store, ["get_fws", "-d", "count"]) == 0
    assert capfd.readouterr().out.strip().endswith(str(done.batches))
