from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Convergence, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import GroundResult, SiteResult
from htxas.domain.structure import Structure
from htxas.engines.base import Engine, Job
from htxas.engines.castep.binary import read_core_elements
from htxas.engines.castep.corrections import LADDER, NUMERICS
from htxas.engines.castep.engine import ENGINE
from htxas.engines.castep.process import find_castep, ground_key
from htxas.engines.castep.write import extra_bands
from htxas.engines.numerics import check_numerics
from htxas.errors import Cause, EngineFailure, UnsupportedInput, UserError
from tests.engines.castep.conftest import make_job

Run = Callable[..., tuple[int, Path]]


def failure(job: Job, folder: Path) -> EngineFailure:
    with pytest.raises(EngineFailure) as caught:
        ENGINE.read(job, folder)
    return caught.value


def test_it_is_an_engine() -> None:
    assert isinstance(ENGINE, Engine)
    for rungs in LADDER.values():
        for correction in rungs:
            check_numerics("castep", NUMERICS, correction.numerics)


def test_the_inputs_of_a_molecule(formaldehyde: Structure, tmp_path: Path) -> None:
    one = make_job(formaldehyde, "C")
    ENGINE.write(one, tmp_path)
    cell = (tmp_path / "site.cell").read_text()
    assert "C:ex 2|1.4|10|12|13|20:21(qc=7){1s1}\n" in cell
    assert "\nC 2|" not in cell  # its only carbon is the absorber
    assert "O 2|1.1|15|18|20|20:21(qc=7)\n" in cell
    assert "KPOINTS_MP_GRID : 1 1 1\n" in cell
    assert "SYMMETRY" not in cell
    param = dict(line.split(" : ") for line in (tmp_path / "site.param").read_text().splitlines())
    assert (param["TASK"], param["SPECTRAL_TASK"], param["CHARGE"]) == ("SPECTRAL", "coreloss", "0")
    assert (param["XC_FUNCTIONAL"], param["CUT_OFF_ENERGY"]) == ("PBE", "500 eV")
    assert param["COMMENT"] == f"htxas {one.calculation.key}"
    assert int(param["SPECTRAL_NEXTRA_BANDS"]) == 999
    ground = (tmp_path / "ground.param").read_text()
    assert "TASK : SINGLEPOINT\n" in ground
    assert ground_key(one) in ground
    assert "C 2|1.4|10|12|13|20:21(qc=7)\n" in (tmp_path / "ground.cell").read_text()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of ASE, without CASTEP's list of keywords
def test_ase_reads_the_cell(formaldehyde: Structure, tmp_path: Path) -> None:
    from ase.io.castep import read_castep_cell

    ENGINE.write(make_job(formaldehyde, "C"), tmp_path)
    with (tmp_path / "site.cell").open() as file:
        atoms = read_castep_cell(file)
    assert atoms.get_chemical_symbols() == ["H", "H", "O", "C"]
    assert list(atoms.get_array("castep_custom_species")) == ["H", "H", "O", "C:ex"]
    assert np.allclose(atoms.cell.lengths(), 15.0)
    apart = atoms.positions - formaldehyde.positions_A[[0, 1, 3, 2]]
    assert np.allclose(apart, apart[0], atol=1e-9)


def test_the_inputs_of_a_crystal(mgo: Structure, tmp_path: Path) -> None:
    one = make_job(mgo, "O", "crystal", supercell={"repeats": [2, 2, 2]}, mesh={"divisions": [2, 2, 1]})
    ENGINE.check(mgo, ENGINE.resolve("crystal", {"pseudopotentials": {"Mg": MG}}, element="O", edge="K"))
    with pytest.raises(UnsupportedInput, match="no on-the-fly string of Mg"):
        ENGINE.check(mgo, ENGINE.resolve("crystal", {}, element="O", edge="K"))
    one = make_job(
        mgo,
        "O",
        "crystal",
        supercell={"repeats": [2, 2, 2]},
        mesh={"divisions": [2, 2, 1]},
        pseudopotentials={"Mg": MG},
        electron="removed",
        hole_mesh={"divisions": [3, 3, 3], "shifted": True},
    )
    ENGINE.write(one, tmp_path)
    cell = (tmp_path / "site.cell").read_text()
    assert cell.count("O:ex") == 2  # one atom, one string
    assert cell.count("\nMg ") == 9
    # CASTEP's own mesh of an even number lies half a step off the centre, of an odd one on it.
    assert "\nKPOINTS_MP_GRID : 2 2 1\nKPOINTS_MP_OFFSET : 0.2500000000 0.2500000000 0.0000000000\n" in cell
    assert "SPECTRAL_KPOINTS_MP_GRID : 3 3 3\nSPECTRAL_KPOINTS_MP_OFFSET : 0.1666666667" in cell
    assert "CHARGE : 1\n" in (tmp_path / "site.param").read_text()


