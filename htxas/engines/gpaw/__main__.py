"""``python -m htxas.engines.gpaw DIRECTORY``: see :mod:`htxas.engines.gpaw.process`."""

from __future__ import annotations

import sys

from htxas.engines.gpaw.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
