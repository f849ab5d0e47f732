"""Several calculations of one site in one figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from htxas.cli.site import site
from htxas.errors import UserError
from htxas.report.overlay import plot_overlay
from htxas.report.results import SiteView, load_site
from htxas.store.store import Store


@pytest.fixture
def pair(results: Any, curves: Any) -> tuple[SiteView, SiteView]:
    """Return a site as sticks and as a curve."""
    return load_site(results, "ethanol/1", None), load_site(curves, "ethanol/1", None)


def test_each_keeps_its_energies(pair: tuple[SiteView, SiteView], tmp_path: Path) -> None:
    sticks, curve = pair
    path = plot_overlay([("dft", sticks), ("feff", curve)], tmp_path / "both.svg")
    text = path.read_text()
    assert sticks.result is not None
    assert curve.result is not None
    for label, view in (("dft", sticks), ("feff", curve)):
        assert view.result is not None
        assert f"{label}: from {view.result.onset_eV:.1f} eV, 1 is" in text
    assert "oscillator_strength_per_eV" in text
    assert "normalised_absorption" in text
    assert "transition energy (eV)" in text


def test_aligned_only_when_asked(pair: tuple[SiteView, SiteView], tmp_path: Path) -> None:
    views = list(zip(("dft", "feff"), pair, strict=True))
    text = plot_overlay(views, tmp_path / "both.svg", relative=True).read_text()
    assert "energy from where each spectrum begins" in text


def test_only_one_element_and_edge(pair: tuple[SiteView, SiteView], tmp_path: Path) -> None:
    sticks, curve = pair
    other = replace(curve, record=replace(curve.record, edge="L3"))
    with pytest.raises(UserError, match="cannot be laid over"):
        plot_overlay([("dft", sticks), ("feff", other)], tmp_path / "both.png")


def test_another_geometry_is_told(pair: tuple[SiteView, SiteView], tmp_path: Path) -> None:
    sticks, curve = pair
    other = replace(curve, record=replace(curve.record, structure_key="another"))
    text = plot_overlay([("dft", sticks), ("feff", other)], tmp_path / "both.svg").read_text()
    assert "another geometry" in text


@pytest.mark.mongo
def test_the_command(
    filled_store: Any, mongod_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTXAS_DB_URI", mongod_uri)
    real = Store.open
    monkeypatch.setattr(Store, "open", staticmethod(lambda **kw: real(**{"name": filled_store.name, **kw})))
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Any:
        return CliRunner().invoke(site, ["plot", *words], catch_exceptions=False)

    key = next(s.key for m in filled_store.molecules() for s in m.sites if m.name == "ethanol")
    assert call("ethanol/1", "--with", key).output == "ethanol_1.png\n"
    assert call("ethanol/1", "--with", "quickstart", "--relative").output == "ethanol_1.png\n"
    with pytest.raises(UserError, match="relative to nothing"):
        call("ethanol/1", "--relative")
