from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import GroundResult, SiteResult
from htxas.domain.structure import Structure
from htxas.engines.base import Job
from htxas.engines.gpaw.engine import ENGINE
from htxas.engines.gpaw.inside import dipole_vectors
from htxas.engines.gpaw.parameters import Ground
from htxas.engines.gpaw.recipes import RECIPES
from htxas.engines.gpaw.write import lay_grid
from htxas.errors import Cause, EngineFailure, UnsupportedInput, UserError

COARSE = {
    "spacing_A": 0.26,
    "margin_A": 3.0,
    "empty_bands": 4,
    "window_eV": 25.0,
    "tolerance": 0.01,
    "resolution_eV": 0.5,
}


def jobs(structure: Structure, **overrides: Any) -> tuple[Job, Job]:
    p = ENGINE.resolve("light", overrides, element="C", edge="K")
    assert p.ground is not None
    ground = Calculation(Kind.GROUND, structure.key, "gpaw", p.ground)
    atom = structure.indices_of("C")[0]
    return Job(ground, structure), Job(
        Calculation(Kind.SITE, structure.key, "gpaw", p.site, "C", "K", atom), structure
    )


def test_the_grid_has_its_spacing_and_its_margins() -> None:
    bent = Structure.from_atoms(list("OCC"), [[0, 0, 0], [1.2, 0.3, 0], [2.0, -1.0, 0.7]])[0]
    grid = lay_grid(bent, Ground(spacing_A=0.2, margin_A=4.0))
    assert [n % 4 for n in grid.points] == [0, 0, 0]
    assert np.array(grid.cell_A) / grid.points == pytest.approx(0.2, abs=1e-12)
    assert grid.positions_A.min() >= 4.0 - 1e-9
    assert (np.array(grid.cell_A) - grid.positions_A.max(axis=0)).min() >= 4.0 - 1e-9
    assert grid.positions_A - grid.positions_A[0] == pytest.approx(bent.positions_A - bent.positions_A[0])


def test_a_site_is_told(carbon_monoxide: Structure, tmp_path: Path) -> None:
    _, site = jobs(carbon_monoxide)
    ENGINE.write(site, tmp_path)
    told = json.loads((tmp_path / "input.json").read_text())
    assert told["key"] == site.calculation.key
    assert told["symbols"][told["absorber"]] == "C"
    assert told["occupied"] == 5
    assert sorted(told["recipes"]) == ["C", "O"]
    assert told["recipes"]["O"]["rcut"] == [1.3, 1.13, 1.17]
    compile((tmp_path / "steps.py").read_text(), "steps.py", "exec")
    assert "import htxas" not in (tmp_path / "steps.py").read_text()


def test_corrections_change_the_way_only(carbon_monoxide: Structure, tmp_path: Path) -> None:
    _, site = jobs(carbon_monoxide)
    gentle = Job(site.calculation, carbon_monoxide, numerics={"mixing_beta": 0.1, "iterations_factor": 3.0})
    ENGINE.write(gentle, tmp_path)
    told = json.loads((tmp_path / "input.json").read_text())
    assert told["numerics"] == {"mixing_beta": 0.1, "iterations_factor": 3.0}
    assert told["max_iterations"] == 150


@pytest.mark.parametrize(
    ("element", "edge", "overrides", "message"),
    [
        ("C", "L3", {}, "K edges"),
        ("H", "K", {}, "has no H with a core hole"),
        ("Fe", "K", {}, "has no Fe with a core hole"),
        ("C", "K", {"spacing": 0.2}, "did you mean 'spacing_A'"),
        ("C", "K", {"spacing_A": 0.3}, "spacing_A"),
        ("C", "K", {"functional": "PBE0"}, "functional"),
        ("C", "K", {"data_sets": "gpaw-pbe"}, "did you mean 'gpaw-pbe-1'"),
    ],
)
def test_parameters_are_refused(element: str, edge: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        ENGINE.resolve("light", overrides, element=element, edge=edge)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("symbols", "positions", "cell", "message"),
    [
        (["C", "Cl"], [[0, 0, 0], [0, 0, 1.8]], None, "has no Cl"),
        (
            ["C", "H", "H", "H"],
            [[0, 0, 0], [1, 0, 0], [-0.5, 0.9, 0], [-0.5, -0.9, 0]],
            None,
            "odd number of electrons",
        ),
        (["C", "C"], [[0, 0, 0], [0.9, 0.9, 0.9]], (np.ones((3, 3)) - np.eye(3)) * 1.78, "is periodic"),
    ],
)
def test_structures_are_refused(symbols: list[str], positions: Any, cell: Any, message: str) -> None:
    structure = Structure.from_atoms(symbols, positions, cell)[0]
    with pytest.raises(UnsupportedInput, match=message):
        ENGINE.check(structure, ENGINE.resolve("molecule", {}, element="C", edge="K"))


