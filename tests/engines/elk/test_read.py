from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from htxas.domain.calculation import Convergence
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import GroundResult, SiteResult
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import read_job
from htxas.engines.elk.engine import ENGINE
from htxas.engines.elk.levels import (
    Levels,
    read_characters,
    read_core_level_Ha,
    read_equivalent,
    read_levels,
)
from htxas.engines.elk.output import OutputError, refusal, trouble
from htxas.engines.elk.transitions import filling_Ha, final_states, read_momenta, read_rotations
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
    text = (runs / "ground/INFO.OUT").read_text()
    total_Ha = float(re.findall(r"total energy\s+:\s+(\S+)", text)[-1])
    assert result.total_energy_eV == pytest.approx(total_Ha * HARTREE_EV, abs=1e-4)
    gap_Ha = float(re.findall(r"Estimated indirect band gap :\s+(\S+)", text)[-1])
    assert result.gap_eV == pytest.approx(gap_Ha * HARTREE_EV, abs=1e-3)
    assert result.reference.startswith("Coulomb potential of Elk's")
    assert result.dipole_D is None
    assert result.provenance.engine_version == "8.4.30"


def test_charges_in_spheres_are_elks(runs: Path) -> None:
    result = ground(runs / "ground")
    pdos = result.pdos
    assert pdos.spheres
    assert not pdos.complete
    assert pdos.shares is not None
    # both atoms of diamond alike, at each level of each star of k points
    assert pdos.weights[:, 0] == pytest.approx(pdos.weights[:, 1])
    assert (pdos.occupations * pdos.shares).sum() == pytest.approx(8.0)
    # the charge Elk counts in its spheres is these levels' and the core's, but for f and a constant it adds
    text = (runs / "ground/INFO.OUT").read_text()
    spheres = float(re.findall(r"total in muffin-tins\s+:\s+(\S+)", text)[-1])
    ours = (pdos.occupations * pdos.shares) @ pdos.weights.sum(axis=(1, 2)) + 4.0
    assert ours == pytest.approx(spheres, rel=0.01)


def test_a_site(runs: Path) -> None:
    result = site(runs / "site")
    e = result.energies_eV
    assert result.excitation_energy_eV == pytest.approx(e["excited"] - e["ground"])
    assert 0 < result.provenance.extra["electron_above_lowest_eV"] < 0.5
    text = (runs / "site/INFO.OUT").read_text()
    total, entropic = (
        float(re.findall(rf"{label}\s+:\s+(\S+)", text)[-1])
        for label in ("total energy", "electron entropic")
    )
    assert entropic < 0  # part of a level is filled
    assert e["excited"] == pytest.approx((total - entropic) * HARTREE_EV, abs=1e-4)
    assert e["ground"] == pytest.approx(ground(runs / "ground").total_energy_eV)
    # a cubic crystal has no favourite direction, though its k points are one corner of the zone
    assert result.sticks.strengths[:, 0] == pytest.approx(result.sticks.strengths[:, 1], abs=1e-9)
    assert result.sticks.strengths[:, 0] == pytest.approx(result.sticks.strengths[:, 2], abs=1e-9)


def test_a_site_without_a_hole(runs: Path) -> None:
    """Its energies are differences of levels, and its cell is the ground state's."""
    result = site(runs / "plain")
    lowest = read_levels(runs / "plain/spectrum").energies_Ha[:, 5].min()  # 1s and four valence levels below
    core = read_core_level_Ha(runs / "plain")
    assert result.excitation_energy_eV == pytest.approx((lowest - core) * HARTREE_EV)
    assert result.scale.startswith("no hole")
    assert result.energies_eV == {"ground": pytest.approx(ground(runs / "ground").total_energy_eV, abs=1e-3)}
    # the hole pulls strength to the edge of the spectrum, and narrows 1s
    assert result.sticks.isotropic.sum() > site(runs / "site").sticks.isotropic.sum()


def test_the_core_level_of_the_absorber_feels_the_hole(runs: Path) -> None:
    assert read_core_level_Ha(runs / "site") < read_core_level_Ha(runs / "ground") - 1.0
    text = (runs / "site/INFO.OUT").read_text()
    assert re.search(r"Total core charge\s+:\s+3\.0000", text)
    assert re.search(r"Total valence charge\s+:\s+9\.0000", text)


def test_the_local_orbital_is_the_core_level(runs: Path) -> None:
    core = read_core_level_Ha(runs / "site")
    orbital = read_levels(runs / "site/spectrum").energies_Ha[:, 0]
    assert orbital == pytest.approx(core, abs=1e-3)


def levels_of(energies: list[list[float]], occupations: list[list[float]], weights: list[float]) -> Levels:
    return Levels(np.zeros((len(weights), 3)), np.array(weights), np.array(energies), np.array(occupations))


