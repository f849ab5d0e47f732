from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from htxas.domain.calculation import Convergence
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import GroundResult, SiteResult
from htxas.domain.spectrum import dsf_A2
from htxas.domain.units import BOHR_A
from htxas.engines.base import read_job
from htxas.engines.cp2k.engine import ENGINE
from htxas.errors import Cause, EngineFailure


def site(folder: Path) -> SiteResult:
    result = ENGINE.read(read_job(folder), folder)
    assert isinstance(result, SiteResult)
    return result


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def failure(folder: Path) -> EngineFailure:
    with pytest.raises(EngineFailure) as caught:
        ENGINE.read(read_job(folder), folder)
    return caught.value


def test_a_ground_state(runs: Path) -> None:
    folder = runs / "methane-ground"
    result = ENGINE.read(read_job(folder), folder)
    assert isinstance(result, GroundResult)
    assert result.convergence is Convergence.CONVERGED
    # PySCF 2.14 in the same basis (76 meV too high in total; ethanol at the standard 200 Ry: 7 meV).
    assert result.total_energy_eV == pytest.approx(-1100.383, abs=0.1)
    assert (result.homo_eV, result.lumo_eV) == pytest.approx((-9.4086, 1.1375), abs=5e-3)
    assert result.dipole_D == pytest.approx(np.zeros(3), abs=1e-4)
    assert result.pdos.weights.shape == (34, 5, 3)
    assert result.pdos.weights.sum(axis=(1, 2)) == pytest.approx(np.ones(34), abs=1e-6)
    assert result.provenance.engine_version == "2023.1"


def test_a_site_is_what_another_code_finds_in_the_same_basis(runs: Path) -> None:
    """PySCF 2.14, all electrons on Gaussians, UKS PBE with half and a whole hole in the alpha 1s, the same basis."""
    result = site(runs / "methane")
    assert result.convergence is Convergence.CONVERGED
    # The grid of this preset is coarse: 33 meV in the ionisation energy, 3 meV at the standard 200 Ry.
    assert result.ionization_eV == pytest.approx(289.8598, abs=0.04)
    assert result.excitation_energy_eV == pytest.approx(286.818, abs=0.04)
    levels = result.sticks.energies_eV - result.ionization_eV
    assert levels[:8] == pytest.approx([-3.0417, *[-1.5056] * 3, *[-0.8281] * 3, -0.0813], abs=0.03)
    assert levels[:7] == pytest.approx([-3.0417, *[-1.5056] * 3, *[-0.8281] * 3], abs=0.01)
    squares_a0 = dsf_A2(result.sticks) / BOHR_A**2
    assert squares_a0[1:4].sum(axis=1) == pytest.approx([0.0015732] * 3, rel=0.01)
    assert squares_a0[4:7].sum(axis=1) == pytest.approx([0.00013798] * 3, rel=0.04)
    assert squares_a0[0].sum() == pytest.approx(0, abs=1e-9)
    assert result.hole_overlap == pytest.approx(0.9980, abs=1e-3)
    assert result.window_eV == 40.0
    assert "not relativistic" in result.scale


def test_an_oxygen_edge(runs: Path) -> None:
    """PySCF as above; two-component theory (X2C) would add 0.38 eV to all energies."""
    result = site(runs / "carbon-monoxide")
    assert result.ionization_eV == pytest.approx(541.2666, abs=0.01)
    found_eV = result.sticks.energies_eV[:8]
    assert found_eV == pytest.approx(
        [533.421, 533.421, 538.936, 540.593, 540.593, 540.729, 541.485, 541.812], abs=0.03
    )
    squares_a0 = (dsf_A2(result.sticks) / BOHR_A**2).sum(axis=1)
    assert squares_a0[:2] == pytest.approx([0.0012347] * 2, rel=2e-3)
    assert squares_a0[2:5] == pytest.approx([7.016e-6, 6.736e-5, 6.736e-5], rel=0.02)
    pi, rest = result.sticks.strengths[:2], result.sticks.strengths[2:]
    assert pi[:, 2] == pytest.approx(0, abs=1e-9)  # pi* across the axis, sigma along it
    assert pi[:, 0].sum() == pytest.approx(pi[:, 1].sum(), rel=1e-4)
    assert rest[0, 2] > 10 * rest[0, :2].max()


