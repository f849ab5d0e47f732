from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from htxas.domain.calculation import Convergence
from htxas.domain.strength import bare_atom_density
from htxas.domain.units import BOHR_A, HARTREE_EV
from htxas.engines.vasp.outcar import OutputError, complaint, read_log, read_table
from htxas.engines.vasp.potcar import read_header
from htxas.engines.vasp.spectrum import absorption, strength_per_eV
from htxas.engines.vasp.vasprun import read_run
from tests.engines.vasp.fake_vasp import BOX
from tests.engines.vasp.synthetic import potcar

RUNS = Path(__file__).parent / "runs"
SITE = (RUNS / "site" / "OUTCAR").read_text()


def test_published_numbers_of_vasp_have_the_strength_of_an_oxygen() -> None:
    """VASP 6.2.1, one oxygen in a cell of Pt with vacuum, 5 to 10 eV above its onset (VASP forum, topic of post 20587).

    A factor of two, as one spin or half the charge would make it, is not between these numbers and the bare atom's.
    """
    cell_A3 = 11.22109731 * 9.71775533 * 25.2
    rows = np.array([[9.6176e-6, 9.741858e-6, 5.636892e-6], [9.747511e-6, 9.727933e-6, 5.659724e-6]])
    found = strength_per_eV(np.array([523.041, 523.074]), rows, cell_A3 / BOHR_A**3)
    bare = bare_atom_density("O", "K", np.array([8.0]))
    assert bare is not None
    assert found.mean() / bare[0] == pytest.approx(1.33, abs=0.03)


def test_a_dielectric_function_gathers_the_electrons_that_made_it() -> None:
    volume, strength, place = 900.0, 0.3, 530.0
    energies = np.linspace(520, 540, 4001)
    line = np.exp(-(((energies - place) / 0.2) ** 2)) / (0.2 * np.sqrt(np.pi))
    # 4 pi^2 / V times both spins times |r|^2, a line per Hartree; f = 2 n_e E |r|^2 with n_e = 2
    squared = strength / (4 * place / HARTREE_EV)
    imaginary = 8 * np.pi**2 / volume * squared * line * HARTREE_EV
    found = strength_per_eV(energies, imaginary[:, None] * np.ones(3), volume)
    assert np.trapezoid(found, energies, axis=0) == pytest.approx(strength, rel=1e-3)


def test_the_course_of_a_run() -> None:
    whole = read_log(SITE)
    assert (whole.version, whole.release, whole.finished, whole.iterations) == ("6.4.2", (6, 4), True, 12)
    assert whole.convergence is Convergence.CONVERGED
    assert read_log(SITE[:-60]).finished is False
    assert read_log((RUNS / "unconverged" / "OUTCAR").read_text()).convergence is Convergence.UNCONVERGED
    older = re.sub(r"-+ aborting loop.*\n", "", SITE)  # VASP 5 says nothing after the limit
    assert read_log(older).convergence is Convergence.UNKNOWN
    assert (
        read_log(older.replace("NELM   =    100", "NELM   =     12")).convergence is Convergence.UNCONVERGED
    )
    assert read_log("").release == (0, 0)


ADVICE = BOX.replace(
    "EEEEEEE  RRRRRR   RRRRRR   OOOOOOO  RRRRRR ", "W    W    AA    RRRRR   N    N  II  N    N"
)


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        (BOX, "The number of species in POSCAR and POTCAR differ"),
        (ADVICE.replace("species", "cores") + BOX, "The number of species in POSCAR and POTCAR differ"),
        (" Error reading item 'ENCUT' from file INCAR.\n", "Error reading item 'ENCUT'"),
        (" VERY BAD NEWS! internal error in subroutine IBZKPT:\n Reciprocal lattice", "subroutine IBZKPT"),
        ("forrtl: severe (174): SIGSEGV, segmentation fault occurred\n", "SIGSEGV"),
        (ADVICE.replace("I REFUSE TO CONTINUE WITH THIS SICK JOB", "you should set NCORE"), ""),
        (" running    1 mpi-ranks\n DAV:   1    -0.3E+02   -0.1E+02\n", ""),
    ],
)
def test_what_vasp_says_when_it_stops(printed: str, words: str) -> None:
    found = complaint(" running    1 mpi-ranks\n" + printed)
    assert words in found
    assert bool(words) == bool(found)


