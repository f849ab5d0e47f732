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
from htxas.engines.base import Job
from htxas.engines.castep.binary import read_core_elements
from htxas.engines.castep.corrections import LADDER
from htxas.engines.castep.engine import ENGINE
from htxas.engines.castep.log import read_log
from htxas.engines.castep.process import find_castep, state_key
from htxas.engines.castep.pseudopotentials import SETS
from htxas.engines.castep.write import extra_bands
from htxas.engines.cells import Box, Supercell
from htxas.errors import Cause, EngineFailure, UnsupportedInput, UserError
from tests.engines.castep.conftest import make_job

Run = Callable[..., tuple[int, Path]]


def failure(job: Job, folder: Path) -> EngineFailure:
    with pytest.raises(EngineFailure) as caught:
        ENGINE.read(job, folder)
    return caught.value


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
    assert int(param["SPECTRAL_NEXTRA_BANDS"]) == 1049
    assert (param["SPECTRAL_MAX_ITER"], param["SPECTRAL_MAX_STEPS_PER_ITER"]) == ("120", "5")
    ground = (tmp_path / "ground.param").read_text()
    assert "TASK : SINGLEPOINT\n" in ground
    assert state_key(one) in ground
    with_pdos = tmp_path / "ground"
    with_pdos.mkdir()
    ENGINE.write(make_job(formaldehyde, "C", kind=Kind.GROUND), with_pdos)
    title = (with_pdos / "ground.param").read_text().splitlines()[0].removeprefix("COMMENT : ")
    assert state_key(one) in title  # so that the site takes it for its own
    assert len(title) <= 80  # CASTEP's limit
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


def test_the_inputs_have_the_numbers_of_the_identity(formaldehyde: Structure, tmp_path: Path) -> None:
    numbers = {
        "CUT_OFF_ENERGY": ("cutoff_eV", 512.34567),
        "SMEARING_WIDTH": ("smearing_eV", 0.12345678),
        "ELEC_ENERGY_TOL": ("energy_tolerance_eV", 1.25e-6),
        "ELEC_EIGENVALUE_TOL": ("eigenvalue_tolerance_eV", 1.75e-6),
        "SPECTRAL_EIGENVALUE_TOL": ("eigenvalue_tolerance_eV", 1.75e-6),
    }
    ENGINE.write(make_job(formaldehyde, "C", **dict(numbers.values())), tmp_path)
    param = dict(line.split(" : ") for line in (tmp_path / "site.param").read_text().splitlines())
    for keyword, (_, value) in numbers.items():
        assert float(param[keyword].removesuffix(" eV")) == value


def test_the_inputs_of_a_crystal(mgo: Structure, tmp_path: Path) -> None:
    ENGINE.check(mgo, ENGINE.resolve("crystal", {"pseudopotentials": {"Mg": MG}}, element="O", edge="K"))
    with pytest.raises(UnsupportedInput, match="no on-the-fly string of Mg"):
        ENGINE.check(mgo, ENGINE.resolve("crystal", {}, element="O", edge="K"))
    one = make_job(
        mgo,
        "O",
        "crystal",
        supercell={"repeats": [2, 2, 2]},
        kpoints={"divisions": [2, 2, 1]},
        pseudopotentials={"Mg": MG},
        hole_kpoints={"divisions": [3, 3, 3], "shifted": True},
    )
    ENGINE.write(one, tmp_path)
    cell = (tmp_path / "site.cell").read_text()
    assert cell.count("O:ex") == 2  # one atom, one string
    assert cell.count("\nMg ") == 9
    # CASTEP's own mesh of an even number lies half a step off the centre, of an odd one on it.
    assert "\nKPOINTS_MP_GRID : 2 2 1\nKPOINTS_MP_OFFSET : 0.2500000000 0.2500000000 0.0000000000\n" in cell
    assert "SPECTRAL_KPOINTS_MP_GRID : 3 3 3\nSPECTRAL_KPOINTS_MP_OFFSET : 0.1666666667" in cell
    assert "CHARGE : 0\n" in (tmp_path / "site.param").read_text()


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
    scf = {"METALS_METHOD", "MIXING_SCHEME", "MIX_CHARGE_AMP", "MAX_SCF_CYCLES"}
    assert changed == scf | {"SPECTRAL_MAX_ITER", "SPECTRAL_MAX_STEPS_PER_ITER"}
    with pytest.raises(EngineFailure, match="never changes the physics"):
        ENGINE.write(replace(plain, numerics={"smearing_eV": 0.5}), tmp_path)


