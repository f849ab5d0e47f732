"""``python -m htxas.engines.elk DIRECTORY``: see :mod:`htxas.engines.elk.process`."""

from __future__ import annotations

import sys

from htxas.engines.elk.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
