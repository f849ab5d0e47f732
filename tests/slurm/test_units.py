"""The systemd units call commands that exist, and hold no secret."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from htxas.cli.main import cli

UNITS = Path(__file__).resolve().parents[2] / "deploy/systemd"


def values(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("name", ["htxas-submit@.service", "htxas-reconcile.service"])
def test_the_command_is_one(name: str) -> None:
    unit = values(UNITS / name)
    program, htxas, *arguments = unit["ExecStart"].replace("%i", "mycluster").split()
    assert (program, htxas) == ("/usr/bin/env", "htxas")
    done = CliRunner().invoke(cli, [*arguments, "--help"])
    assert done.exit_code == 0, done.output
    assert unit["NoNewPrivileges"] == "yes"
    assert unit["SuccessExitStatus"] == "130"  # what Ctrl-C makes of a command


def test_the_environment_names_files_and_no_address() -> None:
    environment = values(UNITS / "environment")
    assert {"HTXAS_HOME", "HTXAS_CONFIG", "HTXAS_DB_URI_FILE", "PATH"} <= set(environment)
    assert "mongodb" not in (UNITS / "environment").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_them(tmp_path: Path) -> None:
    for name, instance in (("htxas-submit@.service", "htxas-submit@x.service"),
                           ("htxas-reconcile.service", "htxas-reconcile.service")):  # fmt: skip
        (tmp_path / instance).write_text((UNITS / name).read_text())
        done = subprocess.run(
            ["systemd-analyze", "verify", "--user", str(tmp_path / instance)],
            capture_output=True, text=True, check=False, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        )  # fmt: skip
        assert not [line for line in done.stderr.splitlines() if instance in line], done.stderr
