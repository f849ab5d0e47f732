from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from htxas.domain.calculation import Calculation, Convergence, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.structure import Structure
from htxas.engines.base import Job, ResolvedParameters, read_job
from htxas.engines.feff.corrections import LADDER
from htxas.engines.feff.deck import parse_deck
from htxas.engines.feff.engine import ENGINE
from htxas.engines.feff.log import read_log
from htxas.engines.feff.process import find_feff
from htxas.errors import Cause, EngineFailure, UnsupportedInput, UserError


def job(structure: Structure, element: str, preset: str = "molecule", **overrides: Any) -> Job:
    edge = overrides.pop("edge", "K")
    numerics = overrides.pop("numerics", {})
    parameters = ENGINE.resolve(preset, overrides, element=element, edge=edge)
    atom = structure.indices_of(element)[0]
    site = Calculation(Kind.SITE, structure.key, "feff", parameters.site, element, edge, atom)
    return Job(site, structure, numerics=numerics)


def deck(one: Job, folder: Path, sub: str = "") -> Any:
    ENGINE.write(one, folder)
    return parse_deck((folder / sub / "feff.inp").read_text())


def test_a_molecule(ethylene: Structure, tmp_path: Path) -> None:
    found = deck(job(ethylene, "C", ldos={"from_eV": -20, "to_eV": 10}), tmp_path)
    assert found.numbers("SCF")[1:] == (1, 100, 0.1, 3)
    assert found.numbers("EXCHANGE") == (0, 0, 0, 2)
    assert found.numbers("LDOS") == (-20, 10, 0.1, 101)
    assert found.numbers("RPATH") == (-1,)
    assert found.card("COREHOLE").words == ("RPA",)
    assert found.card("EDGE").words == ("K",)
    assert len(found.positions_A) == 6


def test_a_large_molecule_is_screened_whole(ethylene: Structure, tmp_path: Path) -> None:
    """FEFF's own 4 A leave kinds of atoms out, and its module screen gives up."""
    found = deck(job(ethylene, "C"), tmp_path)
    assert found.card("SCREEN").words == ("rfms", "4.5860")
    (tmp_path / "small").mkdir()
    small = deck(job(ethylene, "C", fms={"radius_A": 3.0, "center": "absorber"}), tmp_path / "small")
    assert small.card("SCREEN") is None
    (tmp_path / "bare").mkdir()
    assert deck(job(ethylene, "C", hole="fsr"), tmp_path / "bare").card("SCREEN") is None


def test_corrections_change_only_the_way(ethylene: Structure, tmp_path: Path) -> None:
    plain = job(ethylene, "C")
    gentle = job(ethylene, "C", numerics=dict(LADDER[Cause.SCF_UNCONVERGED][0].numerics))
    assert plain.calculation.key == gentle.calculation.key
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ENGINE.write(plain, tmp_path / "a")
    ENGINE.write(gentle, tmp_path / "b")
    lines = [(tmp_path / x / "feff.inp").read_text().splitlines() for x in "ab"]
    assert [b for a, b in zip(*lines, strict=True) if a != b] == ["SCF 4.5860 1 100 0.05 6"]


def test_three_polarisations_share_their_potentials(ethylene: Structure, tmp_path: Path) -> None:
    one = job(ethylene, "C", polarization="xyz")
    x, z = deck(one, tmp_path, "x"), deck(one, tmp_path, "z")
    assert x.numbers("CONTROL") == (1, 1, 1, 1, 1, 1)
    assert z.numbers("CONTROL") == (0, 1, 1, 1, 1, 1)
    assert z.numbers("POLARIZATION") == (0, 0, 1)


