"""Real codes made to fail through real agents: each failure under its true cause, mended where a ladder can.

A user's own words start the code, so a script around it is all it takes: fewer iterations on the first attempt, a
limit of memory, an attempt that hangs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fireworks import LaunchPad

from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.domain.calculation import State
from htxas.engines.qe.recipes import RECIPES, ld1_input
from htxas.errors import Cause
from htxas.launch.run import run_workers
from htxas.launch.submit import submit
from htxas.store.records import CalculationRecord
from htxas.store.store import Store
from tests.engines.elk.test_engine import COARSE as COARSE_ELK
from tests.engines.gpaw.test_engine import COARSE as COARSE_GPAW
from tests.engines.qe.test_engine import COARSE_SITE as COARSE_QE

pytestmark = [pytest.mark.mongo, pytest.mark.slow]

CARBON_MONOXIDE = "2\nco\nC 0 0 0\nO 0 0 1.128\n"
METHANE = (
    "5\nmethane\nC 0 0 0\nH 0.63 0.63 0.63\nH -0.63 -0.63 0.63\nH -0.63 0.63 -0.63\nH 0.63 -0.63 -0.63\n"
)
DIAMOND = "diamond\n3.567\n0 0.5 0.5\n0.5 0 0.5\n0.5 0.5 0\nC\n2\nDirect\n0 0 0\n0.25 0.25 0.25\n"
ENGINES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "qe": ("co.xyz", CARBON_MONOXIDE, "light", COARSE_QE),
    "cp2k": ("methane.xyz", METHANE, "quick", {}),
    "gpaw": ("co.xyz", CARBON_MONOXIDE, "light", COARSE_GPAW),
    "elk": ("POSCAR", DIAMOND, "light", COARSE_ELK),
}
each = pytest.mark.parametrize("engine", [pytest.param(e, marks=getattr(pytest.mark, e)) for e in ENGINES])


class Lab:
    """A campaign of one site whose code is started by a script of ours."""

    def __init__(self, store: Store, pad: LaunchPad, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.pad, self.folder, self._patch = store, pad, folder, monkeypatch

    def wrap(self, engine: str, before: str, *, stdin: str = "cat", named: str = "pw.x") -> None:
        """Let a script do ``before``, then become the code; ``stdin`` filters what Quantum ESPRESSO reads."""
        self._patch.setenv("OMP_NUM_THREADS", "1")
        programs = self.folder / "programs"
        programs.mkdir()
        if engine == "qe":
            real = Path(str(shutil.which(named)))
            for path in real.parent.glob("*.x"):
                (programs / path.name).symlink_to(path)
            script, end = programs / named, f'{stdin} | {real} "$@"'
            script.unlink()
            self._patch.setenv("HTXAS_QE", str(programs))
        else:
            words = {"cp2k": shutil.which("cp2k"), "elk": shutil.which("elk-lapw")}.get(engine)
            real = Path(words or os.environ.get("HTXAS_GPAW", sys.executable))
            script, end = programs / engine, f'exec {real} "$@"'
            self._patch.setenv(f"HTXAS_{engine.upper()}", str(script))
        script.write_text(f"#!/bin/sh\n{before}\n{end}\n")
        script.chmod(0o755)

    def submit(self, engine: str, batch: dict[str, Any] | None = None, **parameters: Any) -> None:
        """Submit the engine's site."""
        name, text, preset, coarse = ENGINES[engine]
        (self.folder / name).write_text(text)
        path = self.folder / "one.yaml"
        document = {
            "campaign": "one",
            "structures": {"file": name},
            "site": {"element": "C", "edge": "K"},
            "engine": {"name": engine, "preset": preset, "parameters": {**coarse, **parameters}},
            "batch": batch or {},
        }
        path.write_text(json.dumps(document))
        with Plan(load_campaign(path)) as plan:
            submit(self.store, self.pad, plan)

    def run(self) -> list[CalculationRecord]:
        """Run until nothing is left; return the ground state and the site."""
        run_workers(self.store, self.pad, jobs=1)
        return sorted(self.store.find(campaign="one"), key=lambda r: r.kind.value)


