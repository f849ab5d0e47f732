from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from htxas.domain.calculation import Convergence
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import CurveResult
from htxas.engines.base import read_job
from htxas.engines.feff.engine import ENGINE
from htxas.engines.feff.log import read_log
from htxas.engines.feff.xmu import XmuError, read_xmu
from htxas.errors import Cause, EngineFailure


def read(folder: Path) -> CurveResult:
    result = ENGINE.read(read_job(folder), folder)
    assert isinstance(result, CurveResult)
    return result


def test_a_good_run(runs: Path) -> None:
    result = read(runs / "methane")
    assert result.convergence is Convergence.CONVERGED
    assert result.edge_eV == pytest.approx(275.7314, abs=1e-3)
    assert result.fermi_eV == -6.98
    assert result.lifetime_eV == 0.08676
    assert result.curve.intensity.shape == (81, 3)
    first = (runs / "methane/xmu.dat").read_text().split("chi     @#")[1].split()[:6]
    assert [result.curve.energies_eV[0], result.curve.isotropic[0], result.background[0]] == pytest.approx(
        [float(first[i]) for i in (0, 3, 4)], rel=1e-12
    )
    assert "extrapolated by FEFF from 30 eV (xsedge+50 = 8.1970e-03)" in result.normalisation
    assert "not aligned" in result.scale
    assert result.provenance.extra["charges"] == {"0": 0.173, "1": -0.043}
    assert result.provenance.engine_version == "10.0.0"


def test_densities_of_states(runs: Path) -> None:
    result = read(runs / "carbon-dioxide")
    dos = result.dos
    assert dos is not None
    assert dos.kinds == ("C*", "O")
    assert dos.density.shape == (2, 101, 4)
    lines = (runs / "carbon-dioxide/ldos01.dat").read_text().splitlines()
    row = next(x for x in lines if x.startswith("   -20.0000"))
    place = np.abs(dos.energies_eV - (-20.0 - result.fermi_eV)).argmin()
    assert dos.energies_eV[place] == pytest.approx(-20.0 - result.fermi_eV)
    assert dos.density[1, place] == pytest.approx([float(x) for x in row.split()[1:]])
    assert dos.charges.tolist() == [0.35, -0.175]
    assert dos.broadening_eV == 0.2


def test_densities_of_states_that_hold_too_many_electrons_are_refused(runs: Path) -> None:
    """FEFF's own, of a molecule with hydrogen: its potentials are those of other distances."""
    rejection = inspect(read(runs / "methane-ldos"), GateLimits(), element="C", edge="K")
    assert rejection is not None
    assert "density of states of C* holds 13.1 electrons, FEFF counts 4.2" in rejection.message


def test_three_polarisations_are_columns(runs: Path) -> None:
    result = read(runs / "ethylene-xyz")
    assert result.convergence is Convergence.CONVERGED  # of the potentials, which are made once
    x, y, z = result.curve.intensity.T
    near = np.abs(result.curve.energies_eV - result.edge_eV - 2.5).argmin()
    assert x[:near].max() > 3 * max(y[:near].max(), z[:near].max())  # pi* is seen across the plane (y, z)


def test_energy_loss(runs: Path) -> None:
    result = read(runs / "elnes")
    table = [line.split() for line in (runs / "elnes/eels.dat").read_text().splitlines() if line[0] != "#"]
    norm = float(result.normalisation.partition("(")[2].split()[0])
    assert result.curve.isotropic * norm == pytest.approx([float(row[1]) for row in table], rel=1e-4)
    assert "30 eV above the edge" in result.normalisation


def test_without_self_consistency_nothing_has_to_converge(runs: Path) -> None:
    assert read(runs / "overlapped").convergence is Convergence.CONVERGED


@pytest.mark.parametrize(
    ("name", "cause", "message"),
    [
        ("unconverged", Cause.SCF_UNCONVERGED, "did not converge"),
        ("killed-in-pot", Cause.ENGINE_CRASH, "ended in pot"),
        ("killed-in-fms", Cause.ENGINE_CRASH, "ended in fms"),
        ("refused", Cause.BAD_INPUT, "No atoms or overlap cards for unique pot"),
        ("bad-word", Cause.BAD_INPUT, "bad line follows: SCF abc"),
    ],
)
def test_runs_that_failed(runs: Path, name: str, cause: Cause, message: str) -> None:
    with pytest.raises(EngineFailure, match=message) as caught:
        read(runs / name)
    assert caught.value.cause is cause
    assert caught.value.evidence["log_tail"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-40], "last line is cut short"),
        (lambda text: text.partition("chi     @#")[0] + "chi     @#\n", "holds no points"),
        (lambda _: "", "holds no points"),
        (lambda text: text.replace("Mu=", "mu "), "header is not FEFF's"),
        (lambda text: text.rsplit(None, 1)[0] + "\n", "6 columns"),
        (lambda text: text.replace("2.3", "****", 1), "no number"),
    ],
)
def test_a_damaged_spectrum_is_none(
    copied: Callable[[str], Path], change: Callable[[str], str], message: str
) -> None:
    folder = copied("methane")
    path = folder / "xmu.dat"
    path.write_text(change(path.read_text()))
    with pytest.raises(EngineFailure, match=message) as caught:
        read(folder)
    assert caught.value.cause is Cause.BAD_OUTPUT


