from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Convergence, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import CurveResult
from htxas.domain.structure import Structure
from htxas.domain.units import BOHR_A
from htxas.engines.base import Job, ResolvedParameters
from htxas.engines.wien2k.corrections import LADDER
from htxas.engines.wien2k.engine import ENGINE
from htxas.engines.wien2k.parameters import Wien2kParameters, parameters_from
from htxas.engines.wien2k.process import find_wien2k
from htxas.engines.wien2k.structure import guess_spheres, read_struct
from htxas.engines.wien2k.write import layout_of
from htxas.errors import Cause, EngineFailure, UnsupportedInput, UserError
from tests.engines.wien2k.conftest import SMALL, make_job

Run = Callable[..., tuple[int, Path]]


def failure(job: Job, folder: Path) -> EngineFailure:
    with pytest.raises(EngineFailure) as caught:
        ENGINE.read(job, folder)
    return caught.value


def good(job: Job, folder: Path) -> CurveResult:
    result = ENGINE.read(job, folder)
    assert isinstance(result, CurveResult)
    return result


def parameters_of(job: Job) -> Wien2kParameters:
    return parameters_from(job.calculation.parameters)


def lines_of(folder: Path, name: str) -> list[str]:
    return (folder / name).read_text().splitlines()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ase_reads_what_is_written(mgo: Structure, tmp_path: Path) -> None:
    from ase.io.wien2k import read_struct as ase_struct

    job = make_job(mgo)
    ENGINE.write(job, tmp_path)
    layout = layout_of(mgo, job.calculation.atom or 0, parameters_of(job))
    for case, cell in (("ground", layout.unit), ("hole", layout.hole)):
        atoms = ase_struct(str(tmp_path / case / f"{case}.struct"))
        assert atoms.get_chemical_symbols() == list(cell.symbols)
        assert np.allclose(atoms.cell.lengths(), np.linalg.norm(cell.cell_A, axis=1), atol=1e-5)
        fractions = cell.positions_A @ np.linalg.inv(cell.cell_A)
        delta = atoms.get_scaled_positions() - fractions
        assert np.abs(delta - np.round(delta)).max() < 1e-6


def test_the_absorber_is_split_off_and_first(mgo: Structure, tmp_path: Path) -> None:
    ENGINE.write(make_job(mgo), tmp_path)
    lines = lines_of(tmp_path, "hole/hole.struct")
    names = [line[:10].rstrip() for line in lines if "NPT=" in line]
    assert names[0] == "O 1"
    assert sorted(names[1:]) == ["Mg"] * 4 + ["O 2"] * 3
    assert lines[1] == "P   LATTICE,NONEQUIV.ATOMS:  8"
    assert lines[4] == "ATOM  -1: X=0.75000000 Y=0.25000000 Z=0.50000000"
    name = lines[6]
    assert name.startswith("O 1        NPT=  781  R0=0.00010000 RMT=")
    assert name[53:55] == "Z:"
    ground = [line[:10].rstrip() for line in lines_of(tmp_path, "ground/ground.struct") if "NPT=" in line]
    assert ground == ["O", "Mg"]  # canonical order; nothing to split
    assert (tmp_path / "hole/kgen.answers").read_text() == "0\n2 2 3\n0\n"
    assert (tmp_path / "ground/kgen.answers").read_text() == "0\n4 4 3\n0\n"  # the same points, unfolded


def test_a_cell_that_repeats_itself_is_told_apart(rock_salt: Structure, tmp_path: Path) -> None:
    ENGINE.write(make_job(rock_salt, supercell={"repeats": [1, 1, 2]}), tmp_path)
    names = [line[:10].rstrip() for line in lines_of(tmp_path, "ground/ground.struct") if "NPT=" in line]
    assert sorted(names) == ["Mg", "Mg", "Mg", "Mg", "O 1", "O 2", "O 2", "O 2"]


def test_thirds_are_thirds_and_a_hexagonal_lattice_is_called_so(layers: Structure, tmp_path: Path) -> None:
    ENGINE.write(make_job(layers, "C"), tmp_path)
    text = (tmp_path / "ground/ground.struct").read_text()
    assert text.splitlines()[1].startswith("H   LATTICE")
    assert "X=0.33333333 Y=0.66666667 Z=0.25000000" in text
    assert text.splitlines()[3] == "  4.731874  4.731874 12.587466 90.000000 90.000000120.000000"
    assert len(read_struct(text)) == 4


