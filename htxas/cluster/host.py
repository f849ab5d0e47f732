"""Where commands run: on this host, or on another one through OpenSSH. No shell sees a command line made here.

OpenSSH joins its arguments with blanks and hands the text to the user's shell over there; so the remote side gets
:func:`shlex.join` of an argument list, and nothing else is ever written as a shell command. Keys, agents, jump hosts
and connection sharing are the business of the user's own ``~/.ssh/config``.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from htxas.errors import ClusterError

__all__ = ["Completed", "Host", "LocalHost", "SshHost", "one_line"]

_SSH_FAILED = 255
_CONNECT_TIMEOUT_S = 20
# Fixed texts; the values come as positional parameters.
_PUT = 'umask 077 && cat > "$1.part" && chmod "$2" "$1.part" && mv -f "$1.part" "$1"'
_LOGIN = ["bash", "-lc", 'exec "$0" "$@"']


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that was run, or tried.

    Attributes
    ----------
    argv
        What was run.
    returncode
        None if it never ended on its own (timeout) or never began.
    stdout, stderr
        What it said; undecodable bytes are replaced.
    problem
        Why its answer must not be trusted (no answer in time, no connection, no such program), or None.
    """

    argv: tuple[str, ...]
    returncode: int | None
    stdout: str = ""
    stderr: str = ""
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Ended by itself with 0."""
        return self.problem is None and self.returncode == 0

    @property
    def program(self) -> str:
        """Name of the program, for messages."""
        words = [w for w in self.argv if "=" not in w]
        return Path(words[1] if words[:1] == ["env"] and len(words) > 1 else words[0]).name

    def complaint(self) -> str:
        """Return what went wrong, in one line."""
        if self.problem is not None:
            return f"{self.program}: {self.problem}"
        said = one_line(self.stderr) or one_line(self.stdout) or "no output"
        return f"{self.program} ended with {self.returncode}: {said}"


def one_line(text: str, limit: int = 300) -> str:
    """Return ``text`` as one printable line of at most ``limit`` characters; its end counts most."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= limit else "..." + line[-limit:]


class Host(Protocol):
    """A place where commands run and files are written."""

    @property
    def name(self) -> str:
        """For messages."""

    def run(
        self, argv: Sequence[str], *, timeout_s: float | None = None, stdin: str | None = None
    ) -> Completed:
        """Run a command; never raises for what the command does."""

    def put(self, text: str, path: str, mode: int = 0o600) -> None:
        """Write a file in one piece.

        Raises
        ------
        ClusterError
            If it cannot be written.
        """

    def get(self, path: str) -> str | None:
        """Return a file's text, or None if there is none.

        Raises
        ------
        ClusterError
            If that cannot be told.
        """

    def mkdir(self, paths: Sequence[str]) -> None:
        """Make folders, for their user alone, and their parents where missing.

        Raises
        ------
        ClusterError
            If one cannot be made.
        """