@pytest.mark.parametrize(
    ("element", "preset", "overrides", "message"),
    [
        ("C", "publishd", {}, "did you mean 'published'"),
        ("C", "published", {"cutof_eV": 400}, "did you mean 'cutoff_eV'"),
        ("C", "published", {"cutoff_eV": "high"}, "cutoff_eV: Input should be a valid number"),
        ("C", "published", {"kpoints": {"divisions": [2, 2, 2]}}, "kpoints go with supercell"),
        ("C", "published", {"hole_kpoints": {"divisions": [2, 2, 2]}}, "hole_kpoints: a box"),
        ("C", "crystal", {"electron": "removed"}, "the average potential of a charged cell"),
        (
            "C",
            "published",
            {"pseudopotential_set": "c19"},
            "no set of pseudopotentials 'c19'; there is otfg-1",
        ),
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
    higher = ENGINE.resolve("published", {"pdos_window_eV": 30}, element="C", edge="K")
    assert higher.site == plain.site  # the ground state's PDOS is no part of a spectrum
    assert higher.ground != plain.ground


def test_a_new_element_disowns_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    def site() -> Any:
        return ENGINE.resolve("published", {"pseudopotentials": {"S": "C9"}}, element="C", edge="K")

    before = site()
    assert before.site["ground"]["pseudopotentials"] == {"S": "C9"}  # the user's own; of the set its name
    assert before.site["absorber"] == "2|1.4|10|12|13|20:21(qc=7){1s1}"
    monkeypatch.setattr(
        "htxas.engines.castep.parameters.SETS", {"otfg-1": {**SETS["otfg-1"], "Mg": MG}, "otfg-2": {}}
    )
    assert site() == before


def test_a_changed_set_is_not_computed_under_an_old_identity(
    formaldehyde: Structure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_job(formaldehyde, "C")
    changed = {**SETS["otfg-1"], "C": "2|1.3|10|12|13|20:21(qc=7)"}
    monkeypatch.setattr("htxas.engines.castep.parameters.SETS", {"otfg-1": changed})
    with pytest.raises(EngineFailure, match="is not the pseudopotential of C with a hole") as caught:
        ENGINE.write(one, tmp_path)
    assert caught.value.cause is Cause.BAD_INPUT


def test_the_sets_never_change() -> None:
    """Results rely on it: add elements, or a set, but change no entry."""
    frozen = {
        "H": "1|0.6|13|15|17|10(qc=8)",
        "C": "2|1.4|10|12|13|20:21(qc=7)",
        "N": "2|1.1|14|16|18|20:21(qc=7)",
        "O": "2|1.1|15|18|20|20:21(qc=7)",
        "F": "C9",
        "Na": "2|1.3|14|16|18|20U:30:21(qc=7)",
        "Si": "3|1.8|5|6|7|30:31:32",
        "Ge": "3|1.5|13|15|17|30U:31U:32:40:41(qc=6)",
    }
    assert frozen.items() <= SETS["otfg-1"].items()


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


def test_a_run_with_other_settings(formaldehyde: Structure, run: Run) -> None:
    one = make_job(formaldehyde, "C")
    _, folder = run(one, "run")
    log = folder / "site.castep"
    text = log.read_text()
    for old, new, message in (
        (":   500.0000   eV", ":   450.0000   eV", "cutoff was 450"),
        (
            "net charge of system                           :  0.000",
            "net charge of system : +1.000",
            "charge 1",
        ),
    ):
        assert old in text
        log.write_text(text.replace(old, new))
        found = failure(one, folder)
        assert (found.cause, message in str(found)) == (Cause.BAD_OUTPUT, True)


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
        "kpoints": {"divisions": [2, 1, 1]},
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
        ("unconverged", Cause.SCF_UNCONVERGED, "not reached the groundstate.*, after 11 cycles"),
        ("levels", Cause.SCF_UNCONVERGED, "band structure not converged"),
        ("no-elements", Cause.BAD_OUTPUT, "without saying that matrix elements were computed"),
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


BANNER = "  +      Calculation of Spectral Properties      +\n"


@pytest.mark.parametrize(
    "words",
    [
        "Warning: band structure not converged",
        "Band structure calculation failed to converge",
        "Warning - bands at k-point 1 did not converge",
        "there are 12 unconverged bands",
        "12 bands haven't converged",
        "Warning - the eigenvalues of k-point 1 could\n          not be converged to 1E-6 eV",
        "No convergence at k-point 1",
        "maximum number of iterations reached in k-point 1",
        "Max. iterations exceeded",
    ],
)
def test_whatever_denies_convergence_is_believed(words: str) -> None:
    log = read_log(
        f" | Welcome to CASTEP |\n{BANNER} {words}\n Converged in 17 iterations to a total energy of -1.0 eV\n"
    )
    assert log.convergence is Convergence.UNCONVERGED
    assert log.complaint


@pytest.mark.parametrize(
    "words",
    [
        " max. number of SCF cycles                      :         60\n",
        " Converged in 17 iterations to a total energy of -1.0 eV\n",
        "(energies not corrected for finite basis set)\n \n Converged in 17 iterations to a total energy of -1.0 eV\n",
        # as CASTEP 20 warns of too few bands in cycles that went well
        " Warning: no bands are empty, which may\n slow the convergence and spoil the groundstate\n",
    ],
)
def test_what_denies_nothing(words: str) -> None:
    assert read_log(f" | Welcome to CASTEP |\n{BANNER}{words}").complaint is None


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


def test_another_attempt_starts_anew(formaldehyde: Structure, run: Run) -> None:
    one = make_job(formaldehyde, "C")
    _, first = run(one, "first", mode="cut", seed="site")
    (first / "site.check").write_bytes(b"whatever it is")
    _, second = run(replace(one, previous_directory=first), "second")
    assert (second / "site.param").read_text() == (first / "site.param").read_text()
    assert not list(second.glob("*.check"))
    assert isinstance(ENGINE.read(one, second), SiteResult)


def test_levels_that_do_not_reach_the_window(formaldehyde: Structure, run: Run) -> None:
    one = make_job(formaldehyde, "C")
    _, folder = run(one, "few", mode="few", seed="site")
    found = failure(one, folder)
    assert found.cause is Cause.GATE_REJECTED
    assert "window_eV is 22" in str(found)
    enough = int(re.search(r"say extra_bands: (\d+)", str(found))[1])  # type: ignore[index]
    asked = found.evidence["extra_bands"]
    assert enough == pytest.approx(asked * (22 / found.evidence["window_eV"]) ** 1.5, abs=1)
    # who says how many bands is told how far they reach
    own = make_job(formaldehyde, "C", extra_bands=300)
    _, there = run(own, "own", mode="few", seed="site")
    assert ENGINE.read(own, there).window_eV == pytest.approx(12, abs=0.2)  # type: ignore[union-attr]


def test_without_castep(formaldehyde: Structure, tmp_path: Path) -> None:
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


def test_bands_cover_the_window(formaldehyde: Structure, mgo: Structure) -> None:
    """Free electrons in a box of 15 A have some 800 states in 22 eV; a published input of another group has 800.

    In crystals: how many states Quantum ESPRESSO has within 22 eV of the conduction band's minimum for each primitive
    cell, without a hole (PBE, 35 Ry, mean over 4 x 4 x 4 points, of quartz 2 x 2 x 2).
    """
    assert extra_bands(Box(side_A=15).build(formaldehyde), 22) == 1049
    diamond = Structure.from_atoms(
        ["C", "C"], [[0, 0, 0], [0.8917, 0.8917, 0.8917]], (np.ones((3, 3)) - np.eye(3)) * 1.7834
    )[0]
    quartz = Structure.from_atoms(
        ["Si"] * 3 + ["O"] * 6,
        np.arange(27).reshape(9, 3) * 1.1,
        [[4.9137, 0, 0], [-4.9137 / 2, 4.9137 * 3**0.5 / 2, 0], [0, 0, 5.4047]],
    )[0]  # only its volume and elements matter
    for structure, needed in ((diamond, 6.58), (mgo, 5.78), (quartz, 39.9)):
        cell = Supercell(repeats=(3, 3, 3)).build(structure)
        assert needed * 27 < extra_bands(cell, 22) < 1.8 * needed * 27
