from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from htxas.domain.calculation import Convergence
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import GroundResult, SiteResult
from htxas.engines.base import read_job
from htxas.engines.qe.engine import ENGINE
from htxas.engines.qe.lanczos import read_poles
from htxas.engines.qe.recipes import read_ld1
from htxas.engines.qe.scf import OutputError, read_bands
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


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


def test_a_ground_state(runs: Path) -> None:
    result = ground(runs / "ground")
    text = (runs / "ground/pw.out").read_text()
    total_Ry = float(text.partition("!    total energy              =")[2].split()[0])
    assert result.total_energy_eV == pytest.approx(total_Ry * 13.605693, abs=1e-4)
    homo, lumo = (float(x) for x in text.partition("lowest unoccupied level (ev):")[2].split()[:2])
    potential = np.concatenate(
        [np.loadtxt(runs / f"ground/vacuum-{axis}.dat")[:, 1] for axis in "xyz"]
    ).mean()
    assert result.homo_eV == pytest.approx(homo - potential * 13.605693, abs=1e-3)
    assert result.gap_eV == pytest.approx(lumo - homo, abs=1e-3)
    assert result.pdos.complete_to_eV == pytest.approx(result.pdos.energies_eV.max())
    # in a box this small the potential is nowhere flat
    assert (result.reference, result.dipole_D) == ("average potential along the edges of the box", None)
    assert result.provenance.extra["vacuum_spread_eV"] > 0.3
    assert result.pdos.occupations.sum() == pytest.approx(10.0)
    held = result.pdos.weights.sum(axis=(1, 2))
    assert held[:5].min() > 0.95  # five occupied levels lie on the atoms
    assert result.provenance.engine_version == "6.7MaX"


def test_where_the_potential_is_flat_is_the_vacuum(copied: Copy) -> None:
    folder = copied("ground")
    for axis in "xyz":
        lines = (folder / f"vacuum-{axis}.dat").read_text().splitlines()
        flat = [f"{line.split()[0]} {0.03 + 1e-4 * i:.6f}" for i, line in enumerate(lines)]
        (folder / f"vacuum-{axis}.dat").write_text("\n".join(flat) + "\n")
    assert ground(folder).reference == "vacuum"


def test_projections_are_those_projwfc_prints(runs: Path) -> None:
    """The lowest level of CO: its printed squares, summed over each atom."""
    text = (runs / "ground/projwfc.out").read_text()
    printed = text.partition("==== e(   1)")[2].partition("|psi|^2")[0]
    states = {int(n) for n in _between(text, "state #", ":")}
    carbon = {n for n in states if f"state #{n:4d}: atom   1" in text}
    on_carbon = sum(
        float(term.split("*[#")[0])
        for term in _terms(printed)
        if int(term.split("#")[1].split("]")[0]) in carbon
    )
    weights = ground(runs / "ground").pdos.weights[0]
    assert weights[0].sum() == pytest.approx(on_carbon, abs=2e-3)


def _between(text: str, start: str, stop: str) -> list[str]:
    return [part.partition(stop)[0] for part in text.split(start)[1:]]


def _terms(text: str) -> list[str]:
    return [t for t in text.partition("psi =")[2].replace("\n", "").split("+") if "*[#" in t]


def test_a_site(runs: Path) -> None:
    result = site(runs / "site")
    gs, ex = (read_ld1((runs / f"site/{n}.ld1.out").read_text()) for n in ("C", "C-hole"))
    atom = (ex.all_electron_eV - ex.pseudo_eV) - (gs.all_electron_eV - gs.pseudo_eV)
    assert result.energies_eV["atom"] == pytest.approx(atom)
    expected = result.energies_eV["excited"] - result.energies_eV["ground"] + atom
    assert result.excitation_energy_eV == pytest.approx(expected)
    assert result.energies_eV["ground"] == pytest.approx(ground(runs / "ground").total_energy_eV)
    # pi* across the bond (z) is the first and strongest; along it that level is dark
    first = result.sticks.energies_eV < result.excitation_energy_eV + 0.05
    x, y, z = result.sticks.strengths[first].sum(axis=0)
    assert x == pytest.approx(y, rel=1e-3)
    assert x > 100 * z
    assert x / 3 * 2 == pytest.approx(result.sticks.isotropic[first].sum(), rel=1e-3)


