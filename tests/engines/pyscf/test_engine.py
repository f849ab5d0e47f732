from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Convergence, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import GroundResult, Result, SiteResult
from htxas.domain.structure import Structure
from htxas.engines.base import Engine, Job, read_job
from htxas.errors import Cause, EngineFailure, UnsupportedInput, UserError
from tests.engines.pyscf.conftest import jobs, molecule, run

pytestmark = pytest.mark.pyscf
Run = tuple[Path, Job, Job, Result, Result]


def test_results_pass_the_gate_and_the_physics(methanol_run: Run) -> None:
    _, _, _, ground, site = methanol_run
    assert isinstance(ground, GroundResult)
    assert isinstance(site, SiteResult)
    assert inspect(ground, GateLimits()) is None
    assert inspect(site, GateLimits(), element="C", edge="K") is None
    assert site.ionization_eV == pytest.approx(292.4, abs=1.2)  # experiment 292.4; PBE is about 1 eV low
    assert site.excitation_energy_eV == pytest.approx(288.1, abs=0.3)
    assert np.linalg.norm(ground.dipole_D) == pytest.approx(1.70, abs=0.2)  # experiment 1.70 D
    assert ground.pdos.occupations.sum() == pytest.approx(18)
    assert ground.pdos.weights.min() >= 0


def test_polarisation_follows_the_frame(engine: Engine, tmp_path: Path) -> None:
    """Ethyne on z: the pi* lines are x and y, equal, and z is dark there."""
    from htxas.engines.pyscf.process import Shared, _site

    structure = molecule("ethyne")
    p = engine.resolve("published", {}, element="C", edge="K")
    job = Job(Calculation(Kind.SITE, structure.key, "pyscf", p.site, "C", "K", 2), structure)
    arrays, facts = _site(job, Shared(), tmp_path)
    first = arrays["strengths"][:2]
    assert facts["convergence"] == "converged"
    assert facts["extra"]["ground_state"] == "computed again"
    np.testing.assert_allclose(first.sum(axis=0)[0], first.sum(axis=0)[1], rtol=1e-2)
    assert first[:, 2].max() < 1e-6
    assert arrays["energies_eV"][0] == pytest.approx(285.5, abs=0.2)


def test_provenance_says_where_it_comes_from(methanol_run: Run) -> None:
    directory, _, _, _, site = methanol_run
    p = site.provenance
    assert set(p.libraries) >= {"htxas", "pyscf", "numpy"}
    assert p.directory == str(directory / "site")
    assert len(p.inputs_sha256["calculation.json"]) == 64
    assert p.started < p.ended
    assert p.extra["ground_state"] == "read from its folder"


def test_server_gives_the_same_numbers(engine: Engine, methanol_run: Run, tmp_path: Path) -> None:
    _, _, _, ground, site = methanol_run
    ground_job, site_job = jobs(engine, molecule("methanol"), tmp_path)
    answer = subprocess.run(
        engine.server_command() or [],
        input=f"{tmp_path / 'ground'}\n{tmp_path / 'site'}\n",
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    replies = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [r["returncode"] for r in replies] == [0, 0]
    served = engine.read(site_job, tmp_path / "site")
    assert isinstance(served, SiteResult)
    assert served.provenance.extra["ground_state"] == "same process"
    np.testing.assert_allclose(served.sticks.energies_eV, site.sticks.energies_eV, atol=1e-3)
    assert engine.read(ground_job, tmp_path / "ground").total_energy_eV == pytest.approx(
        ground.total_energy_eV, abs=1e-4
    )


@pytest.mark.slow
def test_accurate_preset_has_its_own_scale(engine: Engine, tmp_path: Path) -> None:
    _, job = jobs(engine, molecule("formaldehyde"), tmp_path, preset="accurate")
    assert run(engine, tmp_path / "ground") == 0
    assert run(engine, tmp_path / "site") == 0
    result = engine.read(job, tmp_path / "site")
    assert isinstance(result, SiteResult)
    assert "neutral" in result.scale
    assert result.excitation_energy_eV == pytest.approx(286.0, abs=0.4)  # experiment
    assert result.ionization_eV == pytest.approx(294.5, abs=0.2)  # experiment
    expected = 2 * result.energies_eV["mixed"] - result.energies_eV["triplet"] - result.energies_eV["ground"]
    assert result.excitation_energy_eV == pytest.approx(expected, abs=0.1)


def test_a_real_scf_that_does_not_converge(engine: Engine, tmp_path: Path) -> None:
    ground_job, site_job = jobs(engine, molecule("formaldehyde"), tmp_path, max_cycles=3)
    assert run(engine, tmp_path / "ground") == 0
    result = engine.read(ground_job, tmp_path / "ground")
    assert result.convergence is Convergence.UNCONVERGED
    rejection = inspect(result, GateLimits())
    assert rejection is not None
    assert rejection.cause is Cause.SCF_UNCONVERGED
    assert not (tmp_path / "ground" / "ground.npz").exists()
    assert run(engine, tmp_path / "site") == 1
    with pytest.raises(EngineFailure, match="ground state did not converge") as caught:
        engine.read(site_job, tmp_path / "site")
    assert caught.value.cause is Cause.SCF_UNCONVERGED


def test_killed_before_the_end_is_a_crash(engine: Engine, tmp_path: Path) -> None:
    job, _ = jobs(engine, molecule("methanol"), tmp_path)
    process = subprocess.Popen(engine.command(tmp_path / "ground"))
    process.kill()
    process.wait()
    with pytest.raises(EngineFailure) as caught:
        engine.read(job, tmp_path / "ground")
    assert caught.value.cause is Cause.ENGINE_CRASH


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "result.npz").write_bytes((d / "result.npz").read_bytes()[:500]), "not the file"),
        (lambda d: (d / "result.npz").unlink(), "cannot be read"),
        (lambda d: (d / "outcome.json").write_text("{"), "cannot be read"),
        (lambda d: (d / "outcome.json").write_text('{"status": "ok", "key": "0"}'), "belongs to"),
        (lambda d: (d / "outcome.json").write_text("[]"), "not an object"),
    ],
)
def test_spoilt_output_is_named(
    engine: Engine, methanol_run: Run, tmp_path: Path, spoil: object, message: str
) -> None:
    import shutil

    directory, _, site, _, _ = methanol_run
    copy = Path(shutil.copytree(directory / "site", tmp_path / "copy"))
    spoil(copy)  # type: ignore[operator]
    with pytest.raises(EngineFailure, match=message) as caught:
        engine.read(site, copy)
    assert caught.value.cause is Cause.BAD_OUTPUT


