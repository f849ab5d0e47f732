from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import CurveResult
from htxas.domain.structure import Structure
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import Job
from htxas.engines.olcao.corrections import LADDER
from htxas.engines.olcao.engine import ENGINE
from htxas.engines.olcao.parameters import parameters_from
from htxas.engines.olcao.read import OutputError, read_iterations, read_plot
from htxas.engines.olcao.write import InputError, changed_input, computed_window_eV, makeinput_words
from htxas.errors import Cause, EngineFailure, UnsupportedInput, UserError
from tests.engines.olcao.conftest import make_job, two_sites
from tests.engines.olcao.fake_olcao import OLCAO_DAT

Run = Callable[..., tuple[int, Path]]
SKELETONS = Path(__file__).parents[4] / "shared" / "fixtures" / "olcao_skl"


def failure(job: Job, folder: Path) -> EngineFailure:
    with pytest.raises(EngineFailure) as caught:
        ENGINE.read(job, folder)
    return caught.value


def good(job: Job, folder: Path) -> CurveResult:
    result = ENGINE.read(job, folder)
    assert isinstance(result, CurveResult)
    return result


def test_the_skeleton(mgo: Structure, tmp_path: Path) -> None:
    ENGINE.write(make_job(mgo), tmp_path)
    lines = (tmp_path / "olcao.skl").read_text().splitlines()
    assert [lines[0], lines[2], lines[3]] == ["title", "end", "cellxyz fixed"]
    vectors = np.array([[float(x) for x in line.split()] for line in lines[4:7]])
    assert np.allclose(vectors, np.array(mgo.cell_A) * [[2], [2], [1]])
    assert lines[7] == "cart 8"
    assert lines[8].split() == ["O1", "2.10600000", "0.00000000", "0.00000000"]  # the absorber first
    assert sorted(line.split()[0] for line in lines[8:16]) == ["Mg1"] * 4 + ["O1"] * 4
    assert lines[16:] == ["space 1_a", "supercell 1 1 1", "full"]


def test_each_crystal_site_has_its_tag(tmp_path: Path) -> None:
    ENGINE.write(make_job(two_sites(), "C"), tmp_path)
    lines = (tmp_path / "olcao.skl").read_text().splitlines()
    tags = {(line.split()[0], line.split()[3]) for line in lines[8:20]}
    assert tags == {("C1", "0.00000000"), ("N1", "1.50000000"), ("N2", "4.00000000")}


@pytest.mark.skipif(not SKELETONS.is_dir(), reason="needs genuine files beside the checkout")
def test_its_words_are_those_of_genuine_ones(mgo: Structure, tmp_path: Path) -> None:
    ENGINE.write(make_job(mgo), tmp_path)
    ours = [line.split()[0] for line in (tmp_path / "olcao.skl").read_text().splitlines()]
    for path in SKELETONS.glob("*.skl"):
        theirs = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
        for word in ("title", "end", "space", "supercell"):
            assert ours.index(word) >= 0
            assert theirs.index(word) >= 0
        assert theirs[-1] in ("full", "prim")
        assert any(w.startswith(("frac", "cart")) for w in theirs)


def test_the_spectrum(run: Run, mgo: Structure) -> None:
    job = make_job(mgo)
    status, folder = run(job, "good")
    assert status == 0
    result = good(job, folder)
    assert result.edge_eV == pytest.approx(538.4, abs=1e-4)
    assert inspect(result, GateLimits(), element="O", edge="K") is None
    e, intensity = result.curve.energies_eV, result.curve.intensity
    assert e[0] == pytest.approx(535.0, abs=1e-3)
    assert result.window_eV == pytest.approx(25, abs=0.06)
    inside = result.curve.isotropic > 0
    assert np.allclose(intensity[inside] / result.curve.isotropic[inside, None], [1.0, 1.1, 0.9], rtol=1e-6)
    above = e >= result.edge_eV + 5
    assert np.trapezoid(result.curve.isotropic[above], e[above]) == pytest.approx(np.ptp(e[above]))
    assert not (folder / "scratch").exists()


