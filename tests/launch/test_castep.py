"""CASTEP's engine through real agents, with a stand-in for the program."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fireworks import LaunchPad

from htxas.campaign.file import load_campaign
from htxas.campaign.plan import Plan
from htxas.domain.calculation import Kind, State
from htxas.domain.result import SiteResult
from htxas.launch.run import run_workers
from htxas.launch.submit import submit
from htxas.store.store import Store

pytestmark = pytest.mark.mongo

FAKE = Path(__file__).parents[1] / "engines/castep/fake_castep.py"
MOLECULES = """4
formaldehyde
C 0 0 -0.53
O 0 0 0.676
H 0 0.935 -1.12
H 0 -0.935 -1.12
4
ethyne
C 0 0 0.6
C 0 0 -0.6
H 0 0 1.66
H 0 0 -1.66
"""


def test_a_campaign(
    store: Store, launchpad: LaunchPad, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "two.xyz").write_text(MOLECULES)
    path = tmp_path / "two.yaml"
    document = {
        "campaign": "two",
        "structures": {"file": "two.xyz"},
        "site": {"element": "C", "edge": "K"},
        "engine": {"name": "castep", "preset": "published", "parameters": {"extra_bands": 400}},
    }
    path.write_text(json.dumps(document))
    monkeypatch.setenv("HTXAS_CASTEP", f"{sys.executable} {FAKE}")
    with Plan(load_campaign(path)) as plan:
        submit(store, launchpad, plan)
    run_workers(store, launchpad, jobs=1)
    records = list(store.find(campaign="two"))
    assert [r.state for r in records] == [State.DONE] * 4
    kinds = sorted(r.kind.value for r in records)
    assert kinds == [Kind.GROUND.value] * 2 + [Kind.SITE.value] * 2
    for record in records:
        if record.kind is Kind.GROUND:
            assert store.ground_result(record.key).homo_eV == pytest.approx(-8, abs=0.11)
            continue
        result = store.site_result(record.key)
        assert isinstance(result, SiteResult)
        assert result.excitation_energy_eV == pytest.approx(285.9, abs=1e-6)
        assert result.provenance.extra["ground"] == "read from its folder"
