"""``python -m htxas.engines.cp2k DIRECTORY``: see :mod:`htxas.engines.cp2k.process`."""

from __future__ import annotations

import sys

from htxas.engines.cp2k.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
