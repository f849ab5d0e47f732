from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from htxas.campaign.file import gate_document, load_campaign, other_limits
from htxas.errors import CampaignFileError
from htxas.launch.work.compute import gate_limits

Write = Callable[..., Path]


def test_a_good_file(write: Write) -> None:
    campaign = load_campaign(write())
    assert campaign.name == "tiny"
    assert campaign.sources[0].path.name == "molecules.xyz"
    assert campaign.sources[0].limit is None
    assert campaign.gate.min_hole_overlap == 0.8
    assert campaign.parameters.site["seconds"] == 0.0


def test_the_document_depends_on_content_only(write: Write) -> None:
    first = load_campaign(write()).document
    listed = load_campaign(write(("structures:\n  file:", "structures:\n  - file:"))).document
    wider = load_campaign(write(("sigma_eV: 0.5", "sigma_eV: 0.6"))).document
    other = load_campaign(write(molecules="2\nn2\nN 0 0 0\nN 1.1 0 0\n")).document
    assert first == listed
    assert first != wider
    assert first != other


def test_a_gate_is_recorded_with_the_limit_of_the_strength_that_holds(write: Write) -> None:
    usual = load_campaign(write())
    assert gate_document(usual.gate) == {
        "min_hole_overlap": 0.8,
        "window_eV": 20.0,
        "strength_ratio": [0.4, 5.0],
        "edge_range_eV": None,
        "min_gap_eV": 0.1,
    }
    older = gate_document(
        load_campaign(write(("spectrum: {sigma_eV: 0.5}", "gate: {strength_range: [0.05, 1]}"))).gate
    )
    assert older == {  # of 0.1.0, where nothing was said
        "min_hole_overlap": 0.8,
        "window_eV": 20.0,
        "strength_range": [0.05, 1.0],
        "edge_range_eV": None,
        "min_gap_eV": 0.1,
    }
    assert gate_limits(older).strength_range == (0.05, 1.0)
    assert gate_limits(gate_document(usual.gate)) == usual.gate
    assert other_limits(gate_document(usual.gate), older) == ("strength_ratio", "strength_range")
    assert other_limits(gate_document(usual.gate), older, curves=True) == ()
    assert other_limits({"level_range": [0, 1]}, older, curves=True) == (
        "level_range", "min_hole_overlap", "window_eV", "min_gap_eV",
    )  # fmt: skip


WRONG = {
    "unknown key": (("spectrum:", "spectra:"), 6, "spectra", "'spectrum'"),
    "unknown nested key": (("sigma_eV", "sigma_meV"), 6, "spectrum.sigma_meV", "'sigma_eV'"),
    "unit left out of the key": (("sigma_eV", "sigma"), 6, "spectrum.sigma", "'sigma_eV'"),
    "unit in the value": (("0.5", "0.5 eV"), 6, "spectrum.sigma_eV", "sigma_eV: 0.5"),
    "number wanted": (("0.5", "wide"), 6, "spectrum.sigma_eV", "a number in eV"),
    "negative": (("0.5", "-0.5"), 6, "spectrum.sigma_eV", "greater than 0"),
    "not a number": (("0.5", ".nan"), 6, "spectrum.sigma_eV", "finite"),
    "odd step": (("sigma_eV: 0.5", "step_eV: 0.3"), 6, "spectrum.step_eV", "whole number of steps"),
    "missing section": (("site: {element: C, edge: K}\n", ""), 1, "site", "is missing"),
    "missing key": (("element: C, ", ""), 4, "site.element", "is missing"),
    "missing file": (("molecules.xyz", "mol.xyz"), 3, "structures.0.file", "no file 'mol.xyz'"),
    "unknown element": (("element: C", "element: Cx"), 4, "site.element", "Cx"),
    "unknown edge": (("edge: K", "edge: K1"), 4, "site.edge", "one of K"),
    "unknown engine": (("name: fake", "name: fike"), 5, "engine.name", "'fake'"),
    "unknown preset": (("instant", "fast"), 5, "engine.preset", "instant"),
    "unknown parameter": (
        ("instant}", "instant, parameters: {second: 3}}"),
        5,
        "engine.parameters.second",
        "'seconds'",
    ),
    "odd name": (("campaign: tiny", "campaign: ti/ny"), 1, "campaign", "letters, digits"),
    "repeated key": (("engine:", "site: {element: N, edge: K}\nengine:"), 5, "", "duplicate key"),
    "torn YAML": (("{element: C, edge: K}", "{element: C"), 5, "", "expected"),
    "gate upside down": (
        ("spectrum: {sigma_eV: 0.5}", "gate: {strength_range: [2.0, 0.1]}"),
        6,
        "gate.strength_range",
        "lower limit",
    ),
    "two limits of the strength": (
        ("spectrum: {sigma_eV: 0.5}", "gate: {strength_range: [0.1, 2.0], strength_ratio: [0.4, 5.0]}"),
        6,
        "gate.strength_range",
        "strength_ratio",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_one_line_with_file_line_and_key(case: str, write: Write) -> None:
    replacement, line, key, hint = WRONG[case]
    path = write(replacement)
    with pytest.raises(CampaignFileError) as caught:
        load_campaign(path)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}:{line}:" if key else f"{path}:{line}"), text
    assert key in text
    assert hint in text


def test_an_empty_structure_file_is_refused(write: Write) -> None:
    with pytest.raises(CampaignFileError, match="is empty"):
        load_campaign(write(molecules=""))


def test_an_empty_campaign_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    with pytest.raises(CampaignFileError, match=r"empty\.yaml:1: is empty"):
        load_campaign(path)


def test_no_campaign_file(tmp_path: Path) -> None:
    with pytest.raises(CampaignFileError, match="No such file"):
        load_campaign(tmp_path / "none.yaml")


def test_yaml_tags_make_no_objects(write: Write) -> None:
    path = write(("element: C", "element: !!python/object/apply:os.getcwd []"))
    with pytest.raises(CampaignFileError, match=r"site\.element"):
        load_campaign(path)
