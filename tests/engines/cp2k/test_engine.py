from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Convergence, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import SiteResult
from htxas.domain.structure import Structure
from htxas.engines.base import Job, read_job
from htxas.engines.cp2k.basis import basis_text, count, diffuse, potential_text, shells
from htxas.engines.cp2k.corrections import LADDER
from htxas.engines.cp2k.engine import ENGINE
from htxas.engines.cp2k.process import find_cp2k
from htxas.engines.cp2k.write import core_count
from htxas.errors import Cause, EngineFailure, UnsupportedInput, UserError


def job(structure: Structure, element: str | None = "C", preset: str = "standard", **overrides: Any) -> Job:
    numerics = overrides.pop("numerics", {})
    edge = overrides.pop("edge", "K")
    parameters = ENGINE.resolve(preset, overrides, element=element or "C", edge=edge)
    if element is None:
        assert parameters.ground is not None
        return Job(Calculation(Kind.GROUND, structure.key, "cp2k", parameters.ground), structure)
    atom = structure.indices_of(element)[0]
    site = Calculation(Kind.SITE, structure.key, "cp2k", parameters.site, element, edge, atom)
    return Job(site, structure, numerics=numerics)


def written(one: Job, folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    ENGINE.write(one, folder)
    return {p.name: p.read_text() for p in folder.iterdir()}


def test_inputs_of_a_site(acetic_acid: Structure, tmp_path: Path) -> None:
    one = job(acetic_acid, "O")
    texts = written(one, tmp_path)
    assert set(texts) == {"calculation.json", "BASIS", "POTENTIAL", "base.inp", "ion.inp", "half.inp"}
    half, base = ([line.strip() for line in texts[n].splitlines()] for n in ("half.inp", "base.inp"))
    assert one.calculation.atom == 6
    for line in (
        f"PROJECT half-{one.calculation.key[:12]}",
        f"WFN_RESTART_FILE_NAME ./base-{one.calculation.key[:12]}-RESTART.wfn",
        "LSD",
        "METHOD TP_HH",
        "ATOMS_LIST 7",
        "STATE_SEARCH 2",
        "DIPOLE_FORM LENGTH",
        "POISSON_SOLVER WAVELET",
        "PERIODIC NONE",
        "MAX_SCF 60",
    ):
        assert line in half
    assert "METHOD TP_FH" in texts["ion.inp"]
    assert "LSD" not in base
    assert "SCF_GUESS ATOMIC" in base
    assert [line.split()[0] for line in half if line.startswith(("C ", "O ", "H ", "HOLE "))] == (
        ["H"] * 4 + ["C"] * 2 + ["HOLE", "O"]
    )
    assert texts["BASIS"].count("VALENCE") == 3
    assert texts["BASIS"].count("O CORE") == 1


def test_all_empty_levels_are_asked_for(methane: Structure, tmp_path: Path) -> None:
    core = shells("pcX-1", "C")
    hydrogen = shells("pcseg-1", "H")
    assert core is not None
    assert hydrogen is not None
    more = diffuse(core, smallest=0.1, ratio=2.2)
    assert [m for m, _ in more] == [2, 2]
    empty = count(core) + count(more) + 4 * count(hydrogen) - 5
    texts = written(job(methane, diffuse_smallest=0.1), tmp_path)
    assert f"ADDED_MOS {empty} {empty}" in texts["half.inp"]
    assert "ADDED_MOS" not in texts["base.inp"]


def test_inputs_of_a_ground_state(acetic_acid: Structure, tmp_path: Path) -> None:
    texts = written(job(acetic_acid, None), tmp_path)
    assert set(texts) == {"calculation.json", "BASIS", "POTENTIAL", "ground.inp"}
    assert texts["ground.inp"].count("LIST ") == 8
    assert "CORE" not in texts["BASIS"]
    assert "XAS" not in texts["ground.inp"]


def test_sites_of_all_elements_share_a_ground_state() -> None:
    def ground(element: str, **overrides: Any) -> Mapping[str, Any]:
        found = ENGINE.resolve("standard", overrides, element=element, edge="K").ground
        assert found is not None
        return found

    assert ground("C") == ground("O", scale="neutral", core_basis="aug-pcX-1")
    assert ground("C") != ground("C", cutoff_Ry=300.0)
    assert ground("C")["box"] == {"side_A": None, "vacuum_A": 8.0}


def test_the_molecule_lies_in_the_middle_of_its_box(acetic_acid: Structure, tmp_path: Path) -> None:
    text = written(job(acetic_acid, box={"side_A": 12.0}), tmp_path)["ion.inp"]
    assert "ABC 12.00000000 12.00000000 12.00000000" in text
    rows = [line.split()[1:] for line in text.splitlines() if len(line.split()) == 4 and "." in line]
    positions = np.array([row for row in rows if "ABC" not in row][-8:], dtype=float)
    assert positions - positions[0] == pytest.approx(
        acetic_acid.positions_A - acetic_acid.positions_A[0], abs=1e-6
    )
    assert (positions.max(axis=0) + positions.min(axis=0)) / 2 == pytest.approx(np.full(3, 6.0), abs=1e-6)


def test_the_scale_of_the_neutral_takes_one_more_step(methane: Structure, tmp_path: Path) -> None:
    texts = written(job(methane, scale="neutral"), tmp_path)
    assert "METHOD DSCF" in texts["neutral.inp"]


def test_functionals(methane: Structure, tmp_path: Path) -> None:
    assert "&XC_FUNCTIONAL PBE" in written(job(methane), tmp_path / "a")["base.inp"]
    assert "&MGGA_C_R2SCAN" in written(job(methane, preset="ionisation"), tmp_path / "b")["base.inp"]


def test_core_levels_up_to_the_hole(acetic_acid: Structure) -> None:
    assert (core_count(acetic_acid, "C"), core_count(acetic_acid, "O")) == (4, 2)
    with_sulphur = Structure.from_atoms(["C", "S", "S"], [[0, 0, 0], [0, 0, 1.55], [0, 0, -1.55]])[0]
    assert core_count(with_sulphur, "C") == 11


def test_nuclei() -> None:
    assert potential_text(["H", "C", "Cl"]).splitlines()[::3] == ["H ALL", "C ALL", "Cl ALL"]
    electrons = [
        sum(map(int, line.split())) for line in potential_text(["H", "Be", "C", "Cl"]).splitlines()[1::3]
    ]
    assert electrons == [1, 4, 6, 17]


def test_a_basis_as_cp2k_reads_it() -> None:
    text = basis_text("H", "VALENCE", ((0, ((12.25, 0.5), (1.5, 0.25))), (1, ((1.0, 1.0),))))
    assert text.split() == "H VALENCE 2 1 0 0 2 1 12.25 0.5 1.5 0.25 1 1 1 1 1 1 1".split()


def test_corrections_change_only_the_way(methane: Structure, tmp_path: Path) -> None:
    plain = job(methane)
    gentle = job(methane, numerics=dict(LADDER[Cause.SCF_UNCONVERGED][1].numerics))
    assert plain.calculation.key == gentle.calculation.key
    before, after = written(plain, tmp_path / "a"), written(gentle, tmp_path / "b")
    pairs = zip(before["half.inp"].splitlines(), after["half.inp"].splitlines(), strict=True)
    changed = {b.split()[0] for a, b in pairs if a != b}
    assert changed == {"MAX_SCF", "EPS_DIIS", "ALPHA"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"cutof_Ry": 200.0}, "did you mean 'cutoff_Ry'"),
        ({"cutoff_Ry": 60.0}, "cutoff_Ry = 60.0: Input should be greater than or equal to 150"),
        ({"functional": "LDA"}, "'PBE' or 'r2SCAN'"),
        ({"box": {"side_A": 10.0, "vacuum_A": 5.0}}, "say side_A or vacuum_A"),
        ({"valence_basis": "pcseg-11"}, "no basis set is called 'pcseg-11'"),
        ({"valence_basis": "def2-QZVP"}, "f functions"),
        ({"core_basis": "6-31G"}, "has no d functions"),
        ({"edge": "L3"}, "computes K edges"),
        ({"element": "S"}, "not relativistic"),
        ({"preset": "fast"}, "no preset 'fast'"),
    ],
)
def test_parameters_are_refused_by_name(overrides: dict[str, Any], message: str) -> None:
    words = {"preset": "standard", "element": "C", "edge": "K"}
    words = {k: overrides.pop(k, v) for k, v in words.items()}
    with pytest.raises(UserError) as caught:
        ENGINE.resolve(words["preset"], overrides, element=words["element"], edge=words["edge"])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("symbols", "cell", "overrides", "message"),
    [
        (["C", "O"], np.eye(3) * 5, {}, "is periodic"),
        (["C", "H"], None, {}, "odd number of electrons"),
        (["C", "Se"], None, {}, "no functions for Se"),
        (["C", "O"], None, {"box": {"side_A": 5.0}}, "touches its own images"),
        (
            ["C", "O"],
            None,
            {"box": {"vacuum_A": 6.5}},
            "diffuse_smallest 0.03 do not fit beside CO in a box of 7.7 A",
        ),
    ],
)
def test_structures_are_refused(
    symbols: list[str], cell: Any, overrides: Mapping[str, Any], message: str
) -> None:
    structure = Structure.from_atoms(symbols, [[0, 0, 0], [0, 0, 1.2]], cell)[0]
    parameters = ENGINE.resolve("standard", overrides, element="C", edge="K")
    with pytest.raises(UnsupportedInput, match=message):
        ENGINE.check(structure, parameters)


