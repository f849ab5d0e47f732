"""Makes the folder ``runs`` anew, with the stand-in: ``python -m tests.engines.wien2k.make_runs``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from htxas.engines.wien2k.engine import ENGINE
from tests.engines.wien2k.conftest import hexagonal, install, make_job, rock_salt_primitive

RUNS = Path(__file__).parent / "runs"
_COARSE = {"step_eV": 0.2}


def main() -> None:
    mgo = rock_salt_primitive()
    cases = {
        "mgo": (make_job(mgo, **_COARSE), "good", None),
        "background": (make_job(mgo, preset="background", **_COARSE), "new", None),
        "layers": (make_job(hexagonal(), "C", **_COARSE), "complex", None),
        "unconverged": (make_job(mgo, **_COARSE), "unconverged", "hole"),
        "killed-in-lapw1": (make_job(mgo, **_COARSE), "killed", "hole"),
        "refused": (make_job(mgo, **_COARSE), "refused", "ground"),
    }
    with tempfile.TemporaryDirectory() as scratch:
        root = install(Path(scratch) / "wienroot")
        for name, (job, mode, case) in cases.items():
            folder = RUNS / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            ENGINE.write(job, folder)
            environment = {**os.environ, "HTXAS_WIEN2K": str(root), "FAKE_WIEN2K": mode}
            if case is not None:
                environment["FAKE_WIEN2K_CASE"] = case
            subprocess.run(ENGINE.command(folder), env=environment, check=False)
            kept = {p for pattern in ENGINE.keep for p in folder.glob(pattern)}
            for path in folder.glob("*/*"):
                if path not in kept or path.suffix == ".xspec" or not path.stat().st_size:
                    path.unlink()
            outcome = folder / "outcome.json"
            if outcome.is_file():
                told = json.loads(outcome.read_text()) | {"host": "synthetic"}
                if "program" in told:
                    told["program"] = ["/opt/wien2k"]
                if "where" in told.get("failure", {}):
                    told["failure"]["where"] = None
                outcome.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