def test_the_scale_of_the_neutral(runs: Path) -> None:
    """The hole is on one of two equal atoms, and the first state at E_ex - E_gs."""
    result = site(runs / "acetylene-neutral")
    energies = result.energies_eV
    assert result.excitation_energy_eV == pytest.approx(energies["neutral"] - energies["ground"], abs=1e-6)
    assert result.ionization_eV == pytest.approx(energies["ion"] - energies["ground"], abs=1e-6)
    assert result.excitation_energy_eV == pytest.approx(284.58, abs=0.1)
    assert result.ionization_eV == pytest.approx(290.48, abs=0.1)
    assert result.hole_overlap > 0.99
    assert result.scale.startswith("Delta-SCF core-excited neutral")


@pytest.mark.parametrize(
    ("name", "cause", "message"),
    [
        ("unconverged", Cause.SCF_UNCONVERGED, "base: the ground state did not converge"),
        ("hole-unconverged", Cause.SCF_UNCONVERGED, "ion: the hole did not converge"),
        ("killed", Cause.ENGINE_CRASH, "ended in ion, iteration 6, without a word"),
        ("walltime", Cause.WALLTIME, "ion: CP2K stopped at its time limit"),
        ("refused", Cause.BAD_INPUT, "base: CP2K refuses the input: found an unknown keyword CUT_OFF"),
        ("crashed", Cause.ENGINE_CRASH, "ion: CP2K gave up: CLS: the required method needs added_mos"),
    ],
)
def test_runs_without_a_result(runs: Path, name: str, cause: Cause, message: str) -> None:
    found = failure(runs / name)
    assert found.cause is cause
    assert message in str(found)
    assert found.evidence["log_tail"]


def test_a_run_that_never_began(copied: Callable[[str], Path]) -> None:
    folder = copied("killed")
    for path in folder.glob("*.out"):
        path.unlink()
    found = failure(folder)
    assert (found.cause, "before its first step" in str(found)) == (Cause.ENGINE_CRASH, True)


def test_silence_on_convergence_is_not_convergence(copied: Callable[[str], Path]) -> None:
    folder = copied("methane")
    edit(folder / "half.out", "*** SCF run converged", "*** SCF run ended")
    result = site(folder)
    assert result.convergence is Convergence.UNKNOWN
    rejection = inspect(result, GateLimits(), element="C", edge="K")
    assert rejection is not None
    assert rejection.cause is Cause.SCF_UNCONVERGED


def test_an_output_cut_short(copied: Callable[[str], Path]) -> None:
    folder = copied("methane")
    text = (folder / "half.out").read_text()
    (folder / "half.out").write_text(text[: text.index("SCF run converged")])
    found = failure(folder)
    assert found.cause is Cause.ENGINE_CRASH
    assert "CP2K ended in half" in str(found)
    (folder / "half.out").unlink()
    assert failure(folder).cause is Cause.ENGINE_CRASH


def test_a_status_of_its_own(copied: Callable[[str], Path]) -> None:
    folder = copied("methane")
    edit(folder / "outcome.json", '"ended_in": null, "returncode": 0', '"ended_in": "half", "returncode": 3')
    assert "ended in half with status 3" in str(failure(folder))


def test_files_of_another_run(copied: Callable[[str], Path]) -> None:
    folder = copied("methane")
    edit(folder / "ion.out", "ion-97d8e8f30973", "ion-000000000000")
    assert failure(folder).cause is Cause.BAD_OUTPUT


