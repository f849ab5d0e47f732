"""``htxas queue check`` and ``preview``, on this host without a scheduler."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from htxas.cli.main import cli
from htxas.cluster.check import Verdict, check
from htxas.cluster.host import Completed
from htxas.cluster.queue import open_queue
from tests.cluster.profiles import profile, write_config
from tests.cluster.test_queue import Replay

LOCAL: dict[str, Any] = {"scheduler": "local", "python": sys.executable, "pilots": {"workers": 2}}


def findings(folder: Path, host: Any = None, **changes: Any) -> dict[str, tuple[Verdict, str]]:
    queue = open_queue(profile(folder, **{**LOCAL, "home": str(folder / "home"), **changes}), host)
    return {f.what: (f.verdict, f.detail) for f in check(queue)}


def test_a_workstation(tmp_path: Path) -> None:
    found = findings(tmp_path, database="none", scratch=str(tmp_path / "scratch"))
    assert {what for what, (verdict, _) in found.items() if verdict is Verdict.PROBLEM} == set()
    assert found["home"][0] is found["python"][0] is found["queue"][0] is found["scratch"][0] is Verdict.OK
    assert list((tmp_path / "home/pilots").iterdir()) == []  # nothing is left behind


def test_problems_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = findings(
        tmp_path,
        home=str(tmp_path / "file/home"),
        python="/none/python",
        scratch=str(tmp_path / "file/scratch"),
        engines={"pyscf": {"program": ["/none/castep.mpi"]}},
        database={"uri_file": "/none/uri"},
    )
    assert found["home"] == (
        Verdict.PROBLEM,
        f"{tmp_path}/file/home/pilots/" + found["home"][1].split("pilots/")[1],
    )
    assert found["python"][0] is Verdict.PROBLEM
    assert found["database"][0] is Verdict.PROBLEM
    assert found["scratch"][0] is Verdict.NOTE  # the nodes' may be another
    assert found["engine pyscf"] == (Verdict.PROBLEM, "/none/castep.mpi is not found on this host")


def test_an_engine_may_come_with_setup(tmp_path: Path) -> None:
    found = findings(tmp_path, engines={"pyscf": {"program": ["castep.mpi"]}}, setup=["module load castep"])
    assert found["engine pyscf"][0] is Verdict.NOTE


def test_the_database_answers_or_says_why(tmp_path: Path, mongod_uri: str) -> None:
    uri = tmp_path / "uri"
    uri.write_text(mongod_uri)
    uri.chmod(0o644)
    verdict, detail = findings(tmp_path, database={"uri_file": str(uri)})["database"]
    assert (verdict, "chmod 600" in detail) == (Verdict.PROBLEM, True)
    uri.chmod(0o600)
    verdict, detail = findings(tmp_path, database={"uri_file": str(uri)})["database"]
    assert (verdict, "answers this host" in detail) == (Verdict.OK, True)
    assert mongod_uri not in detail


def test_an_address_of_one_host_is_of_no_use_to_nodes(tmp_path: Path) -> None:
    def python(argv: list[str]) -> Completed:
        return Completed(tuple(argv), 0, "127.0.0.1:27017\n" if "HTXAS_DB_URI=" in argv else "0.0.0\n")

    host = Replay(
        uname=Completed((), 0, "login1\n"), sh=Completed((), 0, "/usr/bin/x\n"), rm=Completed((), 0),
        sbatch=Completed((), 1, "", "sbatch: error: invalid partition specified: main\n"),
        squeue="slurm/running", sinfo="slurm/nodes",
    )  # fmt: skip
    host.answers["/usr/bin/python3"] = python
    found = findings(tmp_path, host, scheduler="slurm", python="/usr/bin/python3")
    assert found["database"][0] is Verdict.PROBLEM
    assert "good on one host only" in found["database"][1]
    assert found["partition main"] == (
        Verdict.PROBLEM, "sbatch ended with 1: sbatch: error: invalid partition specified: main"
    )  # fmt: skip
    assert "install the same" in found["python"][1]
    assert found["queue"] == (Verdict.OK, "answers; 7 of your jobs are waiting or running")


def test_a_host_that_is_down_ends_it(tmp_path: Path) -> None:
    host = Replay(uname=Completed(("uname",), 255, problem="login: No route to host"))
    assert findings(tmp_path, host) == {"host": (Verdict.PROBLEM, "uname: login: No route to host")}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_config(tmp_path)
    monkeypatch.setenv("HTXAS_CONFIG", str(path))
    return path


def test_preview_prints_the_very_script(config: Path) -> None:
    done = CliRunner().invoke(
        cli, ["queue", "preview", "--cluster", "mine", "--campaign", "a b", "--pilots", "3"]
    )
    assert done.exit_code == 0
    assert done.output.startswith("#!/bin/bash\n#SBATCH --job-name=htxas-preview\n")
    assert "#SBATCH --array=1-3\n" in done.output
    assert "--campaign 'a b'" in done.output
    as_json = CliRunner().invoke(cli, ["queue", "preview", "--campaign", "a b", "--pilots", "3", "--json"])
    document = json.loads(as_json.output)
    assert document["script"] == done.output
    assert (document["cluster"], document["scheduler"], document["partition"]) == ("mine", "slurm", "main")


def test_check_ends_with_1_if_something_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_config(tmp_path, **{**LOCAL, "home": str(tmp_path / "home"), "database": "none"})
    monkeypatch.setenv("HTXAS_CONFIG", str(path))
    good = CliRunner().invoke(cli, ["queue", "check"])
    assert good.exit_code == 0
    assert "can be written" in good.output
    path = write_config(tmp_path, **{**LOCAL, "home": str(tmp_path / "home"), "python": "/none/python"})
    bad = CliRunner().invoke(cli, ["queue", "check", "--json"], standalone_mode=False)
    assert bad.return_value == 1
    assert {f["what"] for f in json.loads(bad.output)["findings"] if f["verdict"] == "problem"} >= {"python"}


def test_help_lists_all_verbs(config: Path) -> None:
    done = CliRunner().invoke(cli, ["queue", "--help"])
    for verb in ("check", "preview", "submit", "status", "cancel"):
        assert f"\n  {verb}" in done.output
