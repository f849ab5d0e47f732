"""The engine process beside the numbers: what it rests on, what it refuses, what it tells."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import Engine, Job, read_job
from htxas.engines.pyscf import ground
from htxas.engines.pyscf.parameters import resolve
from htxas.engines.pyscf.process import ORBITALS, OUTCOME, Shared, _memory_MB, run_directory
from tests.engines.pyscf.conftest import molecule

pytestmark = pytest.mark.pyscf
ETHYNE = molecule("ethyne")
FAST = {"grid_level": 0}


def outcome(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / OUTCOME).read_text()))


def start(engine: Engine, job: Job, directory: Path, shared: Shared | None = None) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    engine.write(job, directory)
    run_directory(directory, shared or Shared())
    return outcome(directory)


def parameters(**overrides: Any) -> Mapping[str, Any]:
    return resolve("published", {**FAST, **overrides}, element="C", edge="K").site


def ground_job(site: Mapping[str, Any]) -> Job:
    return Job(Calculation(Kind.GROUND, ETHYNE.key, "pyscf", site["ground"]), ETHYNE)


def site_job(site: Mapping[str, Any], which: int = 0, folder: Path | None = None) -> Job:
    atom = ETHYNE.indices_of("C")[which]
    return Job(Calculation(Kind.SITE, ETHYNE.key, "pyscf", site, "C", "K", atom), ETHYNE, folder)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ground state, to be copied."""
    from htxas.engines.registry import get_engine

    directory = tmp_path_factory.mktemp("ground")
    assert start(get_engine("pyscf"), ground_job(parameters()), directory)["status"] == "ok"
    return directory


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(done, tmp_path / "ground"))


def test_a_site_with_corrections_leaves_the_ground_state_as_it_was(engine: Engine, tmp_path: Path) -> None:
    """Its own numerics neither change the ground state nor reach the next site."""
    shared, site = Shared(), parameters()
    first = replace(site_job(site), numerics={"start": "huckel", "level_shift_Ha": 0.3, "cycles_factor": 5.0})
    assert start(engine, first, tmp_path / "1", shared)["extra"].get("aided") is None
    assert shared.state is not None
    assert shared.state.state.energy == ground.run(ETHYNE, site["ground"]).state.energy
    extra = start(engine, site_job(site, 1), tmp_path / "2", shared)["extra"]
    assert extra["ground_state"] == "same process"
    assert "numerics" not in extra


@pytest.mark.parametrize("orbitals", [True, False])
def test_what_rests_on_a_corrected_ground_state_says_so(
    engine: Engine, tmp_path: Path, orbitals: bool
) -> None:
    """Read from its folder or computed again, with its own numerics; the site has none."""
    site = parameters(max_cycles=5)
    numerics = {"cycles_factor": 3.0}
    first = start(engine, replace(ground_job(site), numerics=numerics), tmp_path / "ground")
    assert first["convergence"] == "converged"
    if not orbitals:
        (tmp_path / "ground" / ORBITALS).unlink()
    extra = start(engine, site_job(site, folder=tmp_path / "ground"), tmp_path / "site")["extra"]
    assert extra["ground_state"] == ("read from its folder" if orbitals else "computed again")
    assert extra["aided"] == {"ground": first["extra"]["aided"]["ground"]}
    assert extra["aided"]["ground"]["numerics"] == numerics
    assert "numerics" not in extra


@pytest.mark.parametrize("left", [0.0, 0.5])
def test_damaged_orbitals_are_computed_again(engine: Engine, folder: Path, left: float) -> None:
    whole = (folder / ORBITALS).read_bytes()
    (folder / ORBITALS).write_bytes(whole[: int(left * len(whole))])
    told = start(engine, site_job(parameters(), folder=folder), folder.parent / "site")
    assert told["status"] == "ok"
    assert told["extra"]["ground_state"] == "computed again"


def test_another_ground_state_than_the_stored_one_is_refused(engine: Engine, folder: Path) -> None:
    (folder / ORBITALS).unlink()
    with np.load(folder / "result.npz") as data:
        arrays = {name: data[name] for name in data.files}
    np.savez(folder / "result.npz", **{**arrays, "energy_Ha": arrays["energy_Ha"] - 0.002})
    told = start(engine, site_job(parameters(), folder=folder), folder.parent / "site")
    assert told["failure"]["cause"] == "gate_rejected"
    assert "+54.4 meV from the stored one" in told["failure"]["message"]
    assert told["failure"]["evidence"]["ground_directory"] == str(folder)