def test_a_changed_input_is_refused(engine: Engine, tmp_path: Path) -> None:
    job, _ = jobs(engine, molecule("methanol"), tmp_path)
    path = tmp_path / "ground" / "calculation.json"
    path.write_text(path.read_text().replace("0.6632", "0.7632"))
    with pytest.raises(ValueError, match="its own key"):
        read_job(path.parent)
    assert run(engine, tmp_path / "ground") == 1
    with pytest.raises(EngineFailure) as caught:
        engine.read(job, tmp_path / "ground")
    assert caught.value.cause is Cause.BAD_INPUT


def test_disk_full_is_named(engine: Engine, tmp_path: Path) -> None:
    """A real file-size limit stands in for a full disk: the write fails inside the engine."""
    job, _ = jobs(engine, molecule("formaldehyde"), tmp_path)
    code = (
        "import errno, sys; from pathlib import Path; from htxas.engines.pyscf import process\n"
        "def full(*a, **k): raise OSError(errno.ENOSPC, 'No space left on device', 'result.npz')\n"
        "process.np.savez = full\n"
        "raise SystemExit(process.run_directory(Path(sys.argv[1]), process.Shared()))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "ground")], check=False, timeout=300)
    assert done.returncode == 1
    with pytest.raises(EngineFailure, match="no space left") as caught:
        engine.read(job, tmp_path / "ground")
    assert caught.value.cause is Cause.DISK_FULL


def test_what_the_engine_cannot_treat_is_refused(engine: Engine) -> None:
    p = engine.resolve("published", {}, element="C", edge="K")
    crystal, _ = Structure.from_atoms(["C", "C"], [[0, 0, 0], [0.89, 0.89, 0.89]], np.eye(3) * 3.57)
    with pytest.raises(UnsupportedInput, match="periodic"):
        engine.check(crystal, p)
    radical, _ = Structure.from_atoms(["C", "H"], [[0, 0, 0], [0, 0, 1.1]])
    with pytest.raises(UnsupportedInput, match="odd number"):
        engine.check(radical, p)
    heavy, _ = Structure.from_atoms(["C", "Fe"], [[0, 0, 0], [0, 0, 1.8]])
    with pytest.raises(UnsupportedInput, match="Fe"):
        engine.check(heavy, p)


@pytest.mark.parametrize(
    ("preset", "overrides", "element", "edge", "message"),
    [
        ("publishd", {}, "C", "K", "did you mean 'published'"),
        ("published", {"grid_levl": 1}, "C", "K", "did you mean 'grid_level'"),
        ("published", {"grid_level": "fine"}, "C", "K", "grid_level = 'fine'"),
        ("published", {"functional": "PBE0"}, "C", "K", "functional"),
        ("published", {"core_basis": "pcX1"}, "C", "K", "pcX-1"),
        ("published", {"valence_basis": "LANL2DZ"}, "C", "K", "by a potential"),
        ("published", {"core_basis": "cc-pCVTZ"}, "C", "K", "f functions"),
        ("published", {}, "Fe", "K", "cannot excite Fe"),
        ("published", {}, "C", "L3", "K edges"),
    ],
)
def test_wrong_parameters_are_named(
    engine: Engine, preset: str, overrides: dict[str, object], element: str, edge: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        engine.resolve(preset, overrides, element=element, edge=edge)


def test_identity_holds_the_basis_content_and_shares_the_ground_state(engine: Engine) -> None:
    base = engine.resolve("published", {}, element="C", edge="K")
    assert base.site["ground"] == base.ground
    assert set(base.ground["basis_sha256"]) == {"core", "valence", "auxiliary"}
    other = engine.resolve("published", {"scale": "neutral"}, element="C", edge="K")
    assert other.ground == base.ground
    assert other.site != base.site
    nitrogen = engine.resolve("published", {}, element="N", edge="K")
    assert nitrogen.ground != base.ground  # the core basis sits on the other element


def test_cost_grows_with_size_and_settings(engine: Engine) -> None:
    published = engine.resolve("published", {}, element="C", edge="K")
    accurate = engine.resolve("accurate", {}, element="C", edge="K")
    small, large = molecule("formaldehyde"), molecule("methanol")
    assert engine.estimate_s(small, Kind.SITE, published.site) < engine.estimate_s(
        large, Kind.SITE, published.site
    )
    assert engine.estimate_s(large, Kind.SITE, published.site) < engine.estimate_s(
        large, Kind.SITE, accurate.site
    )
    assert engine.estimate_s(large, Kind.GROUND, published.ground) > 0
