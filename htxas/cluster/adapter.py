"""What every scheduler module provides: commands as argument lists, and what their answers mean. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from htxas.cluster.host import Completed
from htxas.cluster.jobs import Cancelled, NodeInfo, Snapshot, Submission, Unknown

__all__ = ["Adapter"]


class Adapter(Protocol):
    """A scheduler.

    Attributes
    ----------
    programs
        Commands the host must have.
    batch
        Most ids in one command.
    asks_all
        Its query takes no ids: one answer tells about all jobs of the user.
    script_on_stdin
        Its submit command wants the script there, and ignores directives in a file it is named.
    """

    programs: tuple[str, ...]
    batch: int
    asks_all: bool
    script_on_stdin: bool

    def build_submit(self, script: str, *, name: str, array: int) -> list[str]:
        """Return the command that submits the script at path ``script``; tasks of an array count from 1."""

    def parse_submit(self, answer: Completed, *, array: int) -> Submission:
        """Return what became of a submission."""

    def build_trial(self, script: str) -> list[str] | None:
        """Return a command that looks at a script without submitting it, or None; it ends with 0 if all is well."""

    def build_query(self, ids: Sequence[str] | None, *, user: str) -> list[list[str]]:
        """Return commands that ask about ``ids``, or all jobs of ``user``; the first good answer counts."""

    def parse_query(self, answer: Completed, ids: Sequence[str] | None, *, user: str) -> Snapshot | Unknown:
        """Return the jobs in an answer, or why it is not one."""

    def build_accounting(self, ids: Sequence[str]) -> list[list[str]]:
        """Return commands that may know ended jobs, asked in turn until all are known; empty if there are none."""

    def parse_accounting(self, answer: Completed, ids: Sequence[str]) -> Snapshot | Unknown:
        """Return the ended jobs in an answer, or why it is not one."""

    def build_cancel(self, ids: Sequence[str]) -> list[str]:
        """Return the command that ends jobs."""

    def parse_cancel(self, answer: Completed, ids: Sequence[str]) -> Mapping[str, Cancelled]:
        """Return what became of each request."""

    def build_nodes(self) -> list[str] | None:
        """Return the command that lists nodes, or None if there is none."""

    def parse_nodes(self, answer: Completed) -> Mapping[str, NodeInfo] | Unknown:
        """Return nodes by name, or why the answer is not one."""