def test_a_set_of_recipes_never_changes() -> None:
    """An identity relies on its name: a better recipe is a new set."""
    from htxas.domain.identity import content_key

    known = {e: [r.valence, r.to_dict()] for e, r in RECIPES["gpaw-pbe-1"].items()}
    assert content_key(known) == "7876fca585b9027ba827eccba0740918"


def test_dipole_vectors_of_hydrogen() -> None:
    """<1s|z|2p> = 2^7 sqrt(2) / 3^5 bohr, whatever GPAW makes of it: its version 22.8 has sqrt(3) times that."""
    r = np.linspace(0.0, 60.0, 60001)
    data = SimpleNamespace(
        l_j=[0, 1, 0, 1, 2],
        phi_jg=[2 * np.exp(-r), r * np.exp(-r / 2) / math.sqrt(24), r, 2 * r * np.exp(-r / 2), r],
        phicorehole_g=2 * np.exp(-r),
        rgd=SimpleNamespace(r_g=r, dr_g=np.full_like(r, r[1])),
    )
    vectors = dipole_vectors(SimpleNamespace(data=data, ni=13))
    of_hydrogen = 2**7 * math.sqrt(2) / 3**5
    expected = np.zeros((3, 13))
    for axis, place in (("y", 0), ("z", 1), ("x", 2)):
        expected["xyz".index(axis), 1 + place] = of_hydrogen
        expected["xyz".index(axis), 5 + place] = of_hydrogen * 2 * math.sqrt(24)
    assert vectors == pytest.approx(expected, abs=1e-6)


def run(job: Job, folder: Path, **environment: str) -> int:
    folder.mkdir()
    ENGINE.write(job, folder)
    return subprocess.run(
        ENGINE.command(folder), env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, check=False
    ).returncode


def test_a_python_without_gpaw(carbon_monoxide: Structure, tmp_path: Path) -> None:
    ground, _ = jobs(carbon_monoxide)
    bare = tmp_path / "python"  # a link, as in a virtual environment, and -S: no packages
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    bare.chmod(0o755)
    assert run(ground, tmp_path / "run", HTXAS_GPAW=str(bare)) == 0
    with pytest.raises(EngineFailure, match="there is no GPAW in this Python") as caught:
        ENGINE.read(ground, tmp_path / "run")
    assert caught.value.cause is Cause.BAD_INPUT


def test_a_link_to_a_python_is_started_by_its_own_name(tmp_path: Path) -> None:
    from htxas.engines.gpaw.process import find_gpaw

    (tmp_path / "python").symlink_to(sys.executable)
    assert find_gpaw({"HTXAS_GPAW": str(tmp_path / "python")}).command() == [str(tmp_path / "python")]
    assert "no such program" in str(ENGINE.missing({"HTXAS_GPAW": str(tmp_path / "python3")}))


def test_estimates_grow_with_the_molecule(carbon_monoxide: Structure) -> None:
    light = ENGINE.resolve("light", {}, element="C", edge="K")
    fine = ENGINE.resolve("molecule", {}, element="C", edge="K")
    a = ENGINE.estimate_s(carbon_monoxide, Kind.SITE, light.site)
    b = ENGINE.estimate_s(carbon_monoxide, Kind.SITE, fine.site)
    assert 5 < a < b < 600
    assert math.isfinite(ENGINE.estimate_s(carbon_monoxide, Kind.GROUND, light.ground or {}))


@pytest.mark.gpaw
@pytest.mark.slow
def test_the_real_gpaw(carbon_monoxide: Structure, tmp_path: Path, runs: Path) -> None:
    ground, site = jobs(carbon_monoxide, **COARSE)
    assert run(ground, tmp_path / "ground") == 0
    state = ENGINE.read(ground, tmp_path / "ground")
    assert isinstance(state, GroundResult)
    assert inspect(state, GateLimits()) is None
    assert state.homo_eV == pytest.approx(-9.05, abs=0.15)  # PBE of other codes
    site = Job(site.calculation, carbon_monoxide, ground_directory=tmp_path / "ground")
    assert run(site, tmp_path / "site") == 0
    found = ENGINE.read(site, tmp_path / "site")
    assert isinstance(found, SiteResult)
    assert inspect(found, GateLimits(), element="C", edge="K") is None
    assert found.provenance.extra["ground"]["from"] == str(tmp_path / "ground")
    shutil.copytree(runs / "site", tmp_path / "before")
    before = ENGINE.read(site, tmp_path / "before")
    assert isinstance(before, SiteResult)
    assert found.excitation_energy_eV == pytest.approx(before.excitation_energy_eV, abs=0.003)
    # not the sum over the window: a pole of the quadrature may lie on either side of its end
    of_first = [
        r.sticks.strengths[r.sticks.energies_eV < r.excitation_energy_eV + 1].sum(axis=0)
        for r in (found, before)
    ]
    assert of_first[0] == pytest.approx(of_first[1], rel=1e-3, abs=1e-9)
