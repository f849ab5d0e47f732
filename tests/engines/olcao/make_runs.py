"""Makes the folder ``runs`` anew, with the stand-in: ``python -m tests.engines.olcao.make_runs``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from htxas.engines.olcao.engine import ENGINE
from tests.engines.olcao.conftest import install, make_job, rock_salt, two_sites

RUNS = Path(__file__).parent / "runs"
_COARSE = {"step_eV": 0.2, "width_eV": 0.5}


def main() -> None:
    mgo = rock_salt()
    cases = {
        "mgo": (make_job(mgo, **_COARSE), "good"),
        "two-sites": (make_job(two_sites(), "C", functional="Hedin-Lundqvist", **_COARSE), "good"),
        "unconverged": (make_job(mgo, **_COARSE), "unconverged"),
        "killed-in-main": (make_job(mgo, **_COARSE), "killed"),
        "refused": (make_job(mgo, **_COARSE), "refused"),
    }
    with tempfile.TemporaryDirectory() as scratch:
        programs = install(Path(scratch) / "olcao")
        for name, (job, mode) in cases.items():
            folder = RUNS / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            ENGINE.write(job, folder)
            environment = {**os.environ, "HTXAS_OLCAO": str(programs), "FAKE_OLCAO": mode}
            subprocess.run(ENGINE.command(folder), env=environment, check=False)
            kept = {p for pattern in ENGINE.keep for p in folder.glob(pattern)}
            for path in folder.rglob("*"):
                if path.is_file() and (path not in kept or not path.stat().st_size):
                    path.unlink()
            outcome = folder / "outcome.json"
            if outcome.is_file():
                told = json.loads(outcome.read_text()) | {"host": "synthetic", "program": ["/opt/olcao/bin"]}
                outcome.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