@pytest.mark.parametrize(
    ("pattern", "change", "words"),
    [
        (r"  frequency dependent IMAGINARY", "  another IMAGINARY", "0 tables"),
        (
            r"\n General timing",
            "\n  frequency dependent IMAGINARY DIELECTRIC FUNCTION (x)\n General timing",
            "2 tables",
        ),
        (r"E\(ev\) ", "E(Ha) ", "another heading"),
        (r"\n  526\.5\S+ ", "\n  ************ ", "cannot be read"),
        (r"\n  526\.5\S+ ", "\n  526.5 NaN ", "seven numbers|cannot be read"),
        (r"\n  526\.5.*(?=\n)", "", "not evenly spaced"),
        (r"\n\n General[\s\S]*", "", "cut short"),
    ],
)
def test_a_table_that_is_none(pattern: str, change: str, words: str) -> None:
    text, count = re.subn(pattern, change, SITE, count=1)
    assert count == 1
    with pytest.raises(OutputError, match=words):
        read_table(text)


def test_doubts_of_a_spectrum() -> None:
    energies, table = read_table(SITE)
    more = {"volume_a03": 250.0, "element": "O", "edge": "K", "complete_eV": 26.0, "window_eV": 30.0}
    found = absorption(energies, table, broadening_eV=0.1, **more)
    assert found.doubts == ()
    assert found.curve.energies_eV[-1] == pytest.approx(found.threshold_eV + 25.0, abs=0.1)
    short = absorption(energies, table, broadening_eV=0.1, **{**more, "window_eV": 12.0})
    assert short.curve.energies_eV[-1] == pytest.approx(short.threshold_eV + 12.0, abs=0.1)
    (coarse,) = absorption(energies[::3], table[::3], broadening_eV=0.1, **more).doubts
    assert "more points" in coarse
    inside = int(np.argmax(table[:, 0]))
    (cut,) = absorption(energies[inside:], table[inside:], broadening_eV=0.1, **more).doubts
    assert "begins inside the spectrum" in cut


def test_levels_that_are_out_of_order_were_never_found(tmp_path: Path) -> None:
    text = (RUNS / "site" / "vasprun.xml").read_text()
    rows = re.findall(r"<r> +\S+ +0\.0000 </r>", text)
    (tmp_path / "vasprun.xml").write_text(text.replace(rows[3], "<r>   62.4575    0.0000 </r>"))
    with pytest.raises(OutputError, match="out of order"):
        read_run(tmp_path / "vasprun.xml", projected=False)


def test_projections_with_all_m_are_added_up(tmp_path: Path) -> None:
    text = (RUNS / "ground" / "vasprun.xml").read_text()
    summed = read_run(RUNS / "ground" / "vasprun.xml", projected=True).projections
    head, body = text.split('<set comment="spin1">')

    def nine(row: re.Match[str]) -> str:
        s, p, d, _ = row[1].split()
        return "<r>" + " ".join([s, p, "0", "0", d, "0", "0", "0", "0"]) + "</r>"

    (tmp_path / "vasprun.xml").write_text(
        head + '<set comment="spin1">' + re.sub(r"<r>(.*?)</r>", nine, body)
    )
    found = read_run(tmp_path / "vasprun.xml", projected=True).projections
    assert summed is not None
    assert found is not None
    assert np.array_equal(found, summed[..., :3])


def test_a_potcar_says_what_it_is() -> None:
    text = potcar("O_GW", "O")
    header = read_header(text)
    assert (header.titel, header.element, header.electrons, header.cutoff_eV) == (
        "PAW_PBE O_GW 01Jan2000",
        "O",
        6.0,
        400.0,
    )
    for broken, words in ((text[:-20], "cut short"), (text + text, "2 lines TITEL"), ("", "0 lines TITEL")):
        with pytest.raises(ValueError, match=words):
            read_header(broken)
