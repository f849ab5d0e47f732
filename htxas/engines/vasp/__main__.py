"""``python -m htxas.engines.vasp DIRECTORY``: see :mod:`htxas.engines.vasp.process`."""

from __future__ import annotations

import sys

from htxas.engines.vasp.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
