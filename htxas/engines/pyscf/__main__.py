"""Entry point of the engine process, ``python -m htxas.engines.pyscf``: keeps PySCF's own settings out, then starts.

A module of its own because PySCF reads them when it is imported.
"""

from __future__ import annotations

import sys

from htxas.engines.pyscf.surroundings import keep_out_configuration

if __name__ == "__main__":
    keep_out_configuration()
    from htxas.engines.pyscf.process import main

    raise SystemExit(main(sys.argv[1:]))