def test_other_hexagonal_settings_are_refused() -> None:
    a, c = 2.504, 6.661
    cell = np.array([[a, 0, 0], [a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]])
    structure = Structure.from_atoms(["C", "N"], np.array([[0, 0, 0], [1 / 3, 1 / 3, 0.5]]) @ cell, cell)[0]
    parameters = ENGINE.resolve("crystal", SMALL, element="C", edge="K")
    with pytest.raises(UnsupportedInput, match="120 degrees"):
        ENGINE.check(structure, parameters)


def test_spheres_touch_no_neighbours(mgo: Structure, layers: Structure) -> None:
    for structure, pair, distance_A in ((mgo, "MgO", 2.106), (layers, "CN", 2.504 / np.sqrt(3))):
        first, second = ("Mg", "O") if pair == "MgO" else ("C", "N")
        radii = guess_spheres(layout_of(structure, 0, parameters_of(make_job(structure, second))).unit)
        assert 0.8 * distance_A < (radii[first] + radii[second]) * BOHR_A < distance_A


def test_the_spectrum_begins_at_the_difference_of_total_energies(run: Run, mgo: Structure) -> None:
    job = make_job(mgo)
    status, folder = run(job, "good")
    result = good(job, folder)
    assert status == 0
    assert result.edge_eV == pytest.approx(537.25, abs=1e-6)
    assert result.convergence is Convergence.CONVERGED
    c = job.calculation
    assert inspect(result, GateLimits(), element=c.element, edge=c.edge) is None
    isotropic, e = result.curve.isotropic, result.curve.energies_eV
    assert e[isotropic > 0][0] == pytest.approx(
        537.25, abs=0.11
    )  # the first empty level, not the Fermi level
    assert result.window_eV == pytest.approx(30, abs=0.2)
    above = e >= 542.25
    assert np.trapezoid(isotropic[above], e[above]) == pytest.approx(np.ptp(e[above]), rel=1e-9)
    assert np.allclose(result.curve.intensity, isotropic[:, None], rtol=1e-12)
    assert "E_ex - E_gs" in result.scale
    assert result.provenance.engine_version == "19.1"
    assert result.provenance.extra["atoms"] == 8


def test_inputs_are_changed_as_a_hole_needs(run: Run, mgo: Structure) -> None:
    _, folder = run(make_job(mgo), "good")
    assert lines_of(folder, "hole/hole.inc")[:2] == [
        " 1 0.00  0  NUMBER OF ORBITALS (EXCLUDING SPIN), SHIFT, IPRINT",
        "1,-1,1               ( N,KAPPA,OCCUP)",
    ]
    assert "1,-1,1 " not in (folder / "ground/ground.inc").read_text()
    # Self-consistency had one electron more; the spectrum is made without it.
    assert ":NOE  : NUMBER OF ELECTRONS          =  65.000" in (folder / "hole/hole.scf").read_text()
    assert ":NOE  : NUMBER OF ELECTRONS          =  64.000" in (folder / "hole/hole.scf2").read_text()
    assert lines_of(folder, "hole/hole.in2")[1].startswith("  -9.00   64.00   0.50 0.05  1   EMIN, NE")
    last = lines_of(folder, "hole/hole.in1")[-1]
    assert last[:31] == "K-VECTORS FROM UNIT:4   -9.0   "
    assert float(last[31:41]) > 30 / 13.6057
    assert int(last[41:47]) > 61
    assert lines_of(folder, "hole/hole.inxs")[1].split()[0] == "1"
    assert lines_of(folder, "hole/hole.inxs")[5].split()[0] == "-2,0.05,35.17"  # above the gap's lower end
    assert not list(folder.glob("*/*.vector"))


def test_a_background_has_the_scale_of_the_neutral_cell(run: Run, mgo: Structure) -> None:
    job = make_job(mgo, preset="background")
    _, folder = run(job, "ion")
    result = good(job, folder)
    assert result.edge_eV == pytest.approx(
        537.25, abs=1e-6
    )  # not the 0.37 Ry higher energy of the charged cell
    assert "uniform charge" in result.scale
    assert lines_of(folder, "hole/hole.inm")[0].startswith("MSR1  -1.0   YES  (")
    assert lines_of(folder, "excited/excited.inm")[0].startswith("MSR1   0.0   YES  (")
    assert ":NOE  : NUMBER OF ELECTRONS          =  64.000" in (folder / "hole/hole.scf").read_text()
    assert set(result.provenance.extra["energies_eV"]) == {"ground", "excited", "hole", "ground_in_supercell"}