def test_how_far_the_excited_electron_fills_its_band() -> None:
    """Two k points, the electron on both: on average 0.05 above the lowest level."""
    found = levels_of([[-1.0, 0.2, 0.5], [-1.0, 0.3, 0.6]], [[2.0, 1.0, 0.0], [2.0, 1.0, 0.0]], [0.5, 0.5])
    assert filling_Ha(found, 1) == pytest.approx(0.05)
    with pytest.raises(OutputError, match="a metal"):
        filling_Ha(levels_of([[-1.0, 0.2]], [[1.5, 1.5]], [1.0]), 1)


def test_dipoles_follow_from_momenta() -> None:
    """One k point, 1s at -10, a valence level, two final states; a twofold axis along z and its square."""
    found = levels_of([[-10.0, -0.5, 0.5, 1.0]], [[2, 2, 0, 0]], [1.0])
    momenta = np.zeros((1, 4, 3), dtype=complex)
    momenta[0, 2] = [0.1j, 0.2, 0.0]
    momenta[0, 3] = [0.0, 0.0, 0.3 + 0.4j]
    rotations = np.array([np.eye(3), [[0, -1, 0], [1, 0, 0], [0, 0, 1]]], dtype=float)
    above, squares, reach = final_states(found, momenta, np.array([0]), rotations, occupied=1)
    assert above == pytest.approx([0.0, 0.5 * HARTREE_EV])
    assert reach == pytest.approx(0.5 * HARTREE_EV)
    average = (0.01 + 0.04) / 2 / 10.5**2
    assert squares[0] == pytest.approx([average, average, 0.0])
    assert squares[1] == pytest.approx([0.0, 0.0, 0.25 / 11.0**2])


def test_momenta_are_read_as_elk_writes_them(tmp_path: Path) -> None:
    """Records of k point, number of levels and <i|p_a|j>, i fastest, without marks between."""
    p = np.arange(2 * 3 * 2 * 2).reshape(2, 3, 2, 2) * (1 + 2j)  # k, axis, j, i
    records = [struct.pack("<3di", k / 4, 0, 0, 2) + p[k].astype("<c16").tobytes() for k in range(2)]
    (tmp_path / "PMAT.OUT").write_bytes(b"".join(records))
    points, momenta = read_momenta(tmp_path, 2, [0, 1])
    assert points[:, 0] == pytest.approx([0, 0.25])
    for k, chosen in enumerate((0, 1)):
        for i in range(2):
            assert momenta[k, i] == pytest.approx(p[k, :, chosen, i])
    (tmp_path / "PMAT.OUT").write_bytes(b"".join(records)[:-16])
    with pytest.raises(OutputError, match="another size"):
        read_momenta(tmp_path, 2, [0, 1])


@pytest.mark.parametrize(
    ("name", "cause", "message"),
    [
        ("unconverged", Cause.SCF_UNCONVERGED, "did not converge in 3 iterations"),
        ("killed-in-scf", Cause.ENGINE_CRASH, "without a word"),
        ("killed-in-spectrum", Cause.ENGINE_CRASH, "without a word"),
        ("refused", Cause.BAD_INPUT, "refuses the input: readinput: invalid block name : rgkmx"),
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
        ("elk.out", "Elk code stopped", "", Cause.ENGINE_CRASH, "before its end"),
        ("elk.out", "Elk code stopped", "Error(rdirac): no", Cause.ENGINE_CRASH, "Elk stopped: rdirac: no"),
        ("elk.out", "Elk code", "Error allocating 9 bytes\nElk code", Cause.OUT_OF_MEMORY, "allocating"),
        (
            "elk.out",
            "Elk code",
            "Info(checkmt): reduced muffin-tin radius of species 1\nElk code",
            Cause.BAD_OUTPUT,
            "not do as it was told: Info.checkmt",
        ),
        ("INFO.OUT", " stopped |", " paused  |", Cause.BAD_OUTPUT, "INFO.OUT ends before its end"),
        ("INFO.OUT", "Total core charge       :    3.0", "Total core charge       :    4.0", Cause.BAD_OUTPUT,
         "Elk had 12 protons, 4 core electrons"),
        ("EVALCORE.OUT", "n =  1", "n =  2", Cause.BAD_OUTPUT, "no 1s level"),
        ("KPOINTS.OUT", "0.5000000000", "0.2500000000", Cause.BAD_OUTPUT, "other k points"),
        ("spectrum/elk.out", "Elk code stopped", "", Cause.ENGINE_CRASH, "before its end"),
        ("spectrum/SYMCRYS.OUT", ": nsymcrys", ": nosymcrys", Cause.BAD_OUTPUT, "SYMCRYS.OUT is cut short"),
        ("transitions.json", '"key": "', '"key": "0', Cause.BAD_OUTPUT, "belongs to calculation"),
        ("outcome.json", '"ground": ', '"grund": ', Cause.BAD_OUTPUT, "no energy of the ground state"),
        ("outcome.json", '"status"', '"extraction": "PMAT.OUT is odd", "status"', Cause.BAD_OUTPUT, "is odd"),
    ],
)  # fmt: skip
def test_damaged_files_are_no_results(
    copied: Copy, name: str, old: str, new: str, cause: Cause, message: str
) -> None:
    folder = copied("site")
    edit(folder, name, old, new)
    with pytest.raises(EngineFailure, match=message) as caught:
        site(folder)
    assert caught.value.cause is cause


