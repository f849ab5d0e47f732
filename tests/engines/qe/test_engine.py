from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import GroundResult, SiteResult
from htxas.domain.structure import Structure
from htxas.engines.base import Job, read_job
from htxas.engines.qe.engine import ENGINE
from htxas.engines.qe.recipes import RECIPES, ld1_input
from htxas.errors import UnsupportedInput, UserError

COARSE = {"box": {"vacuum_A": 4.0}, "cutoff_Ry": 25.0}
COARSE_SITE = {**COARSE, "tolerance": 0.01, "resolution_eV": 0.5, "window_eV": 25.0}


def jobs(structure: Structure, **overrides: Any) -> tuple[Job, Job]:
    p = ENGINE.resolve("light", overrides, element="C", edge="K")
    assert p.ground is not None
    ground = Calculation(Kind.GROUND, structure.key, "qe", p.ground)
    atom = structure.indices_of("C")[0]
    return Job(ground, structure), Job(
        Calculation(Kind.SITE, structure.key, "qe", p.site, "C", "K", atom), structure
    )


def test_a_ground_state_is_written(carbon_monoxide: Structure, tmp_path: Path) -> None:
    ENGINE.write(jobs(carbon_monoxide)[0], tmp_path)
    text = (tmp_path / "pw.in").read_text()
    assert "nat=2, ntyp=2, ecutwfc=45" in text
    assert "K_POINTS gamma" in text
    assert "occupations='fixed'" in text
    assert sorted(p.name for p in tmp_path.glob("*.ld1.in")) == ["C.ld1.in", "O.ld1.in"]
    positions = [line.split() for line in text.partition("ATOMIC_POSITIONS angstrom\n")[2].splitlines()[:2]]
    assert float(positions[1][3]) - float(positions[0][3]) == pytest.approx(1.128)


def test_a_site_is_written(carbon_monoxide: Structure, tmp_path: Path) -> None:
    ENGINE.write(jobs(carbon_monoxide)[1], tmp_path)
    text = (tmp_path / "pw.in").read_text()
    species = text.partition("ATOMIC_SPECIES\n")[2].splitlines()
    assert [s.split()[::2] for s in species[:2]] == [["C1", "C-hole.UPF"], ["O", "O.UPF"]]
    # after a calculation with real wave functions the spectrum has half its intensity
    assert "K_POINTS automatic\n1 1 1 0 0 0" in text
    assert "config='1s1 2s2 2p2 3s0 3p0'" in (tmp_path / "C-hole.ld1.in").read_text()
    assert "config='1s2 2s2 2p2 3s0 3p0'" in (tmp_path / "C.ld1.in").read_text()


def test_one_of_several_atoms_has_the_hole(tmp_path: Path) -> None:
    ethyne = Structure.from_atoms(list("CCHH"), [[0, 0, 0.6], [0, 0, -0.6], [0, 0, 1.66], [0, 0, -1.66]])[0]
    p = ENGINE.resolve("molecule", {}, element="C", edge="K")
    site = Calculation(Kind.SITE, ethyne.key, "qe", p.site, "C", "K", ethyne.indices_of("C")[1])
    ENGINE.write(Job(site, ethyne), tmp_path)
    text = (tmp_path / "pw.in").read_text()
    labels = [line.split()[0] for line in text.partition("ATOMIC_POSITIONS angstrom\n")[2].splitlines()[:4]]
    assert labels == ["H", "H", "C", "C1"]
    assert re.findall(r"^(\S+)\s+1\.0 (\S+)$", text, re.MULTILINE) == [
        ("C1", "C-hole.UPF"),
        ("C", "C.UPF"),
        ("H", "H.UPF"),
    ]
    assert "15.00000000" in text


def test_a_crystal_is_written_with_its_k_points(tmp_path: Path) -> None:
    diamond = Structure.from_atoms(
        ["C", "C"], [[0, 0, 0], [0.8917, 0.8917, 0.8917]], (np.ones((3, 3)) - np.eye(3)) * 1.7834
    )[0]
    p = ENGINE.resolve(
        "light",
        {"supercell": {"repeats": [2, 2, 2]}, "kpoints": {"spacing_invA": 0.8}},
        element="C",
        edge="K",
    )
    ENGINE.check(diamond, p)
    ENGINE.write(Job(Calculation(Kind.SITE, diamond.key, "qe", p.site, "C", "K", 0), diamond), tmp_path)
    text = (tmp_path / "pw.in").read_text()
    assert "nat=16, ntyp=2" in text
    assert "nosym=.true." in text
    assert re.search(r"K_POINTS automatic\n2 2 2 0 0 0", text)
    assert text.count("\nC1 ") == 2  # its species and its one atom


