"""Readers of measured spectra: hand-written files, whole and broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from htxas.errors import UserError
from htxas.learn.serve.formats.measured import Intensity
from htxas.learn.serve.formats.read import read_spectrum

ENERGIES = [280.0 + 0.5 * i for i in range(12)]
VALUES = [0.1, 0.1, 0.2, 0.5, 1.57, 1.0, 0.8, 0.9, 1.1, 1.0, 0.9, 0.8]

XDI = """\
# XDI/1.0 htxas/1
# Column.1: energy eV
# Column.2: mutrans
# Element.symbol: C
# Element.edge: K
# Mono.d_spacing: 3.1355
# Scan.edge_energy: 0.2842 keV
# Sample.name: glucose
# ///
# measured on a Tuesday: windy
#----
# energy mutrans
"""
MSA = """\
#FORMAT      : EMSA/MAS Spectral Data File
#VERSION     : TC202v2.0
#TITLE       : carbon film
#NPOINTS     : 12.
#NCOLUMNS    : 5
#XUNITS      : Energy Loss (eV)
#YLABEL      : Counts
#DATATYPE    : Y
#XPERCHAN    : 0.5
#OFFSET      : 280.0
#SIGNALTYPE  : ELS
#BEAMKV   -kV: 120.0
##USER       : anything at all
#SPECTRUM    : Spectral Data Starts Here
"""
FEFF = """\
# glucose                                                        FEFF 10.0.0
# Abs   Z= 6 Rmt= 1.030 Rnm= 1.320 K  shell
# Gam_ch=8.676E-02 H-L exch Vi= 0.000E+00 Vr= 0.000E+00
# Mu=-5.789E+00eV kf=1.613E+00 Vint=-9.116E+00eV Rs_int= 2.248
#  xsedge+ 50, used to normalize mu           7.8422E-03
#  -----------------------------------------------------------------------
#  omega    e    k    mu    mu0     chi     @#
"""

COREX = """\
*********************  Core Excitation Data  ********************
* Name: glucose
* Edge: C 1s
* Acquisition Mode:EELS, 2 deg, 2500 eV CRE mode, 0.7 eV fwhm
*--------------------------------------------------------------
* No. of Spectra: 2    name1- 0gc.    name2- 0gc.os
*   E (eV)        Raw data             Osc. Str. per atom (E-2)
*--------------------------------------------------------------
"""


def _corex_rows(again: bool = False) -> str:
    rows = zip(ENERGIES, VALUES, strict=True)
    return "".join(f"  {e:.4E}, 7.1E+03, {f'{e:.4E}, ' if again else ''}{100 * v:.4E},\n" for e, v in rows)


def _pairs(separator: str = " ") -> str:
    return "".join(f"{e}{separator}{v}\n" for e, v in zip(ENERGIES, VALUES, strict=True))


def _in_keV(separator: str, end: str) -> str:
    return "".join(f"{e / 1000}{separator}{v}{end}" for e, v in zip(ENERGIES, VALUES, strict=True))


def _write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def _msa_numbers() -> str:
    rows = [VALUES[i : i + 5] for i in range(0, 12, 5)]
    return "".join(", ".join(map(str, r)) + "\n" for r in rows) + "#ENDOFDATA   :\n"


def _feff_rows() -> str:
    return "".join(
        f"  {e:.4f}  {e - 284.0 - 5.789:.4f}  0.1  {v:.4E}  1.0E+00  0.0E+00\n"
        for e, v in zip(ENERGIES, VALUES, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "energy_eV,mu\n" + _pairs(",")),
        ("b.csv", "Energy (eV);absorbance\n" + _pairs(";")),
        ("c.dat", "# Energy [eV]  signal\n" + _pairs()),
        ("d.txt", "# made by hand\n#\n# eV counts\n" + _pairs("\t")),
        ("e.csv", "\ufeffenergy_keV , mu,\r\n" + _in_keV(" , ", ",\r\n")),
        ("f.xdi", XDI + _pairs()),
        ("g.msa", MSA + _msa_numbers()),
        ("h.msa", MSA.replace(": Y\n", ": XY\n").replace("(eV)", "(keV)") + _in_keV(", ", "\n")),
        ("xmu.dat", FEFF + _feff_rows()),
        ("i.os", COREX + _corex_rows()),
        ("j.txt", COREX + "      x      1y      2y\n" + _corex_rows(again=True).replace(",", "\t")),
    ],
)  # fmt: skip
def test_every_format_gives_the_same_spectrum(name: str, text: str, tmp_path: Path) -> None:
    found = read_spectrum(_write(tmp_path / name, text))
    assert found.energies_eV == pytest.approx(ENERGIES)
    assert found.intensity == pytest.approx(VALUES, rel=1e-4)


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    xdi = read_spectrum(_write(tmp_path / "f.xdi", XDI + _pairs()))
    assert (xdi.format, xdi.element, xdi.edge, xdi.edge_eV) == ("XDI", "C", "K", pytest.approx(284.2))
    assert (xdi.scale, xdi.column, xdi.told["sample.name"]) == (Intensity.ARBITRARY, "mutrans", "glucose")
    msa = read_spectrum(_write(tmp_path / "g.msa", MSA + _msa_numbers()))
    assert (msa.format, msa.element, msa.column, msa.told["title"]) == (
        "EMSA/MAS", None, "Counts", "carbon film",
    )  # fmt: skip
    feff = read_spectrum(_write(tmp_path / "xmu.dat", FEFF + _feff_rows()))
    assert (feff.element, feff.edge, feff.scale) == ("C", "K", Intensity.NORMALISED)
    assert feff.edge_eV == pytest.approx(284.0)
    assert feff.told["version"] == "FEFF 10.0.0"
    corex = read_spectrum(_write(tmp_path / "i.os", COREX + _corex_rows()))
    assert (corex.element, corex.edge, corex.scale) == ("C", "K", Intensity.STRENGTH)
    assert corex.told == {"name": "glucose", "mode": "EELS, 2 deg, 2500 eV CRE mode, 0.7 eV fwhm"}
    oxygen = read_spectrum(_write(tmp_path / "k.os", COREX.replace("C 1s", "O1s") + _corex_rows()))
    assert (oxygen.element, oxygen.edge) == ("O", "K")
    sulphur = read_spectrum(_write(tmp_path / "l.os", COREX.replace("C 1s", "S 2p") + _corex_rows()))
    assert (sulphur.element, sulphur.edge) == ("S", "2p")  # no model of K edges takes it


def test_absorption_is_made_of_detectors_as_the_dictionary_names_them(tmp_path: Path) -> None:
    head = XDI.replace(
        "# Column.2: mutrans", "# Column.2: i0\n# Column.3: itrans\n# Column.4: ifluor"
    ).replace("# energy mutrans", "# energy i0 itrans ifluor")
    rows = "".join(f"{e} 2.0 {2.0 * np.exp(-v):.9f} {4 * v}\n" for e, v in zip(ENERGIES, VALUES, strict=True))
    path = _write(tmp_path / "d.xdi", head + rows)
    found = read_spectrum(path)
    assert found.column == "ln(i0/itrans)"
    assert found.intensity == pytest.approx(VALUES, rel=1e-6)
    assert read_spectrum(path, column="ifluor").intensity == pytest.approx(4 * np.array(VALUES))
    fluorescence = _write(tmp_path / "e.xdi", (head + rows).replace("itrans", "irefer"))
    assert read_spectrum(fluorescence).intensity == pytest.approx(2 * np.array(VALUES))
    with pytest.raises(UserError, match=r"d.xdi: there is no column 'mu', only i0 itrans ifluor"):
        read_spectrum(path, column="mu")
    dead = _write(tmp_path / "dead.xdi", (head + rows).replace("282.0 2.0", "282.0 0.0"))
    with pytest.raises(UserError, match=r"dead.xdi:19: detector counts must be above zero"):
        read_spectrum(dead)


def test_the_column_may_be_chosen_in_a_table(tmp_path: Path) -> None:
    rows = "".join(f"{e},{v},{9 * v}\n" for e, v in zip(ENERGIES, VALUES, strict=True))
    named = _write(tmp_path / "t.csv", "energy_eV,left,right\n" + rows)
    with pytest.raises(UserError, match=r"t.csv:1: which column is the intensity\? energy_eV left right"):
        read_spectrum(named)
    assert read_spectrum(named, column="right").intensity[0] == pytest.approx(0.9)
    plain = _write(tmp_path / "p.csv", rows)
    assert read_spectrum(plain, column="3", energy_unit="eV").intensity[0] == pytest.approx(0.9)
    strength = _write(tmp_path / "f.csv", "energy_eV,f_x,f_per_eV\n" + rows)
    assert read_spectrum(strength).scale is Intensity.STRENGTH
    for column, words in [("9", "there is no column '9'"), ("1", "column '1' is the energy")]:
        with pytest.raises(UserError, match=words):
            read_spectrum(plain, column=column, energy_unit="eV")


def _without(text: str, line: str) -> str:
    assert line in text
    return text.replace(line, "")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", _pairs(","), "a.csv: the unit of the energies is not stated .*--energy-unit eV"),
        ("a.csv", "energy,mu\n" + _pairs(","), "a.csv:1: the unit of the energies is not stated"),
        ("a.csv", "angle,mu\n" + _pairs(","), "a.csv:1: no column is an energy, only angle mu"),
        ("a.csv", "energy_eV,mu\n" + _pairs(",").replace("1.57", "oops"), "a.csv:6: 'oops' is not a number"),
        ("a.csv", "energy_eV,mu\n" + _pairs(",").replace("1.57", "nan"), "a.csv:6: 'nan' is not a finite"),
        ("a.csv", "energy_eV;mu\n" + _pairs(";").replace("1.57", "1,57"), "a.csv:6: '1,57' .*with a point"),
        ("a.csv", "energy_eV,mu\n" + _pairs(",").replace(",1.57", ""), "a.csv:6: 1 columns, not 2"),
        ("a.csv", "energy_eV,mu\n" + _pairs(",").replace("282.0", "281.5"), "a.csv:6: energies must ascend"),
        ("a.csv", "energy_eV,mu\n280,1\n", "a.csv: 1 points; a spectrum needs at least 10"),
        ("a.csv", "energy_eV,mu\n", "a.csv: holds no points"),
        ("a.csv", "x\x00y", "a.csv: is not a text file"),
        ("f.xdi", _pairs(), "f.xdi:1: the first line must be '# XDI/1.0'"),
        ("f.xdi", _without(XDI, "# Column.1: energy eV\n") + _pairs(), "f.xdi: the unit of|f.xdi:1: the unit of"),
        ("f.xdi", XDI.replace("energy eV", "angle degrees") + _pairs(), "f.xdi:2: the first column is angle"),
        ("f.xdi", XDI.replace("energy eV", "energy pixel") + _pairs(), "f.xdi:2: energies in 'pixel'"),
        ("f.xdi", XDI.replace("symbol: C", "symbol: Cq") + _pairs(), "f.xdi:4: no element is called 'Cq'"),
        ("f.xdi", XDI.replace("mutrans", "murefer") + _pairs(), "f.xdi: no column is an absorption"),
        ("f.xdi", XDI.replace("# energy mutrans", "# energy mutrans i0") + _pairs(), "f.xdi:12: 3 column labels"),
        ("f.xdi", XDI.replace("# Element.edge: K", "# Element edge K") + _pairs(), "f.xdi:5: 'Element edge K'"),
        ("f.xdi", XDI + _pairs().replace("1.57", "1.2.3"), "f.xdi:17: '1.2.3' is not a number"),
        ("f.xdi", XDI + _pairs().replace(" 1.57", ""), "f.xdi:17: 1 columns, not 2"),
        ("f.xdi", XDI, "f.xdi: holds no points"),
        ("g.msa", _msa_numbers(), "g.msa:1: the first line must be"),
        ("g.msa", MSA.replace(": 12.", ": 13") + _msa_numbers(), "g.msa:4: #NPOINTS says 13 points, the file has 12"),
        ("g.msa", _without(MSA, "#XPERCHAN    : 0.5\n") + _msa_numbers(), "g.msa: #XPERCHAN is missing"),
        ("g.msa", _without(MSA, "#XUNITS      : Energy Loss (eV)\n") + _msa_numbers(), "unit of the energies"),
        ("g.msa", MSA.replace(": ELS", ": EDS") + _msa_numbers(), "g.msa:11: #SIGNALTYPE EDS is no energy-loss"),
        ("g.msa", MSA.replace(": Y\n", ": Z\n") + _msa_numbers(), "g.msa:8: #DATATYPE is Y or XY, not 'Z'"),
        ("g.msa", MSA + _msa_numbers().replace("1.57", "1.5e"), "g.msa:15: '1.5e' is not a number"),
        ("g.msa", MSA.replace("#SPECTRUM    : Spectral Data Starts Here\n", "") + _msa_numbers(), "before #SPECTRUM"),
        ("xmu.dat", FEFF + _feff_rows().replace("1.5700E+00", "**********"), r"xmu.dat:12: '\*+' is not a number"),
        ("xmu.dat", FEFF + _feff_rows().replace("  1.5700E+00", ""), "xmu.dat:12: 5 columns, not 6"),
        ("i.os", COREX.replace("Osc. Str. per atom (E-2)", "Mass Abs. Coeff.") + _corex_rows(), "no column 'Osc. Str"),
        ("i.os", COREX, "i.os: holds no points after 'Osc. Str. per atom"),
        ("i.os", COREX + _corex_rows().replace("7.1E+03, 1.57", "1.57"), "i.os:13: 2 columns, not 3"),
        ("i.os", COREX + _corex_rows().replace("2.8200E+02", "2.8150E+02"), "i.os:13: energies must ascend"),
        ("i.os", COREX + _corex_rows().replace("2.8200E+02", "here"), "i.os:13: 'here' is not a number"),
        ("xmu.dat", _without(FEFF, FEFF.splitlines()[3] + "\n") + _feff_rows(), "its header is not FEFF's"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_line_with_its_place(name: str, text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_spectrum(_write(tmp_path / name, text))
    assert "\n" not in str(caught.value)


def test_units_that_contradict_each_other_and_columns_where_there_are_none(tmp_path: Path) -> None:
    table = _write(tmp_path / "a.csv", "energy_eV,mu\n" + _pairs(","))
    with pytest.raises(UserError, match="energies are in eV, not keV"):
        read_spectrum(table, energy_unit="keV")
    for name, text in (("i.os", COREX + _corex_rows()), ("xmu.dat", FEFF + _feff_rows())):
        with pytest.raises(UserError, match="energies are in eV, not keV"):
            read_spectrum(_write(tmp_path / name, text), energy_unit="keV")
    with pytest.raises(UserError, match="this file has one intensity"):
        read_spectrum(_write(tmp_path / "g.msa", MSA + _msa_numbers()), column="mu")
    with pytest.raises(UserError, match="no such file"):
        read_spectrum(tmp_path / "none.csv")


def test_headers_may_hold_any_letters(tmp_path: Path) -> None:
    found = read_spectrum(_write(tmp_path / "f.xdi", XDI.replace("glucose", "Zürich") + _pairs(), "latin-1"))
    assert found.intensity == pytest.approx(VALUES)
