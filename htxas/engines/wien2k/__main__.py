"""``python -m htxas.engines.wien2k DIRECTORY``: see :mod:`htxas.engines.wien2k.process`."""

from __future__ import annotations

import sys

from htxas.engines.wien2k.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