@pytest.fixture
def lab(
    store: Store, launchpad: LaunchPad, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Lab:
    (home / "x").parent.mkdir(exist_ok=True)
    return Lab(store, launchpad, tmp_path, monkeypatch)


def causes(record: CalculationRecord) -> list[str]:
    return [h["cause"] for h in record.history if h.get("cause")]


@each
def test_too_few_iterations_are_mended(lab: Lab, engine: str) -> None:
    """The first attempt stops unconverged, with status 0 for some; the ladder's next rung converges."""
    own = {}
    if engine == "qe":
        lab.wrap(engine, "", stdin="sed 's/electron_maxstep=100$/electron_maxstep=3/'")
    elif engine == "cp2k":
        lab.wrap(engine, "sed -i 's/MAX_SCF 60$/MAX_SCF 4/' *.inp")
    else:
        own = {"max_iterations": {"gpaw": 6, "elk": 12}[engine]}
    lab.submit(engine, **own)
    for record in lab.run():
        assert record.state is State.DONE, record.history
        assert set(causes(record)) == {Cause.SCF_UNCONVERGED.value}
        assert record.history[-1]["corrections"]


@pytest.mark.parametrize(
    ("engine", "kilobytes", "large"),
    [
        pytest.param("qe", 600_000, {"box": {"vacuum_A": 14.0}, "cutoff_Ry": 60.0}, marks=pytest.mark.qe),
        pytest.param("cp2k", 1_000_000, {"box": {"vacuum_A": 24.0}}, marks=pytest.mark.cp2k),
        pytest.param("gpaw", 900_000, {"spacing_A": 0.15, "margin_A": 7.0}, marks=pytest.mark.gpaw),
    ],
)
def test_no_memory_is_called_so(lab: Lab, engine: str, kilobytes: int, large: dict[str, Any]) -> None:
    """All rungs ask for more of a node that has no more; the cause stays what it is.

    The limit leaves room for the code and its libraries (less, and OpenBLAS waits for ever), but not for the cell.
    """
    lab.wrap(engine, f"ulimit -v {kilobytes}")
    lab.submit(engine, **large)
    ground, site = lab.run()
    assert (ground.state, causes(ground)[-1]) == (State.FAILED, Cause.OUT_OF_MEMORY.value), ground.history
    assert causes(site)[-1] == Cause.GROUND_FAILED.value


@pytest.mark.qe
@pytest.mark.parametrize("engine", ["qe"])  # whose it is makes no difference, and others take a minute
def test_a_hung_attempt_is_cut_and_the_next_ends(lab: Lab, engine: str) -> None:
    """Killed by the clock once; with more of it the same calculation is done."""
    flag = lab.folder / "hung"
    lab.wrap(engine, f"[ -e {flag} ] || {{ touch {flag}; exec sleep 1000; }}")
    lab.submit(engine, batch={"walltime_s": 25.0})
    ground, site = lab.run()
    assert (ground.state, site.state) == (State.DONE, State.DONE), (ground.history, site.history)
    assert causes(ground) == [Cause.WALLTIME.value]
    assert ground.history[-1]["corrections"] == ["more_time"]


@pytest.mark.qe
@pytest.mark.cp2k
@pytest.mark.parametrize("engine", ["qe", "cp2k"])
def test_no_time_at_all(lab: Lab, engine: str) -> None:
    lab.submit(engine, batch={"walltime_s": 0.5})
    ground, site = lab.run()
    assert (ground.state, causes(ground)[-1]) == (State.FAILED, Cause.WALLTIME.value), ground.history
    assert causes(site)[-1] == Cause.GROUND_FAILED.value


@pytest.mark.qe
def test_a_pseudopotential_that_has_gone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was there when the campaign was submitted; where it runs it is not, or is another."""
    files = lab.folder / "pseudos"
    files.mkdir()
    (files / "O.ld1.in").write_text(ld1_input("O", "O", RECIPES["tm-pbe-1"]["O"], hole=0.0))
    with (files / "O.ld1.in").open() as text:
        subprocess.run(["ld1.x"], stdin=text, cwd=files, check=True, stdout=subprocess.DEVNULL)
    monkeypatch.setenv("HTXAS_QE_PSEUDOS", str(files))
    lab.submit("qe", upf={"O": "O.UPF"})
    (files / "O.UPF").unlink()
    ground, _ = lab.run()
    assert (ground.state, causes(ground)[-1]) == (State.FAILED, Cause.BAD_INPUT.value), ground.history
    assert "O.UPF" in str(ground.history[-1])