def test_without_a_hole_the_absorber_is_one_of_its_kind(carbon_monoxide: Structure, tmp_path: Path) -> None:
    _, site = jobs(carbon_monoxide, electrons=0)
    ENGINE.write(site, tmp_path)
    text = (tmp_path / "pw.in").read_text()
    assert "C1   1.0 C.UPF" in text
    assert "occupations='fixed'" in text
    assert (tmp_path / "C-hole.ld1.in").exists()  # its energy fixes the scale


@pytest.mark.parametrize(
    ("overrides", "file", "charge", "levels"),
    [
        ({"electrons": 0.5}, "C-half.UPF", None, "smearing"),
        ({"electrons": 0.5, "excited_electron": False}, "C-half.UPF", "0.5", "fixed"),
        ({"excited_electron": False}, "C-hole.UPF", "1", "fixed"),
    ],
)
def test_other_holes_are_put_on_the_scale_of_the_full_one(
    carbon_monoxide: Structure,
    tmp_path: Path,
    overrides: dict[str, Any],
    file: str,
    charge: str | None,
    levels: str,
) -> None:
    ENGINE.write(jobs(carbon_monoxide, **overrides)[1], tmp_path)
    text, scale = (tmp_path / "pw.in").read_text(), (tmp_path / "excited/pw.in").read_text()
    assert f"C1   1.0 {file}" in text
    assert (f"tot_charge={charge}\n" in text) == (charge is not None)
    assert f"occupations='{levels}'" in text
    assert "C1   1.0 C-hole.UPF" in scale
    assert "tot_charge" not in scale
    names = {p.name for p in tmp_path.glob("C*.ld1.in")}
    assert names == {"C.ld1.in", "C-hole.ld1.in", file.replace("UPF", "ld1.in")}


def test_cutoffs_are_what_the_absorber_needs() -> None:
    found = {
        (preset, e): ENGINE.resolve(preset, {}, element=e, edge="K").site["ground"]["cutoff_Ry"]
        for preset in ("molecule", "light")
        for e in "CNO"
    }
    assert found == {
        ("molecule", "C"): 60.0,
        ("molecule", "N"): 80.0,
        ("molecule", "O"): 110.0,
        ("light", "C"): 45.0,
        ("light", "N"): 60.0,
        ("light", "O"): 82.5,
    }


def test_how_far_a_pdos_reaches_changes_no_spectrum() -> None:
    few, many = (ENGINE.resolve("light", {"pdos_window_eV": e}, element="C", edge="K") for e in (2.0, 10.0))
    assert few.site == many.site
    assert few.ground != many.ground


def test_an_attempt_cut_short_is_gone_on_with(carbon_monoxide: Structure, tmp_path: Path, runs: Path) -> None:
    before, again, other = (tmp_path / name for name in ("before", "again", "other"))
    job = read_job(runs / "killed-in-xspectra")
    before.mkdir()
    ENGINE.write(job, before)
    shutil.copytree(runs / "killed-in-xspectra", before, dirs_exist_ok=True)
    (before / "pw.save").mkdir()
    for name in ("C.UPF", "C-hole.UPF", "C.ld1.out", "pw.save/wfc1.dat", "xspectra-x.in"):
        (before / name).write_text(name)
    again.mkdir()
    ENGINE.write(replace(job, previous_directory=before), again)
    taken = {str(p.relative_to(again)) for p in again.rglob("*") if p.is_file() and p.suffix != ".in"}
    assert taken == {
        "calculation.json", "pw.out", "pw.xml", "C.UPF", "C-hole.UPF", "C.ld1.out", "pw.save/wfc1.dat",
        "xspectra-x.out", "lanczos-x.sav",
    }  # fmt: skip
    other.mkdir()  # another way to the answer: nothing of it
    ENGINE.write(replace(job, previous_directory=before, numerics={"mixing_beta": 0.2}), other)
    assert not list(other.glob("*.out"))


def test_corrections_change_the_way_only(carbon_monoxide: Structure, tmp_path: Path) -> None:
    _, site = jobs(carbon_monoxide)
    gentle = Job(site.calculation, carbon_monoxide, numerics={"mixing_beta": 0.1, "iterations_factor": 3.0})
    ENGINE.write(gentle, tmp_path)
    text = (tmp_path / "pw.in").read_text()
    assert "mixing_beta=0.1" in text
    assert "electron_maxstep=300" in text


