"""``python -m htxas.engines.qe DIRECTORY``: see :mod:`htxas.engines.qe.process`."""

from __future__ import annotations

import sys

from htxas.engines.qe.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
