"""The demo as a script of commands: their order, its own home, and a database that is always stopped."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from htxas.cli import demo as module
from htxas.cli.main import COMMANDS, cli
from htxas.errors import UserError

Typed = list[tuple[str, ...]]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Record commands instead of running them."""
    words: Typed = []
    monkeypatch.setattr(module, "_type", lambda *w: words.append(w))
    return words


def test_the_commands_in_order(typed: Typed, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    result = CliRunner().invoke(module.demo, ["-j", "3", "--dir", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    names = [" ".join(w[:2]) if w[0] in {"db", "campaign", "molecule"} else w[0] for w in typed]
    assert names == [
        "db up", "campaign plan", "campaign submit", "run", "status", *["molecule plot"] * len(module.PICTURED),
        "train", "train", "db down",
    ]  # fmt: skip
    assert {w[0] for w in typed} <= set(COMMANDS)
    assert str(folder / "pictures") in result.output


def test_its_home_is_the_folder_and_nothing_stays(
    typed: Typed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HTXAS_HOME", "/elsewhere")
    monkeypatch.setenv("HTXAS_DB_URI", "mongodb://theirs")
    seen = []
    monkeypatch.setattr(
        module, "_type", lambda *_: seen.append((os.environ["HTXAS_HOME"], os.environ.get("HTXAS_DB_URI")))
    )
    result = CliRunner().invoke(module.demo, ["--dir", str(tmp_path / "d")], catch_exceptions=False)
    assert set(seen) == {(str(tmp_path / "d"), None)}
    assert "its own database" in result.output
    assert (os.environ["HTXAS_HOME"], os.environ["HTXAS_DB_URI"]) == ("/elsewhere", "mongodb://theirs")
    assert typed == []


def test_an_interrupt_stops_the_database_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words: Typed = []

    def type_it(*w: str) -> None:
        words.append(w)
        if w[0] == "run":
            raise click.Abort

    monkeypatch.setattr(module, "_type", type_it)
    with pytest.raises(click.Abort):
        cli.main(["demo", "--dir", str(tmp_path / "d")], standalone_mode=False)
    assert "carries on" in capsys.readouterr().out
    assert words[-2:] == [("run", "-j", "2", "--campaign", "quickstart"), ("db", "down")]


def test_a_server_that_ran_before_is_left_running(
    typed: Typed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    status = SimpleNamespace(state="up")
    monkeypatch.setattr("htxas.store.server.PrivateServer.status", lambda _: status)
    CliRunner().invoke(module.demo, ["--dir", str(tmp_path / "d")], catch_exceptions=False)
    assert typed[0] == ("db", "up")
    assert ("db", "down") not in typed


def test_a_folder_of_another_version_is_refused(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "demo-content").write_text("0" * 32 + "\n")
    with pytest.raises(UserError, match="another version"):
        CliRunner().invoke(module.demo, ["--dir", str(tmp_path)], catch_exceptions=False)
    assert typed == []


def test_a_command_that_fails_ends_the_demo_with_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "main", lambda **_: 3)
    with pytest.raises(click.exceptions.Exit) as exit_:
        module._type("status", "it's")
    assert exit_.value.exit_code == 3
    assert "$ htxas status 'it'\"'\"'s'" in capsys.readouterr().out


def test_paths_are_shown_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert module._shown(["plan", str(tmp_path / "a" / "b.yaml"), "/usr/x"]) == ["plan", "a/b.yaml", "/usr/x"]
