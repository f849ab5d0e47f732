"""Start a program that dies with its parent: ``python -m htxas.launch.guard PARENT_PID SIGNAL PROGRAM ARGUMENTS...``.

A worker killed with SIGKILL cannot clean up after itself. On Linux the kernel does it: the program gets SIGNAL when the
process that started it ends (``PR_SET_PDEATHSIG`` outlives ``execve``). Elsewhere the program starts without that.
"""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Become the program; never returns."""
    parent, signal_number, *program = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
        if os.getppid() != int(parent):  # it died before the request took hold
            sys.exit(1)
    os.execvp(program[0], program)  # noqa: S606 - an argument list without a shell, given by htxas


if __name__ == "__main__":
    main(sys.argv[1:])