@pytest.mark.parametrize(
    ("element", "edge", "overrides", "message"),
    [
        ("C", "L3", {}, "K edges"),
        ("H", "K", {}, "has no H with a core hole"),
        ("Fe", "K", {}, "has no Fe with a core hole"),
        ("Mg", "K", {}, "has no Mg with a core hole"),
        ("C", "K", {"cutof_Ry": 30}, "did you mean 'cutoff_Ry'"),
        ("C", "K", {"cutoff_Ry": 3}, "cutoff_Ry"),
        ("C", "K", {"supercell": {"repeats": [2, 2, 2]}}, "kpoints go with a supercell"),
        ("C", "K", {"pseudopotentials": "tm-pbe"}, "did you mean 'tm-pbe-1'"),
        ("C", "K", {"electrons": 0.7}, "one of 1, 0.5, 0"),
        (
            "C",
            "K",
            {"box": {"side_A": 12}, "supercell": {"repeats": [1, 1, 1]}},
            "say box (a molecule) or supercell",
        ),
        ("C", "K", {"upf": {"C": "mine.UPF"}}, "HTXAS_QE_PSEUDOS is not set"),
        ("C", "K", {"upf": {"C": "/home/me/mine.UPF"}}, "not the name of a file"),
        ("C", "K", {"upf": ["C.UPF"]}, "upf: element: name of a file"),
        ("C", "K", {"hole_upf": {"file": "C-hole.UPF"}}, "file, atom_eV and radius_a0"),
    ],
)
def test_parameters_are_refused(element: str, edge: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        ENGINE.resolve("light", overrides, element=element, edge=edge)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("symbols", "positions", "message"),
    [
        (["C", "Cl"], [[0, 0, 0], [0, 0, 1.8]], "no pseudopotential of Cl"),
        (
            ["C", "H", "H", "H"],
            [[0, 0, 0], [1, 0, 0], [-0.5, 0.9, 0], [-0.5, -0.9, 0]],
            "odd number of electrons",
        ),
        (["C", "O"], [[0, 0, 0], [0, 0, 13.0]], "touches its own images"),
    ],
)
def test_structures_are_refused(symbols: list[str], positions: Any, message: str) -> None:
    structure = Structure.from_atoms(symbols, positions)[0]
    with pytest.raises(UnsupportedInput, match=message):
        ENGINE.check(structure, ENGINE.resolve("molecule", {}, element="C", edge="K"))


def test_a_set_of_recipes_never_changes() -> None:
    """An identity relies on its name: a better recipe is a new set."""
    inputs = "".join(
        ld1_input(e, e, recipe, hole=hole)
        for e, recipe in sorted(RECIPES["tm-pbe-1"].items())
        for hole in ((0.0, 0.5, 1.0) if recipe.spectral else (0.0,))
    )
    assert (
        sha256(inputs.encode()).hexdigest()
        == "70486dd33aa2bb9f716c4c0cf0bd2bafdb09d610d56319ac89658c737ff195e0"
    )


def run(job: Job, folder: Path, **environment: str) -> int:
    folder.mkdir()
    ENGINE.write(job, folder)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HTXAS_")}
    return subprocess.run(ENGINE.command(folder), env={**kept, **environment}, check=False).returncode


def test_a_folder_that_lacks_programs(tmp_path: Path) -> None:
    (tmp_path / "pw.x").touch(0o755)
    assert "has no program ld1.x" in str(ENGINE.missing({"HTXAS_QE": str(tmp_path)}))


@pytest.mark.qe
def test_the_real_espresso(carbon_monoxide: Structure, tmp_path: Path, runs: Path) -> None:
    ground, site = jobs(carbon_monoxide, **COARSE_SITE)
    environment = {"OMP_NUM_THREADS": "1"}
    assert run(ground, tmp_path / "ground", **environment) == 0
    state = ENGINE.read(ground, tmp_path / "ground")
    assert isinstance(state, GroundResult)
    assert inspect(state, GateLimits()) is None
    assert state.homo_eV == pytest.approx(-9.0, abs=0.5)  # PBE; all-electron codes: -9.0
    site = Job(site.calculation, carbon_monoxide, ground_directory=tmp_path / "ground")
    assert run(site, tmp_path / "site", **environment) == 0
    found = ENGINE.read(site, tmp_path / "site")
    assert isinstance(found, SiteResult)
    assert inspect(found, GateLimits(), element="C", edge="K") is None
    assert found.provenance.extra["ground"]["from"] == str(tmp_path / "ground")
    shutil.copytree(runs / "site", tmp_path / "before")
    before = ENGINE.read(site, tmp_path / "before")
    assert isinstance(before, SiteResult)
    assert found.excitation_energy_eV == pytest.approx(before.excitation_energy_eV, abs=0.01)
    assert found.sticks.isotropic.sum() == pytest.approx(before.sticks.isotropic.sum(), rel=0.02)
