"""Make ``runs/`` again: ``python -m tests.engines.vasp.make_runs``. All numbers in them are made up by the stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from htxas.domain.calculation import Kind
from htxas.domain.structure import Structure
from htxas.engines.vasp.engine import ENGINE
from tests.engines.vasp.conftest import FAKE, SMALL, make_job
from tests.engines.vasp.synthetic import library

RUNS = Path(__file__).parent / "runs"
MODES = {
    "ground": (Kind.GROUND, "good"),
    "site": (Kind.SITE, "good"),
    "unconverged": (Kind.SITE, "unconverged"),
    "killed": (Kind.SITE, "crashed"),
    "refused": (Kind.SITE, "refused"),
}


def main() -> None:
    shutil.rmtree(RUNS, ignore_errors=True)
    cell = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]) * 4.212
    mgo = Structure.from_atoms(["Mg", "O"], [[0, 0, 0], [2.106, 0, 0]], cell)[0]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["HTXAS_VASP_POTCARS"] = str(library(Path(scratch)))
        os.environ["HTXAS_VASP"] = f"{sys.executable} {FAKE}"
        for name, (kind, mode) in MODES.items():
            folder = RUNS / name
            folder.mkdir(parents=True)
            ENGINE.write(make_job(mgo, kind=kind, **{**SMALL, "points": 600}), folder)
            subprocess.run(ENGINE.command(folder), env=os.environ | {"FAKE_VASP": mode}, check=True)
            outcome = json.loads((folder / "outcome.json").read_text())
            if "program" in outcome:
                outcome["program"] = ["vasp_std"]
            (folder / "outcome.json").write_text(json.dumps(outcome | {"host": "node"}, indent=1) + "\n")


if __name__ == "__main__":
    main()
