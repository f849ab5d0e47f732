"""VASP's engine through real agents, with a stand-in for the program and POTCARs that are made up."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from fireworks import LaunchPad

from htxas import assets
from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.domain.calculation import Kind, State
from htxas.domain.result import CurveResult
from htxas.launch.run import run_workers
from htxas.launch.submit import submit
from htxas.store.store import Store
from tests.engines.vasp.synthetic import library

pytestmark = pytest.mark.mongo

FAKE = Path(__file__).parents[1] / "engines/vasp/fake_vasp.py"


def test_a_campaign(
    store: Store, launchpad: LaunchPad, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(assets.workflow("feff/MgO.cif"), tmp_path)
    path = tmp_path / "mgo.yaml"
    parameters = {
        "potcars": {"Mg": "Mg_sv_GW", "O": "O_GW"},
        "supercell": {"repeats": [1, 1, 1]},
        "kpoints": {"divisions": [2, 2, 2]},
        "reference_eV": 540.0,
        "points": 1500,
    }
    document = {
        "campaign": "mgo",
        "structures": {"file": "MgO.cif"},
        "site": {"element": "O", "edge": "K"},
        "engine": {"name": "vasp", "preset": "crystal", "parameters": parameters},
    }
    path.write_text(json.dumps(document))
    monkeypatch.setenv("HTXAS_VASP", f"{sys.executable} {FAKE}")
    monkeypatch.setenv("HTXAS_VASP_POTCARS", str(library(tmp_path / "potcars")))
    with Plan(load_campaign(path)) as plan:
        submit(store, launchpad, plan)
    run_workers(store, launchpad, jobs=1)
    records = list(store.find(campaign="mgo"))
    assert [r.state for r in records] == [State.DONE] * 2
    ground, site = sorted(records, key=lambda r: r.kind is Kind.SITE)
    assert store.ground_result(ground.key).pdos.spheres is True
    result = store.site_result(site.key)
    assert isinstance(result, CurveResult)
    total = result.provenance.extra["total_energies_eV"]
    assert result.edge_eV == pytest.approx(540.0 + total["excited"] - total["ground"])
    assert ground.key in result.provenance.extra["ground"]["from"]  # its folder
    kept = [p for p in home.rglob("*") if p.is_file() and p.name in ("POTCAR", "vaspout.h5")]
    assert kept == []