def _run(
    argv: Sequence[str],
    shown: Sequence[str],
    timeout_s: float,
    stdin: str | None,
    environment: dict[str, str],
) -> Completed:
    """Run ``argv``, report it as ``shown``."""
    try:
        # A session of its own: Ctrl-C in the terminal must not end sbatch between accepting a job and saying so.
        done = subprocess.run(
            list(argv),
            input=(stdin or "").encode(),
            capture_output=True,
            timeout=timeout_s,
            check=False,
            env=environment,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as late:
        out, err = (_text(b) for b in (late.stdout, late.stderr))
        return Completed(tuple(shown), None, out, err, f"no answer within {timeout_s:g} s")
    except OSError as error:
        return Completed(tuple(shown), None, problem=error.strerror or str(error))
    return Completed(tuple(shown), done.returncode, _text(done.stdout), _text(done.stderr))


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")


class LocalHost:
    """The host htxas runs on.

    Parameters
    ----------
    timeout_s
        Patience with one command where the call does not say.
    """

    def __init__(self, timeout_s: float = 60.0) -> None:
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        """Say ``this host``."""
        return "this host"

    def run(
        self, argv: Sequence[str], *, timeout_s: float | None = None, stdin: str | None = None
    ) -> Completed:
        """Run a command without the database's address in its environment."""
        # Some schedulers copy the submitter's environment into the job and its records.
        environment = {k: v for k, v in os.environ.items() if k != "HTXAS_DB_URI"}
        return _run(argv, argv, timeout_s or self._timeout_s, stdin, environment)

    def put(self, text: str, path: str, mode: int = 0o600) -> None:
        """Write a file in one piece."""
        target = Path(path)
        part = target.with_name(target.name + ".part")
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as stream:  # noqa: PTH123  an open descriptor has no Path
                stream.write(text)
            part.chmod(mode)
            part.replace(target)
        except OSError as error:
            raise ClusterError(f"cannot be written: {error.strerror}", where=path) from None

    def get(self, path: str) -> str | None:
        """Return a file's text, or None if there is none."""
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ClusterError(f"cannot be read: {error.strerror}", where=path) from None

    def mkdir(self, paths: Sequence[str]) -> None:
        """Make folders, for their user alone, and their parents where missing."""
        for path in paths:
            try:
                Path(path).mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise ClusterError(f"the folder cannot be made: {error.strerror}", where=path) from None


class SshHost:
    """Another host, through the OpenSSH client.

    Parameters
    ----------
    address
        As ``ssh`` takes it: a name, ``user@name``, or a ``Host`` of the user's ``~/.ssh/config``.
    timeout_s
        Patience with one command where the call does not say.
    login_shell
        Run commands from a login shell, for hosts where only that knows the scheduler.
    program
        The OpenSSH client.
    """

    def __init__(
        self, address: str, timeout_s: float = 60.0, *, login_shell: bool = False, program: str = "ssh"
    ) -> None:
        if address.startswith("-"):
            raise ClusterError(f"{address!r} is not a host")  # ssh would read it as an option
        self._address = address
        self._timeout_s = timeout_s
        self._login = _LOGIN if login_shell else []
        self._program = program

    @property
    def name(self) -> str:
        """The address."""
        return self._address

    def run(
        self, argv: Sequence[str], *, timeout_s: float | None = None, stdin: str | None = None
    ) -> Completed:
        """Run a command over there."""
        ssh = [self._program, "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_TIMEOUT_S}", "-T"]
        command = [*ssh, "--", self._address, shlex.join([*self._login, *argv])]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HTXAS_DB_")}
        done = _run(command, argv, timeout_s or self._timeout_s, stdin, environment)
        if done.problem is not None:
            return Completed(done.argv, None, done.stdout, done.stderr, f"{self._address}: {done.problem}")
        if done.returncode == _SSH_FAILED:  # ssh's own status; a command's 255 cannot be told from it
            said = one_line(done.stderr) or "the connection failed"
            return Completed(done.argv, _SSH_FAILED, done.stdout, done.stderr, f"{self._address}: {said}")
        return done

    def put(self, text: str, path: str, mode: int = 0o600) -> None:
        """Write a file in one piece."""
        done = self.run(["sh", "-c", _PUT, "sh", path, f"{mode:o}"], stdin=text)
        if not done.ok:
            raise ClusterError(f"cannot be written: {done.complaint()}", where=f"{self._address}:{path}")

    def get(self, path: str) -> str | None:
        """Return a file's text, or None if there is none."""
        done = self.run(["sh", "-c", 'test -e "$1" || exit 44; cat < "$1"', "sh", path])
        if done.returncode == 44 and done.problem is None:
            return None
        if not done.ok:
            raise ClusterError(f"cannot be read: {done.complaint()}", where=f"{self._address}:{path}")
        return done.stdout

    def mkdir(self, paths: Sequence[str]) -> None:
        """Make folders, for their user alone, and their parents where missing."""
        for start in range(0, len(paths), 500):
            done = self.run(["mkdir", "-p", "-m", "700", "--", *paths[start : start + 500]])
            if not done.ok:
                raise ClusterError(f"folders cannot be made: {done.complaint()}", where=self._address)
