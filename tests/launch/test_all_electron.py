"""WIEN2k's and OLCAO's engines through real agents, with stand-ins for their scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fireworks import LaunchPad

from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.domain.calculation import Kind, State
from htxas.domain.result import CurveResult
from htxas.launch.run import run_workers
from htxas.launch.submit import submit
from htxas.store.store import Store
from tests.engines.olcao import conftest as olcao
from tests.engines.wien2k import conftest as wien2k

pytestmark = pytest.mark.mongo

POSCAR = """magnesia
4.212
0.0 0.5 0.5
0.5 0.0 0.5
0.5 0.5 0.0
Mg O
1 1
Direct
0.0 0.0 0.0
0.5 0.5 0.5
"""


@pytest.mark.parametrize(("engine", "edge_eV"), [("wien2k", 537.25), ("olcao", 538.4)])
def test_a_campaign(
    store: Store,
    launchpad: LaunchPad,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    edge_eV: float,
) -> None:
    (tmp_path / "POSCAR").write_text(POSCAR)
    path = tmp_path / "one.yaml"
    document = {
        "campaign": "one",
        "structures": {"file": "POSCAR"},
        "site": {"element": "O", "edge": "K"},
        "engine": {"name": engine, "preset": "crystal", "parameters": wien2k.SMALL},
    }
    path.write_text(json.dumps(document))
    install = {"wien2k": wien2k.install, "olcao": olcao.install}[engine]
    monkeypatch.setenv(f"HTXAS_{engine.upper()}", str(install(tmp_path / "programs")))
    with Plan(load_campaign(path)) as plan:
        submit(store, launchpad, plan)
    run_workers(store, launchpad, jobs=1)
    (record,) = store.find(campaign="one")
    assert (record.state, record.kind) == (State.DONE, Kind.SITE)
    result = store.site_result(record.key)
    assert isinstance(result, CurveResult)
    assert result.edge_eV == pytest.approx(edge_eV, abs=1e-4)
    assert "not aligned" in result.scale