def test_estimates_grow_with_what_is_computed(methane: Structure, acetic_acid: Structure) -> None:
    def seconds(structure: Structure, preset: str, kind: Kind = Kind.SITE) -> float:
        p = ENGINE.resolve(preset, {}, element="C", edge="K")
        assert p.ground is not None
        return ENGINE.estimate_s(structure, kind, p.ground if kind is Kind.GROUND else p.site)

    assert (
        seconds(methane, "standard", Kind.GROUND) < seconds(methane, "quick") < seconds(methane, "standard")
    )
    assert (
        seconds(methane, "standard") < seconds(acetic_acid, "standard") < seconds(acetic_acid, "ionisation")
    )


def test_another_basis_library_is_refused(methane: Structure, tmp_path: Path) -> None:
    one = job(methane)
    site = json.loads(json.dumps(dict(one.calculation.parameters)))
    site["hole"]["core_sha256"] = "0" * 16
    other = replace(one.calculation, parameters=site)
    with pytest.raises(EngineFailure, match="basis pcX-1 of content 0000000000000000") as caught:
        written(Job(other, methane), tmp_path)
    assert caught.value.cause is Cause.BAD_INPUT


def test_orbitals_of_an_attempt_cut_short_are_taken(copied: Callable[[str], Path], tmp_path: Path) -> None:
    before = copied("killed")
    cut = read_job(before)
    again = replace(cut, previous_directory=before)
    orbitals = before / f"base-{cut.calculation.key[:12]}-RESTART.wfn"

    def guess(one: Job, name: str) -> str:
        text = written(one, tmp_path / name)["base.inp"]
        return next(line.split()[1] for line in text.splitlines() if "SCF_GUESS" in line)

    (tmp_path / "a").mkdir()
    assert guess(again, "a") == "ATOMIC"  # there are none
    orbitals.write_bytes(b"")
    assert guess(again, "b") == "ATOMIC"
    orbitals.write_bytes(b"orbitals")
    (tmp_path / "c").mkdir()
    ENGINE.write(again, tmp_path / "c")
    assert "WFN_RESTART_FILE_NAME ./start.wfn" in (tmp_path / "c/base.inp").read_text()
    assert (tmp_path / "c/start.wfn").read_bytes() == b"orbitals"
    base = (before / "base.out").read_text()
    (before / "base.out").write_text(base.replace("SCF run converged", "SCF run NOT converged"))
    assert guess(again, "d") == "ATOMIC"