def test_a_metal_begins_at_its_fermi_level(run: Run, mgo: Structure) -> None:
    job = make_job(mgo)
    _, folder = run(job, "metal", mode="metal")
    result = good(job, folder)
    assert result.edge_eV == pytest.approx(537.25, abs=1e-6)
    assert result.provenance.extra["gap_eV"] == 0


def test_newer_versions_and_complex_ones(run: Run, mgo: Structure, layers: Structure) -> None:
    for job, mode in ((make_job(mgo), "new"), (make_job(layers, "C"), "complex")):
        _, folder = run(job, mode, mode=mode)
        assert good(job, folder).convergence is Convergence.CONVERGED


@pytest.mark.parametrize(
    ("mode", "case", "cause", "words"),
    [
        ("unconverged", "ground", Cause.SCF_UNCONVERGED, "the density of ground did not converge"),
        ("unconverged", "hole", Cause.SCF_UNCONVERGED, "the density of hole did not converge"),
        ("silent", "hole", Cause.ENGINE_CRASH, "never said how hole ended"),
        ("refused", "ground", Cause.BAD_INPUT, "overlapping spheres"),
        ("refused", "hole", Cause.BAD_INPUT, "overlapping spheres"),
        ("memory", "hole", Cause.OUT_OF_MEMORY, "Cannot allocate memory"),
        ("ghost", "hole", Cause.ENGINE_CRASH, "ghostbands"),
        ("cut-basis", "hole", Cause.BAD_OUTPUT, "cut to RKMAX 5.31"),
        ("merged", "hole", Cause.BAD_OUTPUT, "7 atoms, not the 8"),
        ("moved", "hole", Cause.BAD_OUTPUT, "not where the absorber is"),
        ("other-mesh", "ground", Cause.BAD_OUTPUT, r"\(5, 4, 3\), not \(4, 4, 3\)"),
        ("stubborn", "hole", Cause.BAD_OUTPUT, "lacks -1.001 electrons"),
        ("spheres", "hole", Cause.BAD_OUTPUT, "give the radii in spheres_a0"),
        ("no-spectrum", "hole", Cause.BAD_OUTPUT, "txspec"),
        ("few-bands", "hole", Cause.BAD_OUTPUT, "ends 21.9 eV above the lowest empty level"),
    ],
)
def test_what_went_wrong_has_one_cause(
    run: Run, mgo: Structure, mode: str, case: str, cause: Cause, words: str
) -> None:
    job = make_job(mgo)
    _, folder = run(job, "bad", mode=mode, case=case)
    error = failure(job, folder)
    assert error.cause is cause
    with pytest.raises(EngineFailure, match=words):
        raise error


def test_its_warnings_are_doubts_and_the_gate_rejects(run: Run, mgo: Structure) -> None:
    job = make_job(mgo)
    _, folder = run(job, "warned", mode="warned", case="ground")
    result = good(job, folder)
    assert result.doubts == (
        "WIEN2k warns in ground: Core leaks out of the sphere",
        "WIEN2k marks the total energy of ground with *WARNING**",
    )
    assert inspect(result, GateLimits(), element="O", edge="K") is not None


def test_a_killed_run_says_where_it_stood(run: Run, mgo: Structure) -> None:
    job = make_job(mgo)
    status, folder = run(job, "killed", mode="killed", case="hole")
    assert status == -signal.SIGKILL
    error = failure(job, folder)
    assert error.cause is Cause.ENGINE_CRASH
    assert "hole/run_lapw" in str(error)
    assert error.evidence["log_tail"]


def test_a_cut_run_keeps_its_ground_state(run: Run, mgo: Structure) -> None:
    job = make_job(mgo)
    whole, folder = good(job, run(job, "whole")[1]), run(job, "killed", mode="killed", case="hole")[1]
    again = replace(job, previous_directory=folder)
    result = good(job, run(again, "again", mode="unconverged", case="ground")[1])  # which would fail
    assert result.provenance.extra["taken_over"] == ["ground"]
    assert "ground/run_lapw" not in result.provenance.extra["steps_s"]
    assert np.array_equal(result.curve.energies_eV, whole.curve.energies_eV)
    other = replace(make_job(mgo, rkmax=6.0), previous_directory=folder)
    assert "taken_over" not in good(other, run(other, "other")[1]).provenance.extra


