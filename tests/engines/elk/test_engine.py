from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import GroundResult, SiteResult
from htxas.domain.structure import Structure
from htxas.engines.base import Job
from htxas.engines.elk.corrections import LADDER
from htxas.engines.elk.engine import ENGINE
from htxas.engines.elk.parameters import ground_from
from htxas.engines.elk.species import SPECIES, Role, species_file
from htxas.engines.elk.write import Layout, lay_out, wanted_levels
from htxas.errors import Cause, UnsupportedInput, UserError

ONE_CELL = {"supercell": {"repeats": [1, 1, 1]}, "kpoints": {"divisions": [2, 2, 2]}}
COARSE = {**ONE_CELL, "rgkmax": 5.5, "window_eV": 30.0, "pdos_window_eV": 5.0}


def jobs(structure: Structure, element: str, **overrides: Any) -> tuple[Job, Job]:
    p = ENGINE.resolve("light", overrides, element=element, edge="K")
    assert p.ground is not None
    ground = Calculation(Kind.GROUND, structure.key, "elk", p.ground)
    atom = structure.indices_of(element)[0]
    return Job(ground, structure), Job(
        Calculation(Kind.SITE, structure.key, "elk", p.site, element, "K", atom), structure
    )


def blocks(text: str) -> dict[str, list[str]]:
    """Return the blocks of an ``elk.in``, as Elk reads them: a name, rows, an empty line."""
    found = {}
    for part in text.split("\n\n"):
        name, *rows = [line for line in part.splitlines() if not line.startswith("!")] or [""]
        found[name] = [row.strip() for row in rows]
    return found


