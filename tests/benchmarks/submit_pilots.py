"""Pilots into a real queue, beside FireWorks' own qlaunch on the same Slurm.

    python tests/benchmarks/submit_pilots.py [--pilots 1000] [--qlaunch 20]

A small Slurm of its own is started and its nodes are taken down, so that jobs stay queued. htxas submits the pilots for
a campaign that has work for them: plan, a record each, job arrays, ids. ``qlaunch rapidfire`` submits one job after the
other; it is measured without its pause of 5 s after each and, on a few, with it as it comes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.cluster.load import load_config
from htxas.cluster.queue import open_queue
from htxas.launch.pad.launchpad import open_launchpad
from htxas.launch.pilots.submit import submit_pilots
from htxas.launch.submit import submit
from htxas.settings import read_secret
from htxas.store.server import PrivateServer
from htxas.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy/slurm"), str(ROOT / "tests/benchmarks")]
from minislurm import MiniSlurm  # noqa: E402  a script beside the package, not in it
from throughput import campaign  # noqa: E402

_AS_IT_COMES = 4
_PROFILE = """clusters:
  bench:
    scheduler: slurm
    home: {home}
    database: {{uri_file: {home}/db/uri}}
    partitions:
      main: {{walltime: "00:10:00", cores: 2, max_array: 1000}}
    pilots: {{most: {most}, workers: 2, margin_s: 10, signal_s: 10, memory_per_worker_GB: 0.5}}
"""


def pilots(store: Store, folder: Path, count: int) -> float:
    """Return the seconds until ``count`` pilots are queued and recorded."""
    path = folder / "htxas.yaml"
    path.write_text(_PROFILE.format(home=folder, most=count))
    profile = load_config(path).cluster("bench")
    start = time.perf_counter()
    done = submit_pilots(store, profile, open_queue(profile), pilots=count)
    seconds = time.perf_counter() - start
    assert len(done.submitted) == count, (done.problems, done.notes)
    queued = subprocess.run(["squeue", "-h", "-r"], capture_output=True, text=True, check=True)
    assert len(queued.stdout.splitlines()) == count
    return seconds


def qlaunch(store: Store, folder: Path, count: int, pause_s: int) -> float:
    """Return the seconds in which ``qlaunch rapidfire`` submits ``count`` jobs, with a pause after each."""
    document = {
        "host": store.uri_for_launchpad(),
        "name": store.launchpad_database,
        "uri_mode": True,
        "strm_lvl": "ERROR",
    }
    pad = folder / "launchpad.json"
    pad.touch(0o600)
    pad.write_text(json.dumps(document))
    adapter = {
        "_fw_name": "CommonAdapter",
        "_fw_q_type": "SLURM",
        "rocket_launch": "true",
        "walltime": "00:10:00",
    }
    (folder / "qadapter.yaml").write_text(json.dumps(adapter))
    settings = folder / "FW_config.yaml"
    settings.write_text(json.dumps({"QUEUE_UPDATE_INTERVAL": pause_s}))
    where = folder / f"qlaunch-{count}"
    where.mkdir()
    command = [sys.executable, "-m", "fireworks.scripts.qlaunch_run", "-l", str(pad)]
    command += ["-q", str(folder / "qadapter.yaml"), "--launch_dir", str(where), "-s"]
    command += ["--fill_mode", "rapidfire", "-m", "0", "--nlaunches", str(count)]
    environment = {**os.environ, "FW_CONFIG_FILE": str(settings), "PYTHONWARNINGS": "ignore"}
    start = time.perf_counter()
    subprocess.run(command, cwd=where, check=True, env=environment, stdout=subprocess.DEVNULL, timeout=120)
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pilots", type=int, default=1000)
    parser.add_argument("--qlaunch", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="htxas-submit-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # munge asks for it
        os.environ["HTXAS_HOME"] = name
        slurm, server = MiniSlurm(folder / "slurm"), PrivateServer(folder / "db")
        slurm.start(nodes=2, cpus=2)
        server.up()
        os.environ["SLURM_CONF"] = str(slurm.conf)
        try:
            down = ["scontrol", "update", "NodeName=ALL", "State=DOWN", "Reason=benchmark"]
            subprocess.run(down, check=True)
            with Store.open(read_secret(server.uri_file)) as store:
                launchpad = open_launchpad(store)
                with Plan(load_campaign(campaign(folder, "work", 20_000))) as plan:
                    submit(store, launchpad, plan)
                launchpad.connection.close()
                ours = pilots(store, folder, options.pilots)
                quick = qlaunch(store, folder, options.qlaunch, 0)
                slow = qlaunch(store, folder, _AS_IT_COMES, 5)
        finally:
            slurm.stop()
            server.down()
    each = ours / options.pilots
    print(f"{'':<40}{'jobs':>6}{'s':>9}{'ms each':>10}{'beside htxas':>14}")
    for text, count, seconds in (
        ("htxas queue submit, as job arrays", options.pilots, ours),
        ("qlaunch rapidfire without its pauses", options.qlaunch, quick),
        ("qlaunch rapidfire", _AS_IT_COMES, slow),
    ):
        print(
            f"{text:<40}{count:>6}{seconds:9.2f}{1e3 * seconds / count:10.1f}{seconds / count / each:13.0f}x"
        )


if __name__ == "__main__":
    main()
