"""What around the process could change its numbers: kept out, refused or told. Importing it does not import PySCF."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from htxas.errors import Cause, EngineFailure

__all__ = ["keep_out_configuration", "refuse_configuration", "surroundings"]

_VARIABLE = "PYSCF_CONFIG_FILE"
_OURS = Path(__file__).with_name("configuration.py")
_TOLD = ("PYSCF_", "PYTHON", "OMP_", "MKL_", "OPENBLAS_", "BLIS_", "LD_PRELOAD", "LD_LIBRARY_PATH")


def keep_out_configuration() -> None:
    """Let PySCF, once it is imported, read no configuration file: one can change grids, integrals and relativity.

    It takes the first that exists: the one of this variable, one in the working directory, one at home. So it gets one
    of ours, which says nothing.
    """
    os.environ[_VARIABLE] = str(_OURS)


def refuse_configuration() -> None:
    """Refuse to compute in a process where PySCF has read a configuration file all the same.

    Raises
    ------
    EngineFailure
        BAD_INPUT naming the file.
    """
    from pyscf import __config__

    file = __config__.conf_file
    if file is not None and Path(file) != _OURS:
        raise EngineFailure(
            Cause.BAD_INPUT,
            "PySCF has read a configuration file, which may change results unseen; remove it",
            evidence={"file": str(file)},
            where=str(file),
        )


def surroundings() -> dict[str, Any]:
    """Return what provenance tells: threads, and the names of the variables that reach numerical libraries."""
    from pyscf import lib

    names = sorted(n for n in os.environ if n.startswith(_TOLD) and n != _VARIABLE)
    return {"threads": int(lib.num_threads()), "environment": names}