def test_tables_that_are_missing_or_cut_short(copied: Callable[[str], Path]) -> None:
    folder = copied("methane")
    (spectrum,) = folder.glob("half-*.spectrum")
    whole = spectrum.read_text()
    spectrum.write_text(whole[:-200])
    assert failure(folder).cause is Cause.BAD_OUTPUT
    spectrum.write_text(whole.replace("for atom      5", "for atom      4"))
    assert "is of atom 3" in str(failure(folder))
    lines = whole.replace("# of lines     67", "# of lines     66").splitlines(keepends=True)
    spectrum.write_text("".join([lines[0], *lines[2:]]))
    assert "begins with level 6, not with the lowest empty" in str(failure(folder))
    spectrum.unlink()
    assert "there is no half-" in str(failure(folder))
    spectrum.write_text(whole)
    site(folder)
    for path in folder.glob("ion-*.pdos"):
        path.unlink()
    assert "ion: there is no PDOS of the absorber" in str(failure(folder))


def test_densities_of_states_of_all_atoms(copied: Callable[[str], Path]) -> None:
    folder = copied("methane-ground")
    (path,) = folder.glob("*-list3-1.pdos")
    whole = path.read_text()
    path.write_text(whole.replace("list 3", "list 2"))
    assert "is of list 2" in str(failure(folder))
    first = whole.splitlines()[2].split()[1]
    path.write_text(whole.replace(first, "-9.000000"))
    assert "other levels" in str(failure(folder))
    path.unlink()
    assert failure(folder).cause is Cause.BAD_OUTPUT


def test_a_hole_that_is_elsewhere(copied: Callable[[str], Path]) -> None:
    """As if it were shared by two equal atoms: the weight on its site is a half."""
    folder = copied("methane")
    (path,) = folder.glob("ion-*.pdos")
    lines = path.read_text().splitlines(keepends=True)
    words = lines[2].split()
    lines[2] = lines[2].replace(words[3], "0.50000000")
    path.write_text("".join(lines))
    result = site(folder)
    assert result.hole_overlap == 0.5
    rejection = inspect(result, GateLimits(), element="C", edge="K")
    assert rejection is not None
    assert rejection.cause is Cause.HOLE_LEFT_SITE


def test_a_hole_in_another_shell(copied: Callable[[str], Path]) -> None:
    folder = copied("methane")
    (path,) = folder.glob("half-*.pdos")
    table = path.read_text()
    level = table.splitlines()[2].split()[1]
    path.write_text(table.replace(level, " -0.834367"))
    log = (folder / "half.out").read_text()
    line = next(x for x in log.splitlines() if "Ionization potential" in x)
    edit(folder / "half.out", line.split()[-1], "-0.83436700000000")
    found = failure(folder)
    assert found.cause is Cause.HOLE_LEFT_SITE
    assert "no 1s of C" in str(found)
    path.write_text(table)
    assert "not among the levels" in str(failure(folder))


def test_ground_states_must_be_one(copied: Callable[[str], Path]) -> None:
    folder = copied("methane")
    job = read_job(folder)
    base_eV = site(folder).energies_eV["ground"]
    ENGINE.read(replace(job, ground_energy_eV=base_eV + 0.05), folder)  # a poorer basis
    for stored_eV in (base_eV - 0.5, base_eV + 3.0):
        with pytest.raises(EngineFailure, match="not the same state") as caught:
            ENGINE.read(replace(job, ground_energy_eV=stored_eV), folder)
        assert caught.value.cause is Cause.GATE_REJECTED
    text = (folder / "ion.out").read_text()
    energy = next(line for line in text.splitlines() if "Total energy:" in line).split()[-1]
    edit(folder / "ion.out", energy, f"{float(energy) + 0.01:.14f}")
    assert "not the same in all steps" in str(failure(folder))


def test_electrons_that_the_grids_lose(copied: Callable[[str], Path]) -> None:
    folder = copied("methane")
    text = (folder / "half.out").read_text()
    held = [line for line in text.splitlines() if "Rho1_hard - Rho1_soft" in line][-1].split()[-1]
    edit(folder / "half.out", held, "-9.4200000000")
    found = failure(folder)
    assert found.cause is Cause.GATE_REJECTED
    assert "hold 9.4200 electrons, not 9.5" in str(found)