MG = "2|1.6|7|8|9|20U:30:21"  # made up


def test_corrections_change_only_the_way(formaldehyde: Structure, tmp_path: Path) -> None:
    plain = make_job(formaldehyde, "C")
    texts = []
    for rung, numerics in enumerate([{}, *(dict(r.numerics) for r in LADDER[Cause.SCF_UNCONVERGED])]):
        folder = tmp_path / str(rung)
        folder.mkdir()
        ENGINE.write(replace(plain, numerics=numerics), folder)
        texts.append((folder / "site.param").read_text().splitlines())
        assert (folder / "site.cell").read_text() == (tmp_path / "0/site.cell").read_text()
    changed = {line.split(" :")[0] for t in texts[1:] for line in t if line not in texts[0]}
    assert changed == {"METALS_METHOD", "MIXING_SCHEME", "MIX_CHARGE_AMP", "MAX_SCF_CYCLES"}
    with pytest.raises(EngineFailure, match="never changes the physics"):
        ENGINE.write(replace(plain, numerics={"smearing_eV": 0.5}), tmp_path)


@pytest.mark.parametrize(
    ("element", "preset", "overrides", "message"),
    [
        ("C", "publishd", {}, "did you mean 'published'"),
        ("C", "published", {"cutof_eV": 400}, "did you mean 'cutoff_eV'"),
        ("C", "published", {"cutoff_eV": "high"}, "cutoff_eV: Input should be a valid number"),
        ("C", "published", {"mesh": {"divisions": [2, 2, 2]}}, "mesh goes with supercell"),
        ("C", "published", {"electron": "removed"}, "periodic box has no energy"),
        ("C", "published", {"pseudopotentials": {"C": "C19"}}, "no on-the-fly string of C to put"),
        (
            "C",
            "published",
            {"pseudopotentials": {"C": "2|1.4|10|12|13|20:21(qc=7){1s1}"}},
            "written by htxas",
        ),
        ("C", "published", {"pseudopotentials": {"C": "C.usp"}}, "is no on-the-fly string"),
        ("C", "published", {"pseudopotentials": {"Xx": "2|1.4|10|12|13|20:21"}}, "no element 'Xx'"),
        ("F", "published", {}, "knows no on-the-fly string of F to put a hole in"),
        ("Ti", "crystal", {}, "knows no on-the-fly string of Ti"),
        ("H", "published", {}, "1s is a valence state"),
        ("C", "published", {"window_eV": float("nan")}, "no number"),
    ],
)
def test_parameters_are_refused_by_name(
    element: str, preset: str, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        ENGINE.resolve(preset, overrides, element=element, edge="K")
    assert message in str(caught.value)


def test_other_edges_are_refused() -> None:
    with pytest.raises(UserError, match="holes in 1s only"):
        ENGINE.resolve("published", {}, element="O", edge="L1")


def test_structures_are_refused(formaldehyde: Structure, mgo: Structure) -> None:
    published = ENGINE.resolve("published", {}, element="C", edge="K")
    ENGINE.check(formaldehyde, published)
    methyl = Structure.from_atoms(
        list("CHHH"), [[0, 0, 0], [1.08, 0, 0], [-0.54, 0.94, 0], [-0.54, -0.94, 0]]
    )[0]
    with pytest.raises(UnsupportedInput, match="odd number of electrons"):
        ENGINE.check(methyl, published)
    sulfide = Structure.from_atoms(["C", "S", "O"], [[0, 0, 0], [1.56, 0, 0], [-1.16, 0, 0]])[0]
    with pytest.raises(UnsupportedInput, match="on-the-fly string of S in COS"):
        ENGINE.check(sulfide, published)
    ENGINE.check(
        sulfide, ENGINE.resolve("published", {"pseudopotentials": {"S": "C9"}}, element="C", edge="K")
    )
    oxide = ENGINE.resolve("published", {"pseudopotentials": {"Mg": MG}}, element="O", edge="K")
    with pytest.raises(UnsupportedInput, match="a box is for molecules"):
        ENGINE.check(mgo, oxide)


def test_identity() -> None:
    plain = ENGINE.resolve("published", {}, element="C", edge="K")
    wide = ENGINE.resolve("published", {"window_eV": 30}, element="C", edge="K")
    oxygen = ENGINE.resolve("published", {}, element="O", edge="K")
    assert plain.ground == wide.ground == oxygen.ground  # one ground state for all sites and edges
    assert plain.site != wide.site


def test_the_estimate_is_the_published_campaigns(formaldehyde: Structure) -> None:
    """Methane took 1474 s, acetylene 1273 s: one unique carbon each."""
    parameters = ENGINE.resolve("published", {}, element="C", edge="K")
    d = 0.629118
    methane = Structure.from_atoms(
        list("CHHHH"), [[0, 0, 0], [d, d, d], [-d, -d, d], [d, -d, -d], [-d, d, -d]]
    )[0]
    ethyne = Structure.from_atoms(list("CCHH"), [[0, 0, 0.6], [0, 0, -0.6], [0, 0, 1.66], [0, 0, -1.66]])[0]
    for structure, measured in ((methane, 1474.21), (ethyne, 1272.56)):
        assert ENGINE.estimate_s(structure, Kind.SITE, parameters.site) == pytest.approx(measured, rel=0.35)
    ground = ENGINE.estimate_s(methane, Kind.GROUND, parameters.ground or {})
    assert 0 < ground < ENGINE.estimate_s(methane, Kind.SITE, parameters.site)


# With a stand-in for CASTEP, whose files have its layout and made-up numbers.


def test_a_ground_state(formaldehyde: Structure, run: Run) -> None:
    one = make_job(formaldehyde, "C", kind=Kind.GROUND)
    status, folder = run(one, "ground")
    assert status == 0
    result = ENGINE.read(one, folder)
    assert isinstance(result, GroundResult)
    assert inspect(result, GateLimits()) is None
    assert (result.homo_eV, result.lumo_eV) == pytest.approx((-8, -2), abs=0.11)
    assert not result.pdos.complete
    assert result.pdos.shares is None
    assert result.pdos.weights.shape[1:] == (4, 3)
    assert result.pdos.weights.min() == 0.0
    assert result.provenance.extra["least_projection"] == pytest.approx(-1e-3)
    assert "vacuum level" in result.reference


def test_a_site(formaldehyde: Structure, run: Run, with_ground: Callable[[Job], Job]) -> None:
    one = with_ground(make_job(formaldehyde, "C"))
    status, folder = run(one, "site")
    assert status == 0
    result = ENGINE.read(one, folder)
    assert isinstance(result, SiteResult)
    # E_ex - E_gs + core, of the stand-in: -60 + 0.9, and 330 - 45 + 60
    assert result.excitation_energy_eV == pytest.approx(0.9 - 60 + 330 - 45 + 60, abs=1e-6)
    assert result.sticks.energies_eV[0] == result.excitation_energy_eV
    assert result.window_eV > 20
    assert result.provenance.extra["first_band"] == 7  # 13 electrons: six full bands, the seventh half full
    assert result.provenance.extra["ground"] == "read from its folder"
    assert list(result.provenance.extra["steps_s"]) == ["site"]
    assert result.energies_eV["ground"] == one.ground_energy_eV
    matrix = read_core_elements(folder / "site.elnes_bin")
    hole = list(zip(matrix.species, matrix.rank, strict=True))
    assert hole == [(2, 1), (3, 1)]  # O, C:ex
    expected = 4 * result.excitation_energy_eV / 27.211386245988
    strength = np.abs(matrix.elements_Bohr[0, hole.index((3, 1)), 6]) ** 2
    assert result.sticks.strengths[0] == pytest.approx(expected * strength, rel=1e-9)
    assert inspect(result, GateLimits(), element="C", edge="K") is None


def test_a_site_whose_ground_state_has_gone(
    formaldehyde: Structure, run: Run, with_ground: Callable[[Job], Job], tmp_path: Path
) -> None:
    known = with_ground(make_job(formaldehyde, "C"))
    gone = replace(known, ground_directory=tmp_path / "nowhere")
    _, folder = run(gone, "site")
    result = ENGINE.read(gone, folder)
    assert result.provenance.extra["ground"] == "computed again"
    assert list(result.provenance.extra["steps_s"]) == ["ground", "site"]
    other = replace(gone, ground_energy_eV=(known.ground_energy_eV or 0) - 1)
    assert failure(other, folder).cause is Cause.GATE_REJECTED
    # a cut log of a ground state is not taken for one
    log = known.ground_directory / "ground.castep"  # type: ignore[operator]
    log.write_text(log.read_text().split("Total time")[0])
    _, again = run(known, "again")
    assert ENGINE.read(known, again).provenance.extra["ground"] == "computed again"
    _, failed = run(gone, "failed", mode="unconverged", seed="ground")
    assert failure(gone, failed).cause is Cause.SCF_UNCONVERGED
    assert not (failed / "site.castep").exists()


def test_an_element_of_a_library(run: Run) -> None:
    fluoroethyne = Structure.from_atoms(
        ["H", "C", "C", "F"], [[0, 0, -1.66], [0, 0, -0.6], [0, 0, 0.6], [0, 0, 1.88]]
    )[0]
    one = make_job(fluoroethyne, "C")
    _, folder = run(one, "run")
    assert "\nF C9\n" in (folder / "site.cell").read_text()
    assert "\nC 2|" in (folder / "site.cell").read_text()  # the other carbon
    result = ENGINE.read(one, folder)
    assert result.provenance.extra["pseudopotentials"]["F"] == "2|1.0|20|23|26|20:21(qc=8)"
    log = folder / "ground.castep"
    text = log.read_text()
    log.write_text(text.replace("F 2|1.0|20", "F 2|1.1|20"))
    assert "of F is another one" in str(failure(one, folder))
    log.write_text(text.replace("ae energy of -2713.000", "ae energy of -2713.100"))
    found = failure(one, folder)
    assert (found.cause, "the same CASTEP?" in str(found)) == (Cause.BAD_OUTPUT, True)


def test_older_versions(formaldehyde: Structure, run: Run) -> None:
    one = make_job(formaldehyde, "C")
    _, folder = run(one, "new")
    _, old = run(one, "old", mode="legacy")
    assert not (old / "site.elnes_bin").exists()
    new = ENGINE.read(one, folder)
    assert np.array_equal(ENGINE.read(one, old).sticks.strengths, new.sticks.strengths)  # type: ignore[union-attr]


def test_a_crystal(mgo: Structure, run: Run) -> None:
    words = {
        "supercell": {"repeats": [2, 2, 2]},
        "mesh": {"divisions": [2, 1, 1]},
        "pseudopotentials": {"Mg": MG},
    }
    ground = make_job(mgo, "O", "crystal", kind=Kind.GROUND, **words)
    _, folder = run(ground, "ground")
    state = ENGINE.read(ground, folder)
    assert isinstance(state, GroundResult)
    assert state.pdos.weights.shape[1:] == (2, 3)
    assert state.pdos.shares is not None
    assert set(state.pdos.shares) == {1 / 16}
    held = state.pdos.weights.sum(axis=(1, 2))[state.pdos.occupations > 0]
    assert held == pytest.approx(0.99)
    one = make_job(mgo, "O", "crystal", **words)
    one = replace(one, ground_directory=folder, ground_energy_eV=state.total_energy_eV)
    _, there = run(one, "site")
    result = ENGINE.read(one, there)
    assert isinstance(result, SiteResult)
    assert result.energies_eV["ground"] == pytest.approx(8 * state.total_energy_eV)
    # the kept electron: 0.1128 eV of entropy, half of it in the estimate at 0 K
    assert result.excitation_energy_eV == pytest.approx(0.9 - 60 + 585 - 45 + 60 - 0.0564, abs=1e-6)
    assert np.diff(result.sticks.energies_eV).min() >= 0


@pytest.mark.parametrize(
    ("mode", "cause", "message"),
    [
        ("unconverged", Cause.SCF_UNCONVERGED, "not reached the groundstate, after 11 cycles"),
        ("refused", Cause.BAD_INPUT, "unrecognised keyword"),
        ("memory", Cause.OUT_OF_MEMORY, "wave_allocate"),
        ("disk", Cause.DISK_FULL, "disk full"),
        ("silent", Cause.ENGINE_CRASH, "ended in self-consistency"),
        ("no-hole", Cause.BAD_OUTPUT, "without a hole in 1s"),
        ("other-string", Cause.BAD_OUTPUT, r"was 2\|1.0"),
    ],
)
def test_failures_have_one_cause(
    formaldehyde: Structure, run: Run, mode: str, cause: Cause, message: str
) -> None:
    one = make_job(formaldehyde, "C")
    _, folder = run(one, "run", mode=mode, seed="site")
    found = failure(one, folder)
    assert found.cause is cause
    assert re.search(message, str(found))


@pytest.mark.parametrize(("mode", "where"), [("killed", "self-consistency"), ("cut", "the spectral part")])
def test_killed(formaldehyde: Structure, run: Run, mode: str, where: str) -> None:
    one = make_job(formaldehyde, "C")
    status, folder = run(one, "run", mode=mode, seed="site")
    assert status == -signal.SIGKILL
    found = failure(one, folder)
    assert (found.cause, where in str(found)) == (Cause.ENGINE_CRASH, True)


@pytest.mark.parametrize(
    ("name", "end", "message"),
    [
        ("site.bands", 2000, "lines"),
        ("site.elnes_bin", 5000, "cut short"),
        ("site.elnes_bin", 0, "cut short"),
        ("ground.castep", None, "there is no|before it said anything"),
    ],
)
def test_files_that_are_not_whole(
    formaldehyde: Structure, run: Run, name: str, end: int | None, message: str
) -> None:
    one = make_job(formaldehyde, "C")
    _, folder = run(one, "run")
    path = folder / name
    if end is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:end])
    found = failure(one, folder)
    assert found.cause in (Cause.BAD_OUTPUT, Cause.ENGINE_CRASH)
    assert re.search(message, str(found))


