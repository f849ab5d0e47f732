"""The same sites by several campaigns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from htxas.cli.main import cli
from htxas.domain.result import GroundResult, SiteResult, Spectral
from htxas.domain.spectrum import Sticks, broaden
from htxas.errors import NotFound, UserError
from htxas.report.compare import compare, similarity
from htxas.store.records import CalculationRecord, MoleculeRecord, StructureRecord
from htxas.store.store import Store


class Several:
    """Campaigns side by side: their keys begin with their names."""

    def __init__(self, worlds: Mapping[str, Any], edges: Mapping[str, str] | None = None) -> None:
        self._worlds, self._edges = worlds, edges or {}
        self.moved: dict[str, float] = {}

    def campaign(self, name: str) -> dict[str, Any]:
        if name not in self._worlds:
            raise NotFound(f"no campaign is called {name!r}")
        return {"name": name, "engine": "fake", "element": "C", "edge": self._edges.get(name, "K")}

    def molecules(self, campaign: str, **_: Any) -> Iterator[MoleculeRecord]:
        for molecule in self._worlds[campaign].molecules():
            sites = tuple(replace(s, key=f"{campaign}:{s.key}") for s in molecule.sites)
            ground = molecule.ground_key and f"{campaign}:{molecule.ground_key}"
            yield replace(molecule, campaign=campaign, sites=sites, ground_key=ground)

    def molecule(self, campaign: str, name: str) -> MoleculeRecord:
        for molecule in self.molecules(campaign):
            if molecule.name == name:
                return molecule
        raise NotFound(name)

    def structure(self, key: str) -> StructureRecord:
        found: StructureRecord = next(iter(self._worlds.values())).structure(key)
        return found

    def calculation(self, key: str) -> CalculationRecord:
        return self.calculations([key])[key]

    def ground_result(self, key: str) -> GroundResult:
        found: GroundResult = next(iter(self._worlds.values())).ground_result(key.rpartition(":")[2])
        return found

    def calculations(self, keys: Iterable[str]) -> dict[str, CalculationRecord]:
        split = {key: key.partition(":") for key in keys}
        return {
            key: replace(self._worlds[world].calculation(own), key=key)
            for key, (world, _, own) in split.items()
        }

    def site_result(self, key: str) -> Spectral:
        world, _, own = key.partition(":")
        result: Spectral = self._worlds[world].site_result(own)
        if world not in self.moved:
            return result
        assert isinstance(result, SiteResult)
        by = self.moved[world]
        return replace(
            result,
            excitation_energy_eV=result.excitation_energy_eV + by,
            sticks=Sticks(result.sticks.energies_eV + by, result.sticks.strengths),
        )


@pytest.fixture
def several(results: Any, curves: Any) -> Several:
    found = Several({"dft": results, "moved": results, "feff": curves}, {"other": "L3"})
    found.moved["moved"] = 5.3
    return found


def test_moved_as_a_whole_is_the_same(several: Several) -> None:
    found = compare(several, ["dft", "moved"])  # type: ignore[arg-type]
    assert found.rows
    for row in found.rows:
        assert row.entries[1].similarity == pytest.approx(1.0)
        assert row.entries[1].moved_eV == pytest.approx(-5.3)
    (own, other) = found.summary()
    assert other["offset_eV"] == pytest.approx(5.3)
    assert other["shift_rms_eV"] == pytest.approx(0.0, abs=1e-9)
    assert own["similarity_median"] is None
    np.testing.assert_allclose(found.shifts_eV()[:, 0], found.shifts_eV()[:, 1], atol=1e-9)
    assert found.shifts_eV().mean(axis=0) == pytest.approx([0, 0], abs=1e-9)


def test_sites_that_one_lacks_are_counted(several: Several) -> None:
    found = compare(several, ["dft", "feff"])  # type: ignore[arg-type]
    sites = sum(len(m.sites) for m in several.molecules("dft"))
    assert len(found.rows) + found.missing == sites
    assert found.missing > 0  # the made-up world has sites that failed


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["dft"], "nothing to compare"),
        (["dft", "dft"], "nothing to compare"),
        (["dft", "other"], "of different edges: C K and C L3"),
        (["dft", "nowhere"], "no campaign is called"),
    ],
)
def test_what_cannot_be_compared(results: Any, names: list[str], message: str) -> None:
    several = Several({"dft": results, "other": results}, {"other": "L3"})
    with pytest.raises(UserError, match=message):
        compare(several, names)  # type: ignore[arg-type]


def test_no_common_site(several: Several) -> None:
    with pytest.raises(UserError, match="no site is finished in all"):
        compare(several, ["dft", "moved"], molecules=["unobtainium"])  # type: ignore[arg-type]


def test_similarity_finds_the_shift_and_no_more() -> None:
    energies = np.array([285.0, 288.0, 291.5, 296.0])
    strengths = np.outer([0.05, 0.02, 0.03, 0.08], [1.0, 1.0, 1.0])
    a = broaden(Sticks(energies, strengths))
    b = broaden(Sticks(energies + 4.0, 3 * strengths))
    assert similarity(a, 285.0, b, 289.0) == pytest.approx((1.0, -4.0))
    assert similarity(a, 285.0, b, 287.5) == pytest.approx((1.0, -4.0))  # within 3 eV of equal onsets
    far, _ = similarity(a, 285.0, b, 280.0)
    assert far < 0.9
    coarse = broaden(Sticks(energies, strengths), step_eV=0.2)
    with pytest.raises(ValueError, match="steps"):
        similarity(a, 285.0, coarse, 285.0)


def test_the_command(several: Several, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @contextmanager
    def opened(**_: Any) -> Iterator[Several]:
        yield several

    monkeypatch.setattr(Store, "open", staticmethod(opened))

    def call(*words: str) -> str:
        done = CliRunner().invoke(cli, ["compare", *words], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    table = call("dft", "moved")
    assert "ethanol/C" in table
    assert "+5.30" in table
    assert "not finished in all of them" in table
    assert "ethanol/C" not in call("dft", "moved", "--summary")
    figure = tmp_path / "engines.png"
    assert str(figure) in call(
        "dft", "moved", "--summary", "--molecule", "ethanol", "-o", str(figure)
    ).replace("\n", "")
    assert figure.stat().st_size > 10_000
    document = json.loads(call("dft", "moved", "--json"))
    assert document["summary"][1]["offset_eV"] == pytest.approx(5.3)
    assert set(document["sites"][0]["entries"]) == {"dft", "moved"}
