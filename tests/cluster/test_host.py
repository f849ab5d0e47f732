"""Hosts: this one, one behind an ``ssh`` that only hands its command line to a shell, and one behind a real sshd."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from htxas.cluster.host import Host, LocalHost, SshHost, one_line
from htxas.errors import ClusterError
from tests.slurm.fixtures import absent
from tests.slurm.sshd import Sshd, running, why_not

SSH = """\
#!/bin/sh
# Options, --, host, one command line: what it gets is passed to the user's shell.
echo "$@" >> "{log}"
while [ "$1" != -- ]; do shift; done
[ "$2" = down.example.org ] && {{ echo "ssh: connect to host $2 port 22: No route to host" >&2; exit 255; }}
exec /bin/sh -c "$3"
"""


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ssh")
    program = folder / "ssh"
    program.write_text(SSH.format(log=folder / "log"))
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    if reason := why_not():
        absent("ssh", reason)
    yield from running(tmp_path_factory.mktemp("sshd"), {"PATH": os.environ["PATH"]})


REAL = pytest.param("sshd", marks=pytest.mark.ssh)
REAL_LOGIN = pytest.param("sshd login shell", marks=pytest.mark.ssh)


@pytest.fixture(params=["local", "ssh", "login shell", REAL, REAL_LOGIN])
def host(request: pytest.FixtureRequest, ssh: Path) -> Host:
    if request.param == "local":
        return LocalHost(20.0)
    if request.param.startswith("sshd"):
        program = request.getfixturevalue("sshd").client / "ssh"
        return SshHost("login", 20.0, program=str(program), login_shell=request.param == "sshd login shell")
    return SshHost("login.example.org", 20.0, program=str(ssh), login_shell=request.param == "login shell")


NASTY = ["a b", "$(id)", "`id`", "';id;'", '"', "*", "a\nb", "", "-n", "é", "\\", "~", "!x", "#c"]


def test_arguments_arrive_as_they_are(host: Host) -> None:
    done = host.run(["printf", "%s|", *NASTY])
    assert done.ok
    assert done.stdout == "".join(f"{word}|" for word in NASTY)


@settings(max_examples=25)
@given(
    words=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), max_size=4)
)
def test_any_arguments_arrive_as_they_are(ssh: Path, words: list[str]) -> None:
    done = SshHost("login.example.org", 20.0, program=str(ssh)).run(["printf", "%s|", *words])
    assert done.stdout == ("".join(f"{word}|" for word in words) or "|")


def test_status_and_both_streams(host: Host) -> None:
    done = host.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert not done.ok
    assert done.complaint() == "sh ended with 3: err"


def test_standard_input(host: Host) -> None:
    assert host.run(["cat"], stdin="x\ny").stdout == "x\ny"
    assert host.run(["cat"]).stdout == ""  # nothing waits for a terminal


def test_a_late_answer_is_a_problem(host: Host) -> None:
    begin = time.monotonic()
    done = host.run(["sleep", "20"], timeout_s=0.3)
    assert time.monotonic() - begin < 10
    assert done.returncode is None
    assert done.problem is not None
    assert "no answer within 0.3 s" in done.problem


def test_a_missing_program(host: Host) -> None:
    done = host.run(["htxas-no-such-program"])
    assert not done.ok
    assert "not found" in done.complaint() or "No such file" in done.complaint()


def test_files(host: Host, tmp_path: Path) -> None:
    path = str(tmp_path / "a b" / "$(x)" / "file")
    host.mkdir([str(Path(path).parent), str(tmp_path / "c")])
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700  # whatever the umask over there
    (tmp_path / "c").chmod(0o750)
    host.mkdir([str(tmp_path / "c")])
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o750
    assert host.get(path) is None
    host.put("one\nétwo", path)
    assert host.get(path) == "one\nétwo"
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    host.put("three", path, 0o700)
    assert Path(path).read_text() == "three"
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o700
    assert [p.name for p in Path(path).parent.iterdir()] == ["file"]


def test_files_that_cannot_be(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match="cannot be written"):
        host.put("x", f"{tmp_path}/none/x")
    with pytest.raises(ClusterError, match="cannot be made"):
        host.mkdir([f"{tmp_path}/file/x"])
    with pytest.raises(ClusterError, match="cannot be read"):
        host.get(str(tmp_path))


def test_no_connection_is_a_problem_of_the_host(ssh: Path) -> None:
    host = SshHost("down.example.org", program=str(ssh))
    done = host.run(["squeue"])
    assert done.complaint() == (
        "squeue: down.example.org: ssh: connect to host down.example.org port 22: No route to host"
    )
    with pytest.raises(ClusterError, match=r"down\.example\.org"):
        host.put("x", "/x")


def test_ssh_never_asks_and_never_waits_for_ever(ssh: Path) -> None:
    SshHost("login.example.org", program=str(ssh)).run(["true"])
    said = (ssh.parent / "log").read_text().splitlines()[-1]
    assert "-o BatchMode=yes" in said
    assert "-o ConnectTimeout=" in said
    assert said.endswith("-- login.example.org true")


def test_a_host_is_never_an_option() -> None:
    with pytest.raises(ClusterError):
        SshHost("-oProxyCommand=touch /tmp/x")


def test_the_database_address_stays_here(ssh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTXAS_DB_URI", "mongodb://me:secret@db/")
    for host in (LocalHost(), SshHost("login.example.org", program=str(ssh))):
        assert "secret" not in host.run(["env"]).stdout
    assert "HTXAS_DB_URI" in os.environ


def test_undecodable_output_is_replaced() -> None:
    assert LocalHost().run(["printf", r"\377x"]).stdout == "�x"


def test_one_line() -> None:
    assert one_line("a\n b\x1b[0m") == "a b?[0m"
    assert one_line("x" * 500).startswith("...")
    assert len(one_line("x" * 500)) == 303