def test_cards_of_the_user(ethylene: Structure, tmp_path: Path) -> None:
    one = job(ethylene, "C", cards=["AFOLP 1.0", "FOLP 1 0.8"], hole="fsr", s02=0.9)
    found = deck(one, tmp_path)
    assert (found.numbers("AFOLP"), found.numbers("FOLP"), found.numbers("S02")) == ((1,), (1, 0.8), (0.9,))
    assert one.calculation.key != job(ethylene, "C").calculation.key


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"holes": "rpa"}, "no parameter 'holes'"),
        ({"hole": "half"}, "hole: Input should be 'rpa', 'fsr' or 'none'"),
        ({"scf": {"radius_A": 4.0, "atoms": 30}}, "say radius_A, atoms, or whole: true"),
        ({"scf": {"radius_A": -4.0}}, "greater than 0"),
        ({"cards": ["SCF 4.0"]}, "SCF is written by htxas itself"),
        ({"cards": ["AFOLP 1.0\nSCF 3"]}, "is no card"),
        ({"cards": ["1.0"]}, "is no card"),
        ({"polarization": "xyz", "elnes": {"beam_keV": 200, "collection_mrad": 5}}, "at once"),
        ({"s02": float("nan")}, "a parameter is no number"),
        ({"edge": "L2,3"}, "two campaigns: L2 and L3"),
    ],
)
def test_parameters_are_refused_by_name(ethylene: Structure, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        job(ethylene, "C", **overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("positions", "overrides", "message"),
    [
        ([[0, 0, 0]], {}, "one atom"),
        ([[0, 0, 0], [9, 0, 0]], {"cluster_radius_A": 3.0}, "no neighbour"),
    ],
)
def test_structures_are_refused(positions: Any, overrides: Mapping[str, Any], message: str) -> None:
    structure = Structure.from_atoms(["C"] * len(positions), positions)[0]
    parameters = ENGINE.resolve("molecule", overrides, element="C", edge="K")
    with pytest.raises(UnsupportedInput, match=message):
        ENGINE.check(structure, parameters)


def test_densities_of_states_beside_hydrogen_are_refused(ethylene: Structure) -> None:
    parameters = ENGINE.resolve("molecule", {"ldos": {"from_eV": -20, "to_eV": 10}}, element="C", edge="K")
    with pytest.raises(UnsupportedInput, match="C2H4 has hydrogen"):
        ENGINE.check(ethylene, parameters)
    carbon = Structure.from_atoms(["C", "O", "O"], [[0, 0, 0], [0, 0, 1.16], [0, 0, -1.16]])[0]
    ENGINE.check(carbon, parameters)


def test_a_crystal_is_no_molecule(mgo: Structure) -> None:
    parameters = ENGINE.resolve("molecule", {}, element="O", edge="K")
    with pytest.raises(UnsupportedInput, match="only a molecule is taken whole"):
        ENGINE.check(mgo, parameters)
    crystal = ENGINE.resolve("crystal", {}, element="O", edge="K")
    assert isinstance(crystal, ResolvedParameters)
    assert crystal.ground is None
    ENGINE.check(mgo, crystal)
    huge = ENGINE.resolve("crystal", {"cluster_radius_A": 25.0}, element="O", edge="K")
    with pytest.raises(UnsupportedInput, match="it has room for 3900"):
        ENGINE.check(mgo, huge)


def test_potentials_of_an_attempt_cut_short_are_taken(copied: Callable[[str], Path], tmp_path: Path) -> None:
    before = copied("killed-in-fms")
    cut = read_job(before)
    again = replace(cut, previous_directory=before)

    def control(job: Job, name: str) -> tuple[str, Path]:
        folder = tmp_path / name
        folder.mkdir()
        ENGINE.write(job, folder)
        return " ".join(parse_deck((folder / "feff.inp").read_text()).card("CONTROL").words), folder

    assert control(again, "a")[0] == "1 1 1 1 1 1"  # there are none
    for name in ("pot.bin", "apot.bin"):
        (before / name).write_bytes(b"potentials")
    taken, folder = control(again, "b")
    assert taken == "0 1 1 1 1 1"
    assert (folder / "pot.bin").read_bytes() == b"potentials"
    log = read_log((folder / "feff.out").read_text())
    assert (log.scf, log.done[-1]) == (Convergence.CONVERGED, "pot")  # it is what tells of convergence
    assert control(replace(again, numerics={"ca": 0.05}), "c")[0] == "1 1 1 1 1 1"
    third = replace(again, previous_directory=folder)
    assert control(third, "d")[0] == "0 1 1 1 1 1"
    (before / "pot.bin").write_bytes(b"")
    assert control(again, "e")[0] == "1 1 1 1 1 1"
    unfinished = replace(read_job(copied("killed-in-pot")), previous_directory=tmp_path / "killed-in-pot")
    for name in ("pot.bin", "apot.bin"):
        (tmp_path / "killed-in-pot" / name).write_bytes(b"potentials")
    assert control(unfinished, "f")[0] == "1 1 1 1 1 1"


# FEFF as scripts: what the user's own looks like from outside.


@pytest.fixture
def modules(tmp_path: Path, runs: Path) -> Callable[..., Path]:
    """Return a function that makes a folder of FEFF's modules, which together leave a committed run."""

    def make(**instead: str) -> Path:
        folder = tmp_path / "feff-modules"
        folder.mkdir()
        good = runs / "methane"
        actions = {
            "rdinp": "echo 'Launching FEFF version FEFF 10.0.0'",
            "pot": f"cat {good}/feff.out",
            "xsph": ":",
            "fms": ":",
            "ff2x": f"cp {good}/xmu.dat .",
        } | instead
        for name, action in actions.items():
            (folder / name).write_text(f"#!/bin/sh\n{action}\n")
            (folder / name).chmod(0o755)
        return folder

    return make


@pytest.fixture
def methane_job() -> Job:
    d = 0.629118
    positions = [[0, 0, 0], [d, d, d], [-d, -d, d], [d, -d, -d], [-d, d, -d]]
    structure = Structure.from_atoms(list("CHHHH"), positions)[0]
    return job(structure, "C", xanes={"grid": [["e_grid", -10, 30, 0.5]]})


def run(one: Job, folder: Path, **environment: str) -> int:
    folder.mkdir()
    ENGINE.write(one, folder)
    words = ENGINE.command(folder)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HTXAS_")}
    return subprocess.run(words, env={**kept, **environment}, check=False).returncode


def test_module_by_module(methane_job: Job, modules: Callable[..., Path], tmp_path: Path) -> None:
    assert run(methane_job, tmp_path / "run", HTXAS_FEFF=str(modules())) == 0
    result = ENGINE.read(methane_job, tmp_path / "run")
    assert result.convergence is Convergence.CONVERGED
    assert inspect(result, GateLimits(), element="C", edge="K") is None
    assert list(result.provenance.extra["modules_s"]) == ["rdinp", "pot", "xsph", "fms", "ff2x"]


def test_the_profile_says_how(methane_job: Job, modules: Callable[..., Path], tmp_path: Path) -> None:
    script = tmp_path / "feff"
    script.write_text(f'#!/bin/sh\nfor m in rdinp pot xsph fms ff2x; do "{modules()}/$m"; done\n')
    script.chmod(0o755)
    told = json.dumps({"launcher": ["env", "NP=4"], "program": [str(script)]})
    assert run(methane_job, tmp_path / "run", HTXAS_ENGINE_COMMAND=told) == 0
    result = ENGINE.read(methane_job, tmp_path / "run")
    assert result.provenance.extra["program"] == ["env", "NP=4", str(script)]


def test_potentials_that_do_not_converge_end_it(
    methane_job: Job, modules: Callable[..., Path], tmp_path: Path, runs: Path
) -> None:
    feff = modules(pot=f"cat {runs}/unconverged/feff.out", xsph="touch never")
    assert run(methane_job, tmp_path / "run", HTXAS_FEFF=str(feff)) == 0
    assert not (tmp_path / "run/never").exists()
    with pytest.raises(EngineFailure) as caught:
        ENGINE.read(methane_job, tmp_path / "run")
    assert caught.value.cause is Cause.SCF_UNCONVERGED


def test_a_module_that_fails_ends_it(methane_job: Job, modules: Callable[..., Path], tmp_path: Path) -> None:
    feff = modules(xsph="echo ' Starting FEFF9 module xsph.' > .feff.error; exit 2", fms="touch never")
    assert run(methane_job, tmp_path / "run", HTXAS_FEFF=str(feff)) == 0
    assert not (tmp_path / "run/never").exists()
    with pytest.raises(EngineFailure, match="module xsph crashed") as caught:
        ENGINE.read(methane_job, tmp_path / "run")
    assert caught.value.cause is Cause.ENGINE_CRASH


def test_a_module_that_is_killed_is_told_as_its_shell_would(
    methane_job: Job, modules: Callable[..., Path], tmp_path: Path
) -> None:
    feff = modules(pot="kill -9 $$")
    assert run(methane_job, tmp_path / "run", HTXAS_FEFF=str(feff)) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_feff_ends_with_its_process(
    methane_job: Job, modules: Callable[..., Path], tmp_path: Path, number: int
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    ENGINE.write(methane_job, folder)
    feff = modules(pot="echo $$ > pid.part; mv pid.part pid; exec sleep 60")
    process = subprocess.Popen(ENGINE.command(folder), env={**os.environ, "HTXAS_FEFF": str(feff)})
    deadline = time.monotonic() + 20
    while not (folder / "pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(20) == -number
    feff_pid = int((folder / "pid").read_text())
    while Path(f"/proc/{feff_pid}").exists() and "sleep" in Path(f"/proc/{feff_pid}/cmdline").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_folder_that_lacks_modules(modules: Callable[..., Path], tmp_path: Path) -> None:
    folder = modules()
    (folder / "fms").unlink()
    with pytest.raises(EngineFailure, match="has no program fms"):
        find_feff({"HTXAS_FEFF": str(folder)})
    with pytest.raises(EngineFailure, match="no such program"):
        find_feff({"HTXAS_FEFF": str(tmp_path / "nowhere")})


@pytest.mark.skipif("HTXAS_FEFF" not in os.environ, reason="no FEFF: name it in HTXAS_FEFF")
def test_the_real_feff(methane_job: Job, tmp_path: Path, runs: Path) -> None:
    assert run(methane_job, tmp_path / "run", HTXAS_FEFF=os.environ["HTXAS_FEFF"]) == 0
    result = ENGINE.read(methane_job, tmp_path / "run")
    assert inspect(result, GateLimits(), element="C", edge="K") is None
    before = (runs / "methane/xmu.dat").read_text().split("chi     @#")[1].split()[3::6]
    assert result.curve.isotropic == pytest.approx(
        [float(x) for x in before], rel=2e-3
    )  # single precision inside