def test_inputs_are_changed(run: Run, mgo: Structure) -> None:
    job = replace(make_job(mgo), numerics=dict(LADDER[Cause.SCF_UNCONVERGED][1].numerics))
    _, folder = run(job, "slow")
    lines = (folder / "o1_1" / "inputs" / "olcao.dat").read_text().splitlines()
    assert lines[lines.index("LAST_ITERATION") + 1] == "640"
    assert lines[lines.index("CONVERGENCE_TEST") + 1] == "0.00010000"
    assert lines[lines.index("RELAXATION_FACTOR") + 1] == "0.05"
    at = lines.index("PACS_INPUT_DATA")
    assert lines[at + 1].startswith("1 ")
    assert lines[at + 2] == f"{'0.05 0.2':<24}! PACS delta Energy, PACS sigma factor"
    assert lines[at + 3].split("!")[0].split() == ["5", "100.2"]
    assert lines[at + 5] == "1 0 1 1 -1 ! QN_n QN_l Init1 Init2 TEDiff"
    assert "XC_CODE\n100\n" in (folder / "o1_1" / "inputs" / "olcao.dat").read_text()


def test_the_mesh_has_the_zone_centre_unless_shifted(mgo: Structure) -> None:
    for shifted, words in ((False, ["0.5", "0.5", "0.0"]), (True, ["0.0", "0.0", "0.5"])):
        p = parameters_from(
            make_job(mgo, kpoints={"divisions": [2, 4, 3], "shifted": shifted}).calculation.parameters
        )
        options = makeinput_words(p, (2, 4, 3))
        assert options[options.index("-kp") + 1 :][:3] == ["2", "4", "3"]
        assert options[options.index("-kpshift") + 1 :][:3] == words


def test_other_inputs_are_refused(mgo: Structure) -> None:
    p = parameters_from(make_job(mgo).calculation.parameters)
    text = OLCAO_DAT.format(title="t", functional=100)
    for damaged in (
        "",
        text.replace("XC_CODE\n100", "XC_CODE\n101"),
        text.replace("CONVERGENCE_TEST\n", ""),
        text.replace("5 50  ", "5     "),
    ):
        with pytest.raises(InputError):
            changed_input(damaged, p, "O", {})
    assert computed_window_eV(p, "O") > p.window_eV + 0.1 * 543


@pytest.mark.parametrize(
    ("mode", "cause", "words"),
    [
        ("unconverged", Cause.SCF_UNCONVERGED, "the potential of 1s changed by"),
        ("refused", Cause.BAD_INPUT, "made no inputs"),
        ("memory", Cause.OUT_OF_MEMORY, "1s_iter-fb.dat"),
        ("crashed", Cause.ENGINE_CRASH, "a program of OLCAO's ended before its end"),
        ("few-states", Cause.BAD_OUTPUT, "levels end 16.9 eV above the edge"),
        ("negative", Cause.BAD_OUTPUT, "without its sign"),
        ("other-energy", Cause.BAD_OUTPUT, "the spectrum begins at 550.00 eV"),
    ],
)
def test_what_went_wrong_has_one_cause(run: Run, mgo: Structure, mode: str, cause: Cause, words: str) -> None:
    job = make_job(mgo)
    _, folder = run(job, "bad", mode=mode)
    error = failure(job, folder)
    assert error.cause is cause
    assert words in str(error)


def test_a_killed_run_is_a_crash(run: Run, mgo: Structure) -> None:
    job = make_job(mgo)
    status, folder = run(job, "killed", mode="killed")
    assert status == -signal.SIGKILL
    assert failure(job, folder).cause is Cause.ENGINE_CRASH


