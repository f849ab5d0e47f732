"""The command root: quick, lazy, and exit statuses that mean one thing each."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from htxas import __version__
from htxas.cli import main as root
from htxas.errors import Cause, EngineFailure, InternalError, NotFound

HEAVY = {
    "ase", "bson", "dask", "distributed", "fireworks", "h5py", "matplotlib", "numpy", "pandas", "pyarrow", "pydantic",
    "pymatgen", "pymongo", "pyscf", "rdkit", "scipy", "sklearn", "spglib", "tblite", "torch",
}  # fmt: skip


def _modules_after(code: str) -> set[str]:
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    return {name.partition(".")[0] for name in json.loads(out.splitlines()[-1])}


def test_help_loads_nothing_heavy() -> None:
    loaded = _modules_after("from htxas.cli.main import _run\nassert _run(['--help']) == 0")
    assert not loaded & HEAVY
    assert "click" in loaded


def test_help_starts_in_half_a_second() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "htxas.cli.main", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.5


# lpad hands --help to FireWorks, on a launchpad.
@pytest.mark.parametrize("name", [n for n in root.COMMANDS if n != "lpad"])
def test_every_command_has_help_and_defers_its_imports(name: str) -> None:
    target = root.COMMANDS[name][0].split(":")[0]
    loaded = _modules_after(f"import {target}")
    assert not loaded & HEAVY
    done = subprocess.run(
        [sys.executable, "-m", "htxas.cli.main", name, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage:")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert root._run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {name} ", shown, re.M) for name in root.COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert root._run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_unknown_command_offers_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert root._run(["stauts"]) == 1
    assert "Did you mean 'status'?" in capsys.readouterr().err


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Run the root as if its command had raised."""

    def run(error: BaseException) -> int:
        def raise_it(*_args: object, **_kwargs: object) -> None:
            raise error

        monkeypatch.setattr(root.cli, "main", raise_it)
        return root._run([])

    return run


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (
            NotFound("no such campaign", where="a", hint="htxas status"),
            1,
            "htxas: a: no such campaign (htxas status)\n",
        ),
        (EngineFailure(Cause.SCF_UNCONVERGED, "still\n moving"), 1, "htxas: still moving\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 1, "htxas: No space left on device: /x\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 1, "htxas: Permission denied: /x\n"),
        (KeyboardInterrupt(), 130, "htxas: interrupted\n"),
        (click.Abort(), 130, "htxas: interrupted\n"),
        (click.UsageError("no"), 1, "Error: no\n"),
    ],
)
def test_expected_errors_are_one_line(
    failing: Callable[[BaseException], int],
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    text: str,
) -> None:
    assert failing(error) == status
    assert capsys.readouterr().err == text


@pytest.mark.parametrize("error", [InternalError("impossible"), ZeroDivisionError("division by zero")])
def test_bugs_show_their_traceback(
    failing: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    assert failing(error) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "this is a bug in htxas" in shown


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "htxas.cli.main", "--help"],
        stdout=write, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")