def test_so_it_is_where_its_folder_is_out_of_sight(engine: Engine, tmp_path: Path) -> None:
    """Packed, or on another cluster: the database knows its energy, and how it was found."""
    site = parameters(max_cycles=5)
    numerics = {"cycles_factor": 3.0}
    first = start(engine, replace(ground_job(site), numerics=numerics), tmp_path / "ground")
    assert first["convergence"] == "converged"
    with np.load(tmp_path / "ground/result.npz") as data:
        energy_eV = float(data["energy_Ha"]) * HARTREE_EV
    alone = site_job(site, folder=tmp_path / "gone")
    assert start(engine, alone, tmp_path / "1")["failure"]["cause"] == "scf_unconverged"
    known = replace(alone, ground_energy_eV=energy_eV, ground_numerics=numerics)
    told = start(engine, known, tmp_path / "2")
    assert told["extra"]["ground_state"] == "computed again"
    assert told["extra"]["aided"]["ground"]["numerics"] == numerics
    other = replace(known, ground_energy_eV=energy_eV - 0.05)
    told = start(engine, other, tmp_path / "3")
    assert "+50.0 meV from the stored one" in told["failure"]["message"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": 99}, "recipe 99, and this htxas .* recipe 1;"),
        (
            {"basis_sha256": {"core": "dead"}},
            "core basis pcX-1 of content dead, and basis-set-exchange .* here has",
        ),
        (
            {"basis_sha256": {"auxiliary": "dead"}},
            "auxiliary basis def2-universal-jfit of content dead, and pyscf",
        ),
        ({"valence_basis": "not-one"}, "no basis set is called 'not-one'"),
    ],
)
def test_what_would_be_stored_under_another_identity_is_refused(
    engine: Engine, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    site = parameters()
    other = {**site, "ground": {**site["ground"], **change}}
    for job in (site_job(other), ground_job(other)):
        failure = start(engine, job, tmp_path / job.calculation.kind.value)["failure"]
        assert failure["cause"] == "bad_input"
        assert re.search(message, failure["message"])


def test_settings_of_pyscf_do_not_reach_the_numbers(engine: Engine, folder: Path) -> None:
    """One in each place it looks at: two of these options are worth 60 meV and more."""
    wrong = "dft_gen_grid_Grids_prune = None\nx2c_X2C_approx = 'atom1e'\nx2c_X2C_xuncontract = False\n"
    home = folder.parent / "home"
    home.mkdir()
    for place in (home, folder.parent):
        (place / ".pyscf_conf.py").write_text(wrong)
    again = folder.parent / "again"
    again.mkdir()
    engine.write(ground_job(parameters()), again)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(home)}
    environment["PYSCF_CONFIG_FILE"] = str(home / ".pyscf_conf.py")
    subprocess.run(engine.command(again), env=environment, cwd=folder.parent, check=True, timeout=120)
    for name in ("energy_Ha", "pdos_energies_eV"):
        with np.load(again / "result.npz") as new, np.load(folder / "result.npz") as old:
            np.testing.assert_allclose(new[name], old[name], rtol=0, atol=1e-9)
    told = outcome(again)["extra"]
    assert told["threads"] == 1
    assert "OMP_NUM_THREADS" in told["environment"]


def test_a_process_that_has_read_settings_refuses(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyscf import __config__

    monkeypatch.setattr(__config__, "conf_file", "/home/somebody/.pyscf_conf.py")
    failure = start(engine, ground_job(parameters()), tmp_path / "run")["failure"]
    assert failure["cause"] == "bad_input"
    assert failure["where"] == "/home/somebody/.pyscf_conf.py"


def test_memory_is_what_the_job_says(engine: Engine, tmp_path: Path) -> None:
    job = ground_job(parameters())
    assert _memory_MB(job) is None
    assert _memory_MB(replace(job, memory_factor=2.0)) == 12000.0
    given = replace(job, memory_factor=2.0, memory_MB=3000.0)
    engine.write(given, tmp_path)
    assert _memory_MB(read_job(tmp_path)) == 3000.0
    hamiltonian = ground.run(ETHYNE, parameters()["ground"], memory_MB=1000.0).hamiltonian
    assert hamiltonian.fit.max_memory == 650.0
    assert hamiltonian.grid._max_cache_bytes == 250e6
    usual = ground.run(ETHYNE, parameters()["ground"]).hamiltonian
    assert usual.fit.max_memory == 4000.0
    assert usual.grid._max_cache_bytes == 1.5e9