def test_tables_that_are_none() -> None:
    heading = " Iter. Occ. Energy   El. Error    Convergence     Total Energy\n"
    row = "    1   0.20000000   0.00001000   0.10000000  -1200.00000000\n"
    assert read_iterations(heading + row).energy_Hartree == -1200
    with pytest.raises(OutputError, match="NaN"):  # as OLCAO wrote of PBE
        read_iterations(heading + row.replace("-1200.00000000", "NaN"))
    for text in ("", heading, heading + row[:-1], heading + row + row, heading + row[:-18] + "\n", row):
        with pytest.raises(OutputError):
            read_iterations(text)
    top = "         Energy     totalXANES         xXANES         yXANES         zXANES\n"
    rows = [(1.0, 0.0, 0.0, 0.0, 0.0), (2.0, 2.0, 1.0, 2.0, 3.0), (3.0, 1.0, 1.0, 1.0, 1.0)]

    def table(*values: tuple[float, ...]) -> str:
        return top + "".join("".join(f"{v:15.7E}" for v in r) + "\n" for r in values)

    energies, columns = read_plot(table(*rows))
    assert energies.tolist() == [1, 2, 3]
    assert columns[1].tolist() == [1, 2, 3]
    for text in (
        table(*rows)[:-1],
        table(*rows).replace("zXANES", "zCond "),
        table(rows[0], rows[2], rows[1]),
        table(*rows, (4.0, 9.0, 1.0, 1.0, 1.0)),
        table(*rows, (4.0, -1.0, -1.0, -1.0, -1.0)),
        table(*rows, (4.0, float("nan"), 0, 0, 0)),
    ):
        with pytest.raises(OutputError):
            read_plot(text)


def test_what_is_refused_before_submission(mgo: Structure) -> None:
    parameters = ENGINE.resolve("crystal", {}, element="O", edge="K")
    ENGINE.check(mgo, parameters)
    assert parameters.ground is None
    with pytest.raises(UnsupportedInput, match="molecule"):
        ENGINE.check(Structure.from_atoms(["C", "O"], [[0, 0, 0], [0, 0, 1.13]])[0], parameters)
    with pytest.raises(UnsupportedInput, match="odd number"):
        ENGINE.check(Structure.from_atoms(["N"], [[0, 0, 0]], np.eye(3) * 3)[0], parameters)


@pytest.mark.parametrize(
    ("overrides", "element", "edge", "words"),
    [
        ({}, "Si", "L3", "1s cores only"),
        ({}, "H", "K", "1s cores only"),
        ({"bases": "eb"}, "O", "K", "did you mean 'basis'"),
        ({"basis": "huge"}, "O", "K", "basis"),
    ],
)
def test_what_the_user_said_wrong(overrides: dict[str, Any], element: str, edge: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        ENGINE.resolve("crystal", overrides, element=element, edge=edge)


def test_finding_olcao(programs: Path, mgo: Structure) -> None:
    assert ENGINE.missing({"HTXAS_OLCAO": str(programs)}) is None
    (programs.parent / "share" / "atomicBDB").rmdir()
    assert "no atomicBDB" in str(ENGINE.missing({"HTXAS_OLCAO": str(programs)}))
    assert ENGINE.estimate_s(mgo, Kind.SITE, make_job(mgo).calculation.parameters) > 10


def test_what_olcao_itself_wrote() -> None:
    folder = Path(__file__).parent / "genuine"
    ground, hole = (read_iterations((folder / f"{name}_iter-fb.dat").read_text()) for name in ("gs", "1s"))
    assert (ground.iterations, hole.iterations) == (8, 8)
    transition_eV = (hole.energy_Hartree - ground.energy_Hartree) * HARTREE_EV
    assert transition_eV == pytest.approx(538.976960, abs=1e-4)  # olcao's own TEDiff
    energies, columns = read_plot((folder / "1s_pacs-eb.plot").read_text())
    assert energies[0] == 535
    # Cells doubled along one primitive vector keep a threefold axis.
    assert np.ptp(columns, axis=1).max() < 1e-5 * columns.max()
    mean = columns.mean(axis=1)
    assert (
        mean[energies < transition_eV - 0.6].max() < 1e-9 * mean.max()
    )  # three widths before the first final state
    assert energies[mean > 0.01 * mean.max()][0] < transition_eV + 1.0
