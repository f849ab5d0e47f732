"""Shipped campaign and training files: accepted by the strict readers, and true to their comments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from htxas import assets
from htxas.campaign.file import load_campaign
from htxas.campaign.schema import CampaignModel, GeometryModel
from htxas.campaign.yamlfile import load_yaml
from htxas.domain.gate import GateLimits
from htxas.learn.data.config import read_recipe
from htxas.learn.data.recipe import Recipe, Window
from htxas.learn.nets.network import Network
from htxas.learn.runs.config import read_plan
from htxas.learn.runs.tune_config import read_tuning
from htxas.learn.studies.config import read_study
from tests.engines.vasp.synthetic import library


def test_quickstart_campaign_is_accepted() -> None:
    campaign = load_campaign(assets.workflow("quickstart/campaign.yaml"))
    assert (campaign.name, campaign.element, campaign.edge, campaign.engine) == (
        "quickstart",
        "C",
        "K",
        "pyscf",
    )
    assert [s.path.name for s in campaign.sources] == ["molecules.smi"]


def test_quickstart_molecules_are_distinct() -> None:
    lines = assets.workflow("quickstart/molecules.smi").read_text().splitlines()
    smiles, names = zip(*(line.split() for line in lines), strict=True)
    assert len(set(smiles)) == len(set(names)) == 14


def test_template_campaign_states_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text(assets.template("campaign.yaml").read_text())
    (tmp_path / "molecules.smi").write_text("CCO ethanol\n")
    campaign = load_campaign(path)
    assert campaign.gate == GateLimits()
    document, _ = load_yaml(path)
    bare = {k: document[k] for k in ("campaign", "structures", "engine")}
    bare["site"] = {k: document["site"][k] for k in ("element", "edge")}
    default = CampaignModel.model_validate(bare)
    written = CampaignModel.model_validate(document)
    assert (written.site, written.spectrum, written.batch) == (default.site, default.spectrum, default.batch)
    (source,) = written.structures
    assert source.geometry == GeometryModel(method="gfn2-xtb")
    known = set(CampaignModel.model_fields)
    assert known == set(document)


def test_template_training_states_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(assets.template("train.yaml").read_text())
    (tmp_path / "my-campaign.h5").touch()
    plan = read_plan(path)
    assert plan.network == Network()
    assert plan.dataset.recipe.window == Window()
    assert plan.dataset.recipe == Recipe(targets=plan.dataset.recipe.targets)


@pytest.mark.parametrize(
    "path", sorted(assets.share("workflows").rglob("*.yaml")), ids=lambda p: p.parent.name + "/" + p.name
)
def test_every_workflow_is_accepted(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTXAS_VASP_POTCARS", str(library(tmp_path / "potcars")))  # VASP's own are licensed
    text = path.read_text()
    if re.search(r"^campaign:", text, re.M):
        assert load_campaign(path).document["structures"]
    elif re.search(r"^study:", text, re.M):
        assert read_study(path).name == path.stem
    elif re.search(r"^search:", text, re.M):
        assert read_tuning(path).dataset.targets
    elif path.name == "recipe.yaml":
        assert read_recipe(path)[0].targets
    else:
        assert read_plan(path).dataset.targets