def test_silence_about_convergence_is_unknown(copied: Copy) -> None:
    folder = copied("site")
    edit(folder, "INFO.OUT", "Convergence targets achieved", "Convergence targets hoped for")
    assert site(folder).convergence is Convergence.UNKNOWN
    rejection = inspect(site(folder), GateLimits(), element="C", edge="K")
    assert rejection is not None
    assert rejection.cause is Cause.SCF_UNCONVERGED


def test_a_spectrum_in_another_potential_is_refused(copied: Copy) -> None:
    folder = copied("site")
    lines = (folder / "spectrum/EIGVAL.OUT").read_text().splitlines(keepends=True)
    row = lines[10].split()
    lines[10] = f"  {row[0]}  {float(row[1]) + 0.01:.10f}  {row[2]}\n"
    (folder / "spectrum/EIGVAL.OUT").write_text("".join(lines))
    with pytest.raises(EngineFailure, match="off those of self-consistency"):
        site(folder)


def test_a_level_that_is_not_1s_is_refused(copied: Copy) -> None:
    folder = copied("site")
    document = json.loads((folder / "transitions.json").read_text())
    document["core"] = [1 for _ in document["core"]]
    (folder / "transitions.json").write_text(json.dumps(document))
    with pytest.raises(EngineFailure, match="the 1s level is at"):
        site(folder)


def test_ground_files_of_other_levels(copied: Copy) -> None:
    folder = copied("ground")
    path = folder / "bands/BAND_S01_A0002.OUT"
    whole = path.read_text()
    path.write_text("\n".join(whole.splitlines()[: -len(whole.splitlines()) // 2]) + "\n")
    with pytest.raises(EngineFailure, match=r"BAND_S01_A0002.OUT") as caught:
        ground(folder)
    assert caught.value.cause is Cause.BAD_OUTPUT
    with pytest.raises(OutputError, match="no BAND_S02_A0001"):
        read_characters(folder / "bands", [1, 1], 3)


def test_equivalent_atoms(runs: Path, tmp_path: Path) -> None:
    assert read_equivalent(runs / "ground", [2]) == [[0, 1], [0, 1]]
    (tmp_path / "EQATOMS.OUT").write_text(
        "\nSpecies :    1 (O)\n atom    1 is equivalent to atom(s)\n   1\n"
        "\nSpecies :    2 (Mg)\n atom    1 is equivalent to atom(s)\n   1   3\n"
        " atom    2 is equivalent to atom(s)\n   2\n atom    3 is equivalent to atom(s)\n   1   3\n"
    )
    assert read_equivalent(tmp_path, [1, 3]) == [[0], [1, 3], [2], [1, 3]]
    with pytest.raises(OutputError, match="other atoms"):
        read_equivalent(tmp_path, [1, 4])


def test_rotations_are_of_the_cell(runs: Path) -> None:
    folder = runs / "site/spectrum"
    cell = read_job(runs / "site").structure.cell_A
    assert cell is not None
    rotations = read_rotations(folder, cell)
    assert len(rotations) == 24
    assert np.abs(np.linalg.det(rotations)) == pytest.approx(1.0)
    with pytest.raises(OutputError, match="none of this cell"):
        read_rotations(folder, np.diag([1.0, 2.0, 3.0]))


def test_what_elk_says(runs: Path) -> None:
    assert refusal("all well") is None
    assert refusal("\nError(init1): too many\n") == ("init1", "too many")
    early = "\nWarning(linengy): could not find   1 linearisation energies in s.c. loop     2\n"
    assert trouble(early, 20) is None
    assert "linengy" in str(trouble(early, 2))
    late = "\nWarning(occupy): not enough empty states for k-point      1\n and s.c. loop    20\n"
    assert "not enough empty states" in str(trouble(early + late, 20))
    low = (
        "\nWarning(occupy): minimum eigenvalue less than minimum linearisation energy :  -4.2  -2.3\n"
        " for s.c. loop    20\n"
    )
    assert "minimum eigenvalue" in str(trouble(low, 20))
