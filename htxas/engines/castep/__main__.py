"""``python -m htxas.engines.castep DIRECTORY``: see :mod:`htxas.engines.castep.process`."""

from __future__ import annotations

import sys

from htxas.engines.castep.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