def test_numbers_as_fortran_writes_them(runs: Path) -> None:
    text = (runs / "methane/xmu.dat").read_text()
    line = text.splitlines()[-1]
    tiny = line.replace(line.split()[-1], "1.2345678901-105")
    assert read_xmu(text.replace(line, tiny)).mu[-1] > 0
    with pytest.raises(XmuError, match="contradict"):
        read_xmu(text.replace(line, line.replace(line.split()[1], "99.0")))


def test_another_version_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("methane")
    for path in (folder / "feff.out", folder / "xmu.dat"):
        path.write_text(path.read_text().replace("FEFF 10.0.0", "FEFF 9.9.1"))
    with pytest.raises(EngineFailure, match=r"FEFF 9\.9\.1 ran, the calculation is one of FEFF 10") as caught:
        read(folder)
    assert caught.value.cause is Cause.BAD_INPUT


def test_densities_of_states_that_are_not_there(copied: Callable[[str], Path]) -> None:
    folder = copied("carbon-dioxide")
    (folder / "ldos01.dat").unlink()
    with pytest.raises(EngineFailure, match=r"ldos01\.dat"):
        read(folder)
    (folder / "ldos00.dat").unlink()
    with pytest.raises(EngineFailure, match=r"no ldos00\.dat"):
        read(folder)


# What FEFF 9 and 10 print in the middle of iterations, and what it means there.
BAD_COUNTS = " Found bad counts.\n  Occupation number in getorb is    10.000\n  Will repeat this iteration.\n"
NEGATIVE = "negative density   1  -12.345 - usually harmless precision error, but check DOS if it persists\n"


@pytest.mark.parametrize(("warning", "name"), [(BAD_COUNTS, "bad_counts"), (NEGATIVE, "negative_density")])
def test_warnings_count_only_in_the_last_iteration(runs: Path, warning: str, name: str) -> None:
    text = (runs / "methane/feff.out").read_text()
    head, mark, tail = text.rpartition("SCF ITERATION NUMBER")
    early = read_log(text.replace("SCF ITERATION NUMBER  1\n", f"SCF ITERATION NUMBER  1\n{warning}", 1))
    assert early.warnings == {name: 1}
    assert not early.doubts
    assert early.scf is Convergence.CONVERGED
    lines = tail.split("\n", 2)
    late = read_log(head + mark + "\n".join([*lines[:2], warning + lines[2]]))
    assert late.warnings == {name: 1}
    assert len(late.doubts) == 1


def test_what_is_doubtful_is_refused_by_the_gate(copied: Callable[[str], Path]) -> None:
    folder = copied("methane")
    path = folder / "feff.out"
    path.write_text(path.read_text().replace("Convergence reached", f"{NEGATIVE}Convergence reached"))
    rejection = inspect(read(folder), GateLimits(), element="C", edge="K")
    assert rejection is not None
    assert "density is negative in the last iteration" in rejection.message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "FMS for a cluster of    5 atoms around atom type",
            "FMS for a cluster of    3 atoms around atom type",
            "self",
        ),
        (
            "FMS for a cluster of    5 atoms\n",
            "FMS for a cluster of    1 atoms\n",
            "full multiple scattering",
        ),
    ],
)
def test_spheres_that_had_other_atoms_are_refused(
    copied: Callable[[str], Path], old: str, new: str, message: str
) -> None:
    """For the potentials FEFF moves hydrogens outwards: a sphere that ends at the last atom loses them, in silence."""
    folder = copied("methane")
    path = folder / "feff.out"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    rejection = inspect(read(folder), GateLimits(), element="C", edge="K")
    assert rejection is not None
    assert message in rejection.message
    assert "atoms, not the 5 within 3.279" in rejection.message


def test_repeated_bad_counts_are_no_convergence(runs: Path) -> None:
    text = (runs / "methane/feff.out").read_text()
    log = read_log(text.replace("Convergence reached", "Bad counts found repeatedly - pot will exit now.\n"))
    assert log.scf is Convergence.UNCONVERGED


def test_silence_about_convergence_is_unknown(copied: Callable[[str], Path]) -> None:
    folder = copied("methane")
    path = folder / "feff.out"
    path.write_text("".join(x for x in path.read_text().splitlines(True) if "Convergence" not in x))
    rejection = inspect(read(folder), GateLimits(), element="C", edge="K")
    assert rejection is not None
    assert rejection.cause is Cause.SCF_UNCONVERGED


def test_logs_of_modules_stand_in_for_what_was_printed(copied: Callable[[str], Path]) -> None:
    folder = copied("methane")
    (folder / "feff.out").rename(folder / "log1.dat")
    assert read(folder).convergence is Convergence.CONVERGED
