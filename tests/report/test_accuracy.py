from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from htxas import assets
from htxas.cli.main import cli
from htxas.domain.calculation import Convergence
from htxas.domain.result import Provenance, SiteResult
from htxas.domain.spectrum import Sticks
from htxas.engines.base import ResolvedParameters
from htxas.engines.fake.engine import FakeEngine
from htxas.errors import UserError
from htxas.report.accuracy import compare, first_strong_peak_eV, load_experiments, mean_absolute_error


def site(energies: list[float], strengths: list[float], ionization_eV: float | None) -> SiteResult:
    return SiteResult(
        convergence=Convergence.CONVERGED,
        sticks=Sticks(np.array(energies), np.repeat(np.array(strengths)[:, None], 3, axis=1)),
        excitation_energy_eV=energies[0],
        ionization_eV=ionization_eV,
        scale="",
        energies_eV={"ground": 0.0},
        hole_overlap=1.0,
        window_eV=40.0,
        provenance=Provenance("", {}, "", "", "", 0.0, 0.0, {}, ""),
    )


def test_a_dark_first_state_is_no_peak() -> None:
    methane = site([286.9, 288.46, 288.461, 288.462, 300.0], [0.0, 0.015, 0.015, 0.015, 0.5], 290.0)
    assert first_strong_peak_eV(methane) == pytest.approx(288.461)


def test_degenerate_states_are_one_peak() -> None:
    level = site([285.50, 285.501, 289.0], [0.012, 0.012, 0.03], 290.5)
    assert first_strong_peak_eV(level) == pytest.approx(285.5005)


def test_all_states_in_the_continuum_still_have_a_first_peak() -> None:
    assert first_strong_peak_eV(site([291.0, 292.0], [0.01, 0.02], 290.0)) == 291.0


def test_the_shipped_experiments_are_complete() -> None:
    known, element, edge = load_experiments(assets.workflow("accuracy/gas_phase.json"))
    assert (element, edge) == ("C", "K")
    assert sum(x.first_peak_eV is not None for x in known) == 7
    assert all(x.ionization_eV is not None for x in known)


def test_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"molecules": [{"name": "a"}]}')
    with pytest.raises(UserError, match="not a file of experiments"):
        load_experiments(path)


def test_errors_that_are_not_there_are_not_averaged() -> None:
    assert mean_absolute_error([0.5, None, -0.1]) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="no errors"):
        mean_absolute_error([None])


class _Fake(FakeEngine):
    """The fake engine with other defaults."""

    def __init__(self, **parameters: Any) -> None:
        self.parameters = parameters

    def resolve(self, preset: str, overrides: Any, *, element: str, edge: str) -> ResolvedParameters:
        return super().resolve(preset, {**self.parameters, **overrides}, element=element, edge=edge)


def test_an_engine_without_ground_states_computes_sites_alone(tmp_path: Path) -> None:
    known, element, edge = load_experiments(assets.workflow("accuracy/gas_phase.json"))
    (row,) = compare(_Fake(ground=False), known[:1], ["instant"], tmp_path, element=element, edge=edge)
    assert row.seconds > 0
    assert [p.name for p in (tmp_path / "instant" / known[0].name).iterdir()] == ["site"]


def test_continuous_spectra_have_no_lines_to_compare(tmp_path: Path) -> None:
    known, element, edge = load_experiments(assets.workflow("accuracy/gas_phase.json"))
    with pytest.raises(UserError, match="fake gives continuous spectra, and the experiments are lines"):
        compare(_Fake(spectrum="curve"), known[:1], ["instant"], tmp_path, element=element, edge=edge)


@pytest.mark.pyscf
def test_the_command_runs_the_engine(tmp_path: Path) -> None:
    document = json.loads(assets.workflow("accuracy/gas_phase.json").read_text())
    document["molecules"] = [m for m in document["molecules"] if m["name"] == "carbon monoxide"]
    path = tmp_path / "co.json"
    path.write_text(json.dumps(document))
    arguments = [
        "accuracy",
        "--preset",
        "published",
        "--experiments",
        str(path),
        "--keep",
        str(tmp_path / "runs"),
    ]
    done = CliRunner().invoke(cli, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert abs(row["first_peak_error_eV"]) < 1.0
    assert abs(row["ionization_error_eV"]) < 1.2
    table = CliRunner().invoke(cli, [*arguments, "--markdown"]).stdout
    assert "| carbon monoxide | 287.4 pi* |" in table
    assert "mean absolute error" in table
