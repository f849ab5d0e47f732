"""Start a program that dies with its parent: ``python -m htxas.launch.work.guard PARENT_PID SIGNAL PROGRAM ...``.

Whoever is killed with SIGKILL cannot clean up after itself. On Linux the kernel does it: the program gets SIGNAL when
the process that started it ends (``PR_SET_PDEATHSIG`` outlives ``execve``). Elsewhere the program starts without that.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["die_with", "main"]

_PR_SET_PDEATHSIG = 1


def die_with(parent: int, number: int = signal.SIGKILL) -> bool:
    """Have this process get a signal when its parent ends; False if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    return os.getppid() == parent  # it may have died before the request took hold


def main(arguments: list[str]) -> None:
    """Become the program; never returns."""
    parent, signal_number, *program = arguments
    if not die_with(int(parent), int(signal_number)):
        sys.exit(1)
    os.execvp(program[0], program)  # noqa: S606 - an argument list without a shell, given by htxas


if __name__ == "__main__":
    main(sys.argv[1:])