def test_corrections_reach_the_mixer(run: Run, mgo: Structure) -> None:
    job = replace(make_job(mgo), numerics=dict(LADDER[Cause.SCF_UNCONVERGED][1].numerics))
    _, folder = run(job, "slow")
    assert lines_of(folder, "hole/hole.inm")[0].startswith("PRATT  0.0   YES  (")
    assert lines_of(folder, "hole/hole.inm")[1].startswith("0.050 ")
    assert good(job, folder).edge_eV == pytest.approx(537.25, abs=1e-6)


def test_a_file_of_another_run_is_refused(run: Run, mgo: Structure) -> None:
    job = make_job(mgo)
    _, folder = run(job, "good")
    text = (folder / "hole/hole.txspec").read_text()
    (folder / "hole/hole.txspec").write_text(text.replace("E-03", "E-04"))
    assert failure(job, folder).cause is Cause.BAD_OUTPUT


def test_what_is_refused_before_submission(mgo: Structure) -> None:
    def parameters(**overrides: Any) -> ResolvedParameters:
        return ENGINE.resolve("crystal", {**SMALL, **overrides}, element="O", edge="K")

    molecule = Structure.from_atoms(["C", "O"], [[0, 0, 0], [0, 0, 1.13]])[0]
    with pytest.raises(UnsupportedInput, match="molecule"):
        ENGINE.check(molecule, parameters())
    with pytest.raises(UnsupportedInput, match="one k point"):
        ENGINE.check(mgo, parameters(kpoints={"divisions": [1, 1, 1]}))
    with pytest.raises(UnsupportedInput, match="the spheres of"):
        ENGINE.check(mgo, parameters(spheres_a0={"Mg": 2.2, "O": 2.0}))
    with pytest.raises(UnsupportedInput, match="no O"):
        ENGINE.check(mgo, parameters(spheres_a0={"Mg": 2.0}))
    with pytest.raises(UnsupportedInput, match="atoms in the supercell"):
        ENGINE.check(mgo, parameters(supercell={"repeats": [8, 8, 8]}))
    ENGINE.check(mgo, parameters())


@pytest.mark.parametrize(
    ("overrides", "element", "edge", "words"),
    [
        ({}, "Si", "L3", "1s only"),
        ({}, "Li", "K", "valence state"),
        ({}, "H", "K", "valence state"),
        ({"rkmaks": 7}, "O", "K", "did you mean 'rkmax'"),
        ({"rkmax": "seven"}, "O", "K", "rkmax"),
        ({"kpoints": {"divisions": [2, 2, 2], "shifted": True}}, "O", "K", "not shifted"),
        ({"spheres_a0": {"Xx": 2.0}}, "O", "K", "no element"),
        ({"electron": "lost"}, "O", "K", "electron"),
    ],
)
def test_what_the_user_said_wrong(overrides: dict[str, Any], element: str, edge: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ENGINE.resolve("crystal", overrides, element=element, edge=edge)


def test_finding_wien2k(tmp_path: Path, wienroot: Path) -> None:
    assert ENGINE.missing({"HTXAS_WIEN2K": str(wienroot)}) is None
    assert find_wien2k({"PATH": f"{wienroot}"}).folder == wienroot
    launched = {"HTXAS_ENGINE_COMMAND": f'{{"launcher": ["mpirun"], "program": ["{wienroot}"]}}'}
    assert "no launcher" in str(ENGINE.missing(launched))
    parallel = {"HTXAS_WIEN2K": f"{wienroot} -p"}
    assert "HTXAS_WIEN2K_MACHINES" in str(ENGINE.missing(parallel))
    (tmp_path / "machines").write_text("1:localhost\n")
    assert ENGINE.missing({**parallel, "HTXAS_WIEN2K_MACHINES": str(tmp_path / "machines")}) is None


def test_estimates_grow_with_the_cell(mgo: Structure) -> None:
    def seconds(**overrides: Any) -> float:
        return ENGINE.estimate_s(mgo, Kind.SITE, make_job(mgo, **overrides).calculation.parameters)

    assert 10 < seconds() < seconds(supercell={"repeats": [3, 3, 3]})
    assert seconds() < seconds(electron="background")


def test_sites_stand_alone(mgo: Structure) -> None:
    resolved = ENGINE.resolve("crystal", SMALL, element="O", edge="K")
    assert resolved.ground is None
    keys = {
        Calculation(Kind.SITE, mgo.key, "wien2k", r.site, "O", "K", 1).key
        for r in (
            resolved,
            ENGINE.resolve("crystal", {**SMALL, "rkmax": 7.5}, element="O", edge="K"),
            ENGINE.resolve("background", SMALL, element="O", edge="K"),
        )
    }
    assert len(keys) == 3
