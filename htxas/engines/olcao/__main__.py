"""``python -m htxas.engines.olcao DIRECTORY``: see :mod:`htxas.engines.olcao.process`."""

from __future__ import annotations

import sys

from htxas.engines.olcao.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