def test_the_energy_of_an_occupation_has_no_entropy(runs: Path) -> None:
    text = (runs / "site/pw.out").read_text()
    internal_Ry = float(text.partition("internal energy E=F+TS    =")[2].split()[0])
    assert read_bands(runs / "site").energy_eV == pytest.approx(internal_Ry * 13.605693, abs=1e-4)


def test_occupied_levels_are_no_final_states(runs: Path) -> None:
    bands = read_bands(runs / "site")
    full, first = bands.frontier_eV(5)
    poles = read_poles(runs / "site/lanczos-x.sav", bands.k_weights, (1.0, 0.0, 0.0))
    occupied = poles.energies_eV < full + 0.05
    assert poles.squares_a02[occupied].sum() > 0  # they are in the recursion
    assert np.abs(poles.energies_eV - first).min() < 1e-3  # whose levels are those of pw.x
    result = site(runs / "site")
    window = (poles.energies_eV > first - 0.05) & (poles.energies_eV < first + result.window_eV)
    energies = result.excitation_energy_eV + poles.energies_eV[window] - first
    strengths = 4 * energies / 27.211386 * poles.squares_a02[window]
    assert result.sticks.strengths[:, 0].sum() == pytest.approx(strengths.sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "cause", "message"),
    [
        ("unconverged", Cause.SCF_UNCONVERGED, "did not converge"),
        ("killed-in-pw", Cause.ENGINE_CRASH, "without a word"),
        ("killed-in-xspectra", Cause.ENGINE_CRASH, "without a word"),
        ("refused", Cause.BAD_INPUT, "refuses the input: read_namelists: bad line in namelist &system"),
    ],
)
def test_runs_that_failed(runs: Path, name: str, cause: Cause, message: str) -> None:
    with pytest.raises(EngineFailure, match=message) as caught:
        site(runs / name)
    assert caught.value.cause is cause
    assert caught.value.evidence["log_tail"]


@pytest.mark.parametrize(
    ("name", "old", "new", "cause", "message"),
    [
        ("pw.out", "JOB DONE.", "", Cause.ENGINE_CRASH, "before its end"),
        ("pw.out", "JOB DONE.", "Maximum CPU time exceeded\nJOB DONE.", Cause.WALLTIME, "own clock"),
        ("pw.out", "./C-hole.UPF", "/usr/share/espresso/C-hole.UPF", Cause.BAD_OUTPUT, "not what was made"),
        ("pw.xml", "</output>", "", Cause.BAD_OUTPUT, "cut short"),
        ("pw.xml", "<nelec>1.100", "<nelec>1.000", Cause.BAD_OUTPUT, "10 electrons, the calculation has 11"),
        ("pw.xml", "<gamma_only>false", "<gamma_only>true", Cause.BAD_OUTPUT, "half of the wave functions"),
        ("xspectra-y.out", "END JOB XSpectra", "", Cause.ENGINE_CRASH, "xspectra.x ended before its end"),
        ("lanczos-y.sav", "xanes_dipole", "unfinished  ", Cause.BAD_OUTPUT, "no finished dipole spectrum"),
        ("outcome.json", '"ground": ', '"grund": ', Cause.BAD_OUTPUT, "no energy of the ground state"),
    ],
)
def test_damaged_files_are_no_results(
    copied: Copy, name: str, old: str, new: str, cause: Cause, message: str
) -> None:
    folder = copied("site")
    edit(folder, name, old, new)
    with pytest.raises(EngineFailure, match=message) as caught:
        site(folder)
    assert caught.value.cause is cause


def test_a_recursion_that_did_not_converge_is_refused(copied: Copy) -> None:
    folder = copied("site")
    edit(folder, "xspectra-z.out", "=> CONVERGED at iter", "XANES not converged after")
    assert site(folder).convergence is Convergence.UNCONVERGED


def test_silence_about_convergence_is_unknown(copied: Copy) -> None:
    folder = copied("site")
    edit(folder, "pw.xml", "convergence_achieved", "convergence_hoped_for")
    rejection = inspect(site(folder), GateLimits(), element="C", edge="K")
    assert rejection is not None
    assert rejection.cause is Cause.SCF_UNCONVERGED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "cut short"),
        (lambda text: text.replace("1.0000000000000000", "0.0000000000000000"), "another polarisation"),
    ],
)
def test_a_damaged_recursion(copied: Copy, change: Callable[[str], str], message: str) -> None:
    path = copied("site") / "lanczos-x.sav"
    path.write_text(change(path.read_text()))
    with pytest.raises(OutputError, match=message):
        read_poles(path, np.ones(1), (1.0, 0.0, 0.0))