def states(text: str) -> list[list[str]]:
    """Return the rows of the states of a species file: n, l, kappa, electrons, core."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.endswith(": states"))
    return [line.split() for line in lines[first + 1 : first + 1 + int(lines[first].split()[0])]]


def test_a_ground_state_is_written(magnesia: Structure, tmp_path: Path) -> None:
    ENGINE.write(jobs(magnesia, "O", **COARSE)[0], tmp_path)
    found = blocks((tmp_path / "elk.in").read_text())
    assert found["tasks"] == ["0"]
    assert found["xctype"] == ["20"]
    assert found["ngridk"] == ["2 2 2"]
    assert (found["rgkmax"], found["isgkmax"]) == (["5.500000"], ["-3"])
    assert found["atoms"][0] == "2"
    # Elk counts by elements; canonical order is by atomic number, oxygen before magnesium
    assert [row for row in found["atoms"] if row.startswith("'")] == ["'Mg.in'", "'O.in'"]
    cell_A = np.array([[float(x) for x in row.split()] for row in found["avec"]]) * 0.529177210903
    assert cell_A == pytest.approx(magnesia.cell_A, abs=1e-9)
    oxygen = [float(x) for x in found["atoms"][found["atoms"].index("'O.in'") + 2].split()[:3]]
    assert np.array(oxygen) @ cell_A == pytest.approx(magnesia.positions_A[0], abs=1e-8)


def test_a_site_is_written(magnesia: Structure, tmp_path: Path) -> None:
    overrides = {**COARSE, "supercell": {"repeats": [2, 1, 1]}}
    ENGINE.write(jobs(magnesia, "O", **overrides)[1], tmp_path)
    atoms = blocks((tmp_path / "elk.in").read_text())["atoms"]
    assert [row for row in atoms if row.startswith("'")] == ["'O-hole.in'", "'Mg.in'", "'O.in'"]
    assert atoms[atoms.index("'O-hole.in'") + 1] == "1"
    assert atoms[atoms.index("'O.in'") + 1] == "1"
    with_hole, without = ((tmp_path / f"{n}.in").read_text() for n in ("O-hole", "O"))
    assert states(with_hole)[0] == ["1", "0", "1", "1.000000", "T"]
    assert states(without)[0] == ["1", "0", "1", "2.000000", "T"]
    # neutral: the electron is in the valence
    assert sum(float(s[3]) for s in states(with_hole)) == pytest.approx(8)
    assert "Mg plain" in (tmp_path / "Mg.in").read_text()


def test_without_a_hole_the_absorber_is_one_of_its_kind(magnesia: Structure, tmp_path: Path) -> None:
    ENGINE.write(jobs(magnesia, "O", **COARSE, electrons=0)[1], tmp_path)
    atoms = blocks((tmp_path / "elk.in").read_text())["atoms"]
    assert [row for row in atoms if row.startswith("'")] == ["'O.in'", "'Mg.in'"]
    assert states((tmp_path / "O.in").read_text())[0][3] == "2.000000"


def test_all_species_are_neutral_in_every_role() -> None:
    for element, species in SPECIES["lapw-1"].items():
        charge = species.core_electrons + species.valence_electrons
        roles = list(Role) if species.can_have_hole else [Role.PLAIN]
        for role in roles:
            text = species_file(element, species, role, radius_a0=1.2, level_Ha=-10.0)
            rows = states(text)
            assert sum(float(s[3]) for s in rows) == pytest.approx(charge, abs=1e-5)
            assert f" {-charge:.4f} : charge of the nucleus" in text
            core = sum(float(s[3]) for s in rows if s[4] == "T")
            lacking = {Role.PLAIN: 0, Role.HOLE: 1, Role.PROBE: 2}[role]
            assert core == pytest.approx(species.core_electrons - lacking)
            assert ("-10.300000 0 T" in text) == (role is Role.PROBE)
    with pytest.raises(ValueError, match="Li cannot have the hole"):
        species_file("Li", SPECIES["lapw-1"]["Li"], Role.HOLE, radius_a0=1.2)


def test_a_set_of_species_never_changes() -> None:
    """An identity relies on its name: better species are a new set."""
    from htxas.domain.identity import content_key

    texts = [species_file(e, s, Role.PLAIN, radius_a0=s.radius_a0) for e, s in SPECIES["lapw-1"].items()]
    assert content_key(texts) == "5f43d4c6b0c6285c1484bb90df452c16"


def test_spheres_never_touch_and_do_not_know_of_the_hole(diamond: Structure, magnesia: Structure) -> None:
    p = ENGINE.resolve("light", COARSE, element="C", edge="K").ground
    assert p is not None
    ground = ground_from(p)
    assert {k.element: k.radius_a0 for k in lay_out(magnesia, ground, None).kinds} == {"Mg": 2.1, "O": 1.7}
    close = Structure.from_atoms(["C", "C"], diamond.positions_A * 0.9, diamond.cell_A * 0.9)[0]
    (kind,) = lay_out(close, ground, None).kinds
    bond_a0 = np.linalg.norm(close.positions_A[1]) / 0.529177210903
    assert 0.05 < bond_a0 - 2 * kind.radius_a0 < 0.07
    hole, plain = lay_out(close, ground, 0, role=Role.HOLE).kinds
    assert hole.radius_a0 == plain.radius_a0 == kind.radius_a0


def test_the_ground_state_is_of_the_own_cell_at_the_same_k_points(magnesia: Structure) -> None:
    overrides = {"supercell": {"repeats": [2, 2, 1]}, "kpoints": {"divisions": [1, 2, 3], "shifted": True}}
    p = ENGINE.resolve("light", overrides, element="O", edge="K").ground
    assert p is not None
    own, supercell = (lay_out(magnesia, ground_from(p), absorber) for absorber in (None, 0))
    assert (len(own.cell), own.mesh, own.copies) == (2, (2, 4, 3), 4)
    assert (len(supercell.cell), supercell.mesh, supercell.copies) == (8, (1, 2, 3), 4)

    def points(layout: Layout) -> np.ndarray:
        """Return k points in the own cell's reciprocal vectors, folded into the supercell's zone."""
        grid = (np.array(list(np.ndindex(*layout.mesh))) + 0.5) / layout.mesh
        fractions = grid @ np.linalg.inv(layout.cell.cell_A).T @ supercell.cell.cell_A.T % 1.0
        return np.unique(fractions.round(9) % 1.0, axis=0)

    assert points(own) == pytest.approx(points(supercell))


def test_a_cell_that_repeats_itself_is_refused(magnesia: Structure) -> None:
    assert magnesia.cell_A is not None
    shifts = np.array(list(np.ndindex(2, 2, 2))) @ magnesia.cell_A
    positions = (magnesia.positions_A[:, None] + shifts[None]).reshape(-1, 3)
    eight = Structure.from_atoms(["O"] * 8 + ["Mg"] * 8, positions, magnesia.cell_A * 2)[0]
    p = ENGINE.resolve("light", ONE_CELL, element="O", edge="K")
    ENGINE.check(magnesia, p)
    with pytest.raises(UnsupportedInput, match="384 symmetries, Elk takes 192"):
        ENGINE.check(eight, p)


def test_levels_reach_the_window(diamond: Structure) -> None:
    p = ENGINE.resolve("light", COARSE, element="C", edge="K").ground
    assert p is not None
    layout = lay_out(diamond, ground_from(p), None)
    assert layout.occupied == 4
    assert wanted_levels(layout, 40.0) > wanted_levels(layout, 20.0) > 2


def test_corrections_change_the_way_only(diamond: Structure, tmp_path: Path) -> None:
    _, site = jobs(diamond, "C", **COARSE)
    for name, numerics in (("a", LADDER[Cause.SCF_UNCONVERGED][0]), ("b", LADDER[Cause.SCF_UNCONVERGED][1])):
        (tmp_path / name).mkdir()
        ENGINE.write(Job(site.calculation, diamond, numerics=numerics.numerics), tmp_path / name)
    first, second = (blocks((tmp_path / n / "elk.in").read_text()) for n in "ab")
    assert (first["mixtype"], first["broydpm"], first["maxscl"]) == (["3"], ["0.1500 0.15"], ["200"])
    assert (second["mixtype"], second["amixpm"], second["maxscl"]) == (["1"], ["0.0500 0.5"], ["500"])
    for same in ("rgkmax", "epspot", "epsengy", "swidth", "ngridk", "atoms"):
        assert first[same] == second[same]


@pytest.mark.parametrize(
    ("element", "edge", "overrides", "message"),
    [
        ("C", "L3", {}, "K edges"),
        ("Li", "K", {}, "has no Li with a core hole"),
        ("Fe", "K", {}, "has no Fe with a core hole"),
        ("Ca", "K", {}, "has no Ca with a core hole"),
        ("C", "K", {"rgkmx": 7}, "did you mean 'rgkmax'"),
        ("C", "K", {"rgkmax": 1}, "rgkmax"),
        ("C", "K", {"species": "lapw"}, "did you mean 'lapw-1'"),
        ("C", "K", {"electrons": 2}, "electrons"),
        ("C", "K", {"box": {"side_A": 10}}, "no parameter 'box'"),
    ],
)
def test_parameters_are_refused(element: str, edge: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        ENGINE.resolve("light", overrides, element=element, edge=edge)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("symbols", "cell", "message"),
    [
        (["C", "O"], None, "elk is for crystals"),
        (["C", "Fe"], np.eye(3) * 4.0, "has no Fe"),
        (["C", "N"], np.eye(3) * 4.0, "odd number of electrons"),
    ],
)
def test_structures_are_refused(symbols: list[str], cell: Any, message: str) -> None:
    structure = Structure.from_atoms(symbols, [[0, 0, 0], [0, 0, 1.8]], cell)[0]
    with pytest.raises(UnsupportedInput, match=message):
        ENGINE.check(structure, ENGINE.resolve("light", ONE_CELL, element="C", edge="K"))


def run(job: Job, folder: Path, **environment: str) -> int:
    folder.mkdir()
    ENGINE.write(job, folder)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HTXAS_")}
    return subprocess.run(ENGINE.command(folder), env={**kept, **environment}, check=False).returncode


def test_a_folder_is_no_elk(tmp_path: Path) -> None:
    assert "names a folder" in str(ENGINE.missing({"HTXAS_ELK": str(tmp_path)}))


@pytest.mark.elk
def test_the_real_elk(diamond: Structure, tmp_path: Path, runs: Path) -> None:
    ground, site = jobs(diamond, "C", **COARSE)
    environment = {"OMP_NUM_THREADS": "1"}
    assert run(ground, tmp_path / "ground", **environment) == 0
    state = ENGINE.read(ground, tmp_path / "ground")
    assert isinstance(state, GroundResult)
    assert inspect(state, GateLimits()) is None
    assert not list(tmp_path.rglob("STATE.OUT"))
    site = Job(site.calculation, diamond, ground_directory=tmp_path / "ground")
    assert run(site, tmp_path / "site", **environment) == 0
    found = ENGINE.read(site, tmp_path / "site")
    assert isinstance(found, SiteResult)
    assert inspect(found, GateLimits(), element="C", edge="K") is None
    assert found.provenance.extra["ground"]["from"] == str(tmp_path / "ground")
    before = ENGINE.read(site, runs / "site")
    assert isinstance(before, SiteResult)
    assert found.excitation_energy_eV == pytest.approx(before.excitation_energy_eV, abs=0.005)
    assert found.sticks.isotropic.sum() == pytest.approx(before.sticks.isotropic.sum(), rel=1e-3)
    for pattern in ENGINE.keep:  # is all that reading needs
        for path in (tmp_path / "site").glob(pattern):
            kept = tmp_path / "kept" / path.relative_to(tmp_path / "site")
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, kept)
    same = ENGINE.read(site, tmp_path / "kept")
    assert isinstance(same, SiteResult)
    assert np.array_equal(same.sticks.strengths, found.sticks.strengths)
    lost = Job(site.calculation, diamond, ground_directory=tmp_path / "gone")
    assert run(lost, tmp_path / "again", **environment) == 0
    again = ENGINE.read(lost, tmp_path / "again")
    assert isinstance(again, SiteResult)
    assert again.provenance.extra["ground"]["from"] == "ground"
    assert again.excitation_energy_eV == pytest.approx(found.excitation_energy_eV, abs=1e-6)


@pytest.mark.elk
def test_the_way_to_self_consistency_is_not_in_the_answer(diamond: Structure, tmp_path: Path) -> None:
    ground, _ = jobs(diamond, "C", **COARSE)
    energies = []
    for number, numerics in enumerate([{}, *(c.numerics for c in LADDER[Cause.SCF_UNCONVERGED])]):
        job = Job(ground.calculation, diamond, numerics=numerics)
        assert run(job, tmp_path / str(number), OMP_NUM_THREADS="1") == 0
        result = ENGINE.read(job, tmp_path / str(number))
        assert isinstance(result, GroundResult)
        assert inspect(result, GateLimits()) is None
        energies.append(result.total_energy_eV)
    assert np.ptp(energies) < 1e-3
    text = (tmp_path / "2/INFO.OUT").read_text()
    assert re.search(r"Mixing type :\s+1\b", text)
