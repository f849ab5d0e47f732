"""``python -m htxas.engines.feff DIRECTORY``: see :mod:`htxas.engines.feff.process`."""

from __future__ import annotations

import sys

from htxas.engines.feff.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