def test_ground_files_that_lack(copied: Copy) -> None:
    for name, message in (("vacuum-y.dat", "vacuum"), ("pw.save/atomic_proj.xml", "no atomic_proj.xml")):
        folder = copied("ground")
        (folder / name).unlink()
        with pytest.raises(EngineFailure, match=message) as caught:
            ground(folder)
        assert caught.value.cause is Cause.BAD_OUTPUT
        import shutil

        shutil.rmtree(folder)


def test_the_ground_state_of_a_crystal(runs: Path) -> None:
    result = ground(runs / "crystal-ground")
    assert result.pdos.shares is not None
    assert result.pdos.shares.sum() == pytest.approx(len(result.pdos.energies_eV) / 3)  # of three k points
    electrons = (result.pdos.occupations * result.pdos.shares) @ np.ones(len(result.pdos.energies_eV))
    assert electrons == pytest.approx(8.0)
    assert result.pdos.complete_to_eV is not None  # the k point whose last level is lowest
    assert result.lumo_eV < result.pdos.complete_to_eV < result.pdos.energies_eV.max()
    first, second = (result.pdos.weights * result.pdos.shares[:, None, None]).sum(axis=0)
    assert first == pytest.approx(second, rel=1e-3)  # equivalent atoms


def test_the_freed_electron_fills_no_level_of_a_crystal(runs: Path) -> None:
    """It lies at the bottom of the conduction band, whose levels there may be as full as any."""
    bands = read_bands(runs / "crystal")
    assert bands.occupations[0, 4] > 0.8  # another half than one of a molecule
    full, first = bands.frontier_eV(4)
    assert first == bands.energies_eV[:, 4].min()
    assert first > full + 1
    result = site(runs / "crystal")
    assert result.sticks.energies_eV[0] == pytest.approx(result.excitation_energy_eV)


def test_half_a_hole_is_on_the_scale_of_a_full_one(runs: Path) -> None:
    half, full = site(runs / "half"), site(runs / "site")
    assert half.excitation_energy_eV == pytest.approx(full.excitation_energy_eV, abs=1e-3)
    assert "levels above the first those of half a hole, neutral" in half.scale
    first = [
        r.sticks.isotropic[r.sticks.energies_eV < r.excitation_energy_eV + 0.05].sum() for r in (half, full)
    ]
    assert (
        0.8 < first[0] / first[1] < 0.95
    )  # the hole draws the level to it; all-electron, half a hole: 0.153
    assert first[0] == pytest.approx(0.153, abs=0.003)


@pytest.mark.parametrize("part", ["excited", "ground"])
def test_states_of_the_scale_are_judged_too(copied: Copy, part: str) -> None:
    folder = copied("half")
    edit(folder, f"{part}/pw.out", "JOB DONE.", "")
    with pytest.raises(EngineFailure, match="before its end"):
        site(folder)
    edit(folder, f"{part}/pw.out", "convergence has been achieved", "JOB DONE. convergence NOT achieved")
    with pytest.raises(EngineFailure) as caught:
        site(folder)
    assert caught.value.cause is Cause.SCF_UNCONVERGED


def test_a_recursion_that_reached_its_limit_is_refused(copied: Copy) -> None:
    """Whatever is printed: in pools, it is of some of the k points only."""
    folder = copied("site")
    count = (folder / "lanczos-z.sav").read_text().splitlines()[8].split()
    assert len(count) == 1
    edit(folder, "lanczos-z.sav", "4000\n", f"{count[0]}\n")
    assert site(folder).convergence is Convergence.UNCONVERGED


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("Error allocating 23887872 bytes: Cannot allocate memory", Cause.OUT_OF_MEMORY),
        ("forrtl: No space left on device", Cause.DISK_FULL),
    ],
)
def test_what_the_machine_ran_out_of(copied: Copy, words: str, cause: Cause) -> None:
    folder = copied("site")
    edit(folder, "pw.out", "JOB DONE.", words)
    with pytest.raises(EngineFailure) as caught:
        site(folder)
    assert caught.value.cause is cause