def test_files_of_another_run(formaldehyde: Structure, run: Run) -> None:
    one = make_job(formaldehyde, "C")
    _, folder = run(one, "run")
    other = make_job(formaldehyde, "C", window_eV=30)
    found = failure(other, folder)
    assert (found.cause, "belongs to calculation" in str(found)) == (Cause.BAD_OUTPUT, True)
    # another site's files of the same molecule under this one's outcome
    _, oxygen = run(make_job(formaldehyde, "O"), "oxygen")
    (folder / "site.castep").write_text((oxygen / "site.castep").read_text())
    assert failure(one, folder).cause is Cause.BAD_OUTPUT
    log = (oxygen / "site.castep").read_text()
    key = make_job(formaldehyde, "O").calculation.key
    (folder / "site.castep").write_text(log.replace(key, one.calculation.key))
    assert "pseudopotential of C:ex was None" in str(failure(one, folder))


def test_going_on_from_a_checkpoint(formaldehyde: Structure, run: Run) -> None:
    one = make_job(formaldehyde, "C")
    _, first = run(one, "first", mode="cut", seed="site")
    again = replace(one, previous_directory=first)
    _, second = run(again, "second")
    assert (second / "before.check").read_bytes() == b"density and wave functions"
    assert "CONTINUATION : before.check\n" in (second / "site.param").read_text()
    _, whole = run(one, "whole")
    result, plain = ENGINE.read(again, second), ENGINE.read(one, whole)
    assert "Final energy" not in (second / "site.castep").read_text()
    assert isinstance(result, SiteResult)
    assert result.convergence is Convergence.CONVERGED
    assert result.energies_eV == plain.energies_eV  # type: ignore[union-attr]
    # cut again, it goes on again; a checkpoint that cannot be read is not tried twice
    _, twice = run(again, "twice", mode="cut", seed="site")
    (twice / "site.check").unlink()
    _, thrice = run(replace(one, previous_directory=twice), "thrice")
    assert ENGINE.read(one, thrice).energies_eV == plain.energies_eV  # type: ignore[union-attr]
    assert (thrice / "before.check").exists()
    _, broken = run(again, "broken", mode="refused", seed="site")
    found = failure(again, broken)
    assert (found.cause, "does not go on" in str(found)) == (Cause.ENGINE_CRASH, True)
    _, anew = run(replace(one, previous_directory=broken), "anew")
    assert not (anew / "before.check").exists()
    # another way, another input: it starts anew
    _, third = run(replace(again, numerics={"mix": 0.2}), "third")
    assert not (third / "before.check").exists()
    _, cut = run(one, "early", mode="killed", seed="site")
    (cut / "site.check").write_bytes(b"half")
    _, fourth = run(replace(one, previous_directory=cut), "fourth")
    assert not (fourth / "before.check").exists()


def test_without_castep(formaldehyde: Structure, tmp_path: Path) -> None:
    assert "HTXAS_CASTEP" in str(ENGINE.missing({"PATH": "/nowhere"}))
    assert "no such program" in str(ENGINE.missing({"HTXAS_CASTEP": str(tmp_path / "castep")}))
    folder = tmp_path / "bin"
    folder.mkdir()
    assert "has no castep.serial" in str(ENGINE.missing({"HTXAS_CASTEP": str(folder)}))
    for name in ("castep.serial", "castep.mpi"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    assert ENGINE.missing({"HTXAS_CASTEP": str(folder)}) is None
    found = find_castep({"PATH": str(folder), "HTXAS_ENGINE_COMMAND": '{"launcher": ["mpirun", "-np", "4"]}'})
    assert found.command()[-1].endswith("castep.mpi")
    assert find_castep({"PATH": str(folder)}).command()[-1].endswith("castep.serial")


def test_bands_cover_the_window(formaldehyde: Structure) -> None:
    """A box of 15 A has some 800 free-electron states in 22 eV; a published input of another group has 800."""
    from htxas.engines.cells import Box

    assert extra_bands(Box(side_A=15).build(formaldehyde), 22) == 999