# CP2K as a script: what the user's own looks like from outside.


@pytest.fixture
def cp2k(tmp_path: Path, runs: Path) -> Callable[..., Path]:
    """Return a function that makes a program, which leaves the files of a committed run."""

    def make(action: str = ":", run: str = "methane") -> Path:
        program = tmp_path / "cp2k"
        step = "${2%.inp}"
        program.write_text(
            f'#!/bin/sh\ncat "{runs}/{run}/{step}.out"\n'
            f'cp "{runs}/{run}/{step}"-*.spectrum "{runs}/{run}/{step}"-*.pdos . 2>/dev/null\n{action}\nexit 0\n'
        )
        program.chmod(0o755)
        return program

    return make


def run(one: Job, folder: Path, **environment: str) -> int:
    folder.mkdir()
    ENGINE.write(one, folder)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HTXAS_")}
    return subprocess.run(ENGINE.command(folder), env={**kept, **environment}, check=False).returncode


def test_step_by_step(cp2k: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    one = read_job(runs / "methane")
    assert run(one, tmp_path / "run", HTXAS_CP2K=f"{cp2k()} ") == 0
    result = ENGINE.read(one, tmp_path / "run")
    assert result.convergence is Convergence.CONVERGED
    assert list(result.provenance.extra["steps_s"]) == ["base", "ion", "half"]
    assert set(result.provenance.inputs_sha256) == {"BASIS", "POTENTIAL", "base.inp", "ion.inp", "half.inp"}
    assert ENGINE.missing({"HTXAS_CP2K": str(cp2k())}) is None


def test_the_profile_says_how(cp2k: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    one = read_job(runs / "methane")
    told = json.dumps({"launcher": ["env", "NP=4"], "program": [str(cp2k())]})
    assert run(one, tmp_path / "run", HTXAS_ENGINE_COMMAND=told) == 0
    assert ENGINE.read(one, tmp_path / "run").provenance.extra["program"] == ["env", "NP=4", str(cp2k())]


@pytest.mark.parametrize(
    ("name", "last", "cause"),
    [
        ("unconverged", "base", Cause.SCF_UNCONVERGED),
        ("hole-unconverged", "ion", Cause.SCF_UNCONVERGED),
        ("walltime", "ion", Cause.WALLTIME),
        ("killed", "ion", Cause.ENGINE_CRASH),
    ],
)
def test_the_first_step_that_fails_ends_it(
    cp2k: Callable[..., Path], runs: Path, tmp_path: Path, name: str, last: str, cause: Cause
) -> None:
    one = read_job(runs / name)
    assert run(one, tmp_path / "run", HTXAS_CP2K=str(cp2k(run=name))) == 0
    assert sorted(p.stem for p in (tmp_path / "run").glob("*.out"))[-1] == last
    with pytest.raises(EngineFailure) as caught:
        ENGINE.read(one, tmp_path / "run")
    assert caught.value.cause is cause


def test_a_status_of_its_own_ends_it(cp2k: Callable[..., Path], runs: Path, tmp_path: Path) -> None:
    one = read_job(runs / "methane")
    assert run(one, tmp_path / "run", HTXAS_CP2K=str(cp2k("[ $2 = ion.inp ] && exit 7"))) == 0
    assert not (tmp_path / "run/half.out").exists()
    with pytest.raises(EngineFailure) as caught:
        ENGINE.read(one, tmp_path / "run")
    assert caught.value.cause is Cause.ENGINE_CRASH


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_cp2k_ends_with_its_process(
    cp2k: Callable[..., Path], runs: Path, tmp_path: Path, number: int
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    ENGINE.write(read_job(runs / "methane"), folder)
    program = cp2k("echo $$ > pid.part; mv pid.part pid; exec sleep 60")
    process = subprocess.Popen(ENGINE.command(folder), env={**os.environ, "HTXAS_CP2K": str(program)})
    deadline = time.monotonic() + 20
    while not (folder / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(20) == -number
    pid = int((folder / "pid").read_text())
    while Path(f"/proc/{pid}").exists() and "sleep" in Path(f"/proc/{pid}/cmdline").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_folder_of_programs(cp2k: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    with pytest.raises(EngineFailure, match="has none of cp2k "):
        find_cp2k({"HTXAS_CP2K": str(tmp_path / "bin")})
    shutil.copy2(cp2k(), tmp_path / "bin/cp2k.ssmp")
    assert find_cp2k({"HTXAS_CP2K": str(tmp_path / "bin")}).command() == [str(tmp_path / "bin/cp2k.ssmp")]


@pytest.mark.cp2k
def test_the_real_cp2k(runs: Path, tmp_path: Path) -> None:
    one = read_job(runs / "methane")
    kept = {k: v for k, v in os.environ.items() if k in ("HTXAS_CP2K", "HTXAS_ENGINE_COMMAND")}
    assert run(one, tmp_path / "run", OMP_NUM_THREADS="1", **kept) == 0
    result, before = ENGINE.read(one, tmp_path / "run"), ENGINE.read(one, runs / "methane")
    assert isinstance(result, SiteResult)
    assert isinstance(before, SiteResult)
    assert inspect(result, GateLimits(), element="C", edge="K") is None
    assert result.sticks.energies_eV == pytest.approx(before.sticks.energies_eV, abs=5e-3)
    assert result.sticks.isotropic[1:4].sum() == pytest.approx(before.sticks.isotropic[1:4].sum(), rel=1e-3)
