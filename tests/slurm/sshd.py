"""A real sshd on loopback, with keys of its own, and an ``ssh`` that knows it as ``login``."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["Sshd", "running", "why_not"]

_PRIVILEGE_SEPARATION = Path("/run/sshd")
_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/me.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
MaxStartups 100
SetEnv {environment}
"""
_CLIENT = """\
Host login
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/me
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known
    LogLevel ERROR
"""


def why_not() -> str | None:
    """Return why there can be no sshd here, or None."""
    missing = [name for name in ("sshd", "ssh", "ssh-keygen") if _program(name) is None]
    return f"{' '.join(missing)} not installed" if missing else None


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class Sshd:
    """The server.

    Parameters
    ----------
    folder
        Empty.
    environment
        Of every command over there.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = int(probe.getsockname()[1])
        self._made = False

    @property
    def client(self) -> Path:
        """Folder with an ``ssh`` for the front of PATH: the real one, with a configuration of its own."""
        return self.folder / "bin"

    def prepare(self) -> None:
        """Make keys and configurations."""
        for name in ("host", "me"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(command, check=True)
        public = (self.folder / "host.pub").read_text()
        (self.folder / "known").write_text(f"[127.0.0.1]:{self._port} {public}")
        facts = {"folder": self.folder, "port": self._port, "user": getpass.getuser()}
        setting = " ".join(f'{name}="{value}"' for name, value in self._environment.items())
        (self.folder / "sshd_config").write_text(_SERVER.format(**facts, environment=setting))
        (self.folder / "ssh_config").write_text(_CLIENT.format(**facts))
        self.client.mkdir()
        ssh = self.client / "ssh"
        real = shlex.quote(_program("ssh") or "ssh")
        ssh.write_text(f'#!/bin/sh\nexec {real} -F {shlex.quote(str(self.folder / "ssh_config"))} "$@"\n')
        ssh.chmod(0o755)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        if os.geteuid() == 0 and not _PRIVILEGE_SEPARATION.exists():
            _PRIVILEGE_SEPARATION.mkdir(mode=0o755)
            self._made = True
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program("sshd") or "sshd", "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.05)

    def stop(self) -> None:
        """End it; connections that are open go on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
        if self._made:
            shutil.rmtree(_PRIVILEGE_SEPARATION, ignore_errors=True)
            self._made = False


def running(folder: Path, environment: Mapping[str, str]) -> Iterator[Sshd]:
    """Yield a running server; stop it in the end."""
    server = Sshd(folder, environment)
    server.prepare()
    server.start()
    try:
        yield server
    finally:
        server.stop()
