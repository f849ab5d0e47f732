from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Convergence
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import GroundResult, SiteResult
from htxas.engines.base import read_job
from htxas.engines.gpaw.engine import ENGINE
from htxas.engines.gpaw.recursion import read_poles
from htxas.errors import Cause, EngineFailure

Copy = Callable[[str], Path]


def site(folder: Path) -> SiteResult:
    result = ENGINE.read(read_job(folder), folder)
    assert isinstance(result, SiteResult)
    return result


def ground(folder: Path) -> GroundResult:
    result = ENGINE.read(read_job(folder), folder)
    assert isinstance(result, GroundResult)
    return result


def document(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def change(folder: Path, name: str, edit: Callable[[Any], None]) -> None:
    found = document(folder, name)
    edit(found)
    (folder / name).write_text(json.dumps(found))


def test_a_ground_state(runs: Path) -> None:
    result = ground(runs / "ground")
    assert result.reference == "vacuum"
    assert result.homo_eV == pytest.approx(-9.05, abs=0.15)  # CO with PBE, by other codes; coarse here
    assert result.dipole_norm_D == pytest.approx(0.2, abs=0.1)
    assert abs(result.dipole_D[:2]).max() < 1e-6  # the molecule lies along z
    assert len(result.pdos.energies_eV) == 9  # five full, four empty; those carried along are not served
    assert result.pdos.occupations.sum() == pytest.approx(10.0)
    held = result.pdos.weights.sum(axis=(1, 2))
    assert held[:5].min() > 0.95
    assert held.max() <= 1 + 1e-6
    assert result.provenance.engine_version == result.provenance.libraries["gpaw"]
    assert sorted(result.provenance.extra["data_sets_sha256"]) == ["C", "O"]


def test_a_site(runs: Path) -> None:
    result = site(runs / "site")
    energies = result.energies_eV
    half = document(runs / "site", "transition.json")
    assert result.ionization_eV == pytest.approx(energies["ion"] - energies["ground"])
    lowest_eV = half["levels_eV"][0][5]
    assert result.excitation_energy_eV == pytest.approx(result.ionization_eV + lowest_eV)
    # first final states: the two pi* orbitals, which are across the bond; as strong in both ways
    first = np.abs(result.sticks.energies_eV - result.excitation_energy_eV) < 1e-6
    x, y, z = result.sticks.strengths[first].sum(axis=0)
    assert x == pytest.approx(y, rel=1e-3)
    assert z == 0.0
    # GPAW's own matrix elements of these states, from levels it had iterated (XAS, times two electrons)
    assert x == pytest.approx(0.237, abs=0.01)
    assert result.convergence is Convergence.CONVERGED


def test_all_strength_is_that_of_the_dipole_vector(runs: Path) -> None:
    """Whatever the recursion does, it moves strength and makes none."""
    found = document(runs / "site", "transition.json")["recursion"]
    for poles, square in zip(read_poles(found), found["squares_a02"], strict=True):
        assert poles.squares_a02.sum() == pytest.approx(square, rel=1e-9)


def test_poles_of_a_known_matrix() -> None:
    levels, weights = np.array([-0.3, 0.1, 0.8]), np.array([0.5, 0.3, 0.2])
    vector, before, diagonal, beside = np.sqrt(weights), np.zeros(3), [], [0.0]
    for _ in range(3):
        diagonal.append(float(vector @ (levels * vector)))
        rest = levels * vector - diagonal[-1] * vector - beside[-1] * before
        before, norm = vector, float(np.linalg.norm(rest))
        beside.append(norm)
        vector = rest / norm
    told = {
        "squares_a02": [1.0, 2.0, 3.0],
        "diagonals_Ha": [diagonal] * 3,
        "besides_Ha": [beside[1:3]] * 3,
    }
    for factor, poles in zip((1.0, 2.0, 3.0), read_poles(told), strict=True):
        assert poles.energies_eV / 27.211386 == pytest.approx(levels, abs=1e-6)
        assert poles.squares_a02 == pytest.approx(factor * weights)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("ion.json", lambda d: d.update(key="other"), "another calculation"),
        ("ion.json", lambda d: d.update(step="ground"), "another calculation"),
        ("ion.json", lambda d: d["data_sets"]["hole"].update(energy_Ha=-32.4617), "another data set of hole"),
        ("ion.json", lambda d: d["data_sets"].pop("O"), "cannot be read"),
        ("ion.json", lambda d: d["occupations"][0].__setitem__(0, 0.0), "9 valence electrons, not 10"),
        ("transition.json", lambda d: d.update(gpts=[24, 24, 24]), "the grid has"),
        (
            "transition.json",
            lambda d: d["levels_eV"][0].__setitem__(5, d["levels_eV"][0][5] + 1),
            "the recursion found a level below",
        ),
        ("transition.json", lambda d: d["recursion"]["besides_Ha"][2].pop(), "transition.json"),
        ("outcome.json", lambda d: d.pop("ground"), "no energy of the ground state"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    copied: Copy, name: str, edit: Callable[[Any], None], message: str
) -> None:
    folder = copied("site")
    change(folder, name, edit)
    with pytest.raises(EngineFailure, match=message) as caught:
        site(folder)
    assert caught.value.cause is Cause.BAD_OUTPUT


def test_an_unconverged_recursion_is_told(copied: Copy) -> None:
    folder = copied("site")
    change(folder, "transition.json", lambda d: d["recursion"].update(converged=False, change=0.02))
    result = site(folder)
    assert result.convergence is Convergence.UNCONVERGED
    rejection = inspect(result, GateLimits())
    assert rejection is not None
    assert rejection.cause is Cause.SCF_UNCONVERGED
    assert result.provenance.extra["recursion_change"] == 0.02


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("Traceback\nnumpy._core._exceptions.MemoryError: Unable to allocate", Cause.OUT_OF_MEMORY),
        ("Traceback\nRuntimeError: something", Cause.ENGINE_CRASH),
    ],
)
def test_a_step_that_died(copied: Copy, said: str, cause: Cause) -> None:
    folder = copied("site")
    (folder / "ion.json").unlink()
    (folder / "ion.out").write_text(said)
    with pytest.raises(EngineFailure, match="ion ended before its end") as caught:
        site(folder)
    assert caught.value.cause is cause
    assert caught.value.evidence["log_tail"]


def test_why_the_ground_state_of_a_site_failed(copied: Copy, runs: Path) -> None:
    folder = copied("site")
    change(folder, "outcome.json", lambda d: d.pop("ground"))
    (folder / "ground").mkdir()
    state = document(runs / "unconverged", "transition.json")
    state |= {"key": read_job(folder).calculation.key, "step": "ground"}
    (folder / "ground/ground.json").write_text(json.dumps(state))
    with pytest.raises(EngineFailure) as caught:
        site(folder)
    assert caught.value.cause is Cause.SCF_UNCONVERGED
