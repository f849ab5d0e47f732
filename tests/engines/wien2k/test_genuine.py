"""Genuine files of WIEN2k, of runs of others that lie beside the checkout: read, and changed as ours would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from htxas.engines.wien2k.inputs import (
    InputError,
    electrons,
    hole_occupation,
    mesh_of,
    with_bands_to,
    with_electrons,
    with_hole,
    with_mixing,
)
from htxas.engines.wien2k.scf import OutputError, read_bands, read_scf
from htxas.engines.wien2k.spectrum import read_txspec
from htxas.engines.wien2k.structure import StructError, guess_spheres, lay_out, read_struct, write_struct

FILES = Path(__file__).parents[4] / "shared" / "fixtures" / "wien2k_scf"
genuine = pytest.mark.skipif(not FILES.is_dir(), reason="needs genuine files beside the checkout")


def text(name: str) -> str:
    return (FILES / name).read_text()


@genuine
def test_structures() -> None:
    from ase.io.wien2k import read_struct as ase_struct

    for name, title, lattice, atoms, first in (
        ("case.struct", "blebleble", "P", 48, "Ge1"),
        ("other.struct", "graphene", "H", 49, "C 1"),
    ):
        found = read_struct(text(name))
        assert (found.title, found.lattice, len(found), found.names[0]) == (title, lattice, atoms, first)
        there = ase_struct(str(FILES / name))
        assert len(there) == atoms
        assert np.allclose(
            found.positions[0], there.get_scaled_positions()[: len(found.positions[0])], atol=1e-6
        )
        with pytest.raises(StructError):
            read_struct(text(name)[:3000])


@genuine
def test_ours_has_the_same_columns() -> None:
    from htxas.domain.structure import Structure
    from htxas.engines.cells import Mesh, Supercell

    structure = Structure.from_atoms(["C", "O"], [[0, 0, 0], [0, 0, 2.0]], np.eye(3) * 4)[0]
    layout = lay_out(structure, 1, Supercell(repeats=(1, 1, 2)), Mesh(divisions=(2, 2, 2)))
    ours = write_struct("t", layout.hole, split=True, spheres_a0=guess_spheres(layout.unit)).splitlines()
    theirs = text("case.struct").splitlines()
    name = next(i for i, line in enumerate(theirs) if line.startswith("O 1"))
    for mark in ("NPT=", "R0=", "RMT=", "Z:"):
        assert ours[6].index(mark) == theirs[name].index(mark), mark
    assert ours[6][:3] == "O 1"
    for mark in (": X=", " Y=", " Z="):
        assert ours[4].index(mark) == theirs[4].index(mark), mark
    for mark in ("MULT=", "ISPLIT="):
        assert ours[5].index(mark) == theirs[5].index(mark), mark
    assert ours[7:10] == theirs[name + 1 : name + 4]
    assert ours[1].index("ATOMS:") == theirs[1].index("ATOMS:")
    assert [len(ours[3]), ours[3][0:60:10].count(" ")] == [60, 6]


@genuine
def test_the_last_iteration() -> None:
    whole = text("case.scf")
    # It goes on with a second functional, which has no total energy: that must not pass for one.
    with pytest.raises(OutputError, match=r"0\.0"):
        read_scf(whole)
    first = whole[: whole.index("\n", whole.index("\n:ENE") + 1) + 1]
    scf = read_scf(first)
    assert scf.version == "14.2"
    assert scf.title == "blebleble"
    assert (scf.energy_Ry, scf.remark) == (-61903.9591309, "**********")
    assert (scf.iterations, scf.atoms, scf.rkmax, scf.electrons) == (150, 48, 8.0, 408.0)
    assert (scf.nuclear, scf.electronic) == (728.0, 727.93432)
    with pytest.raises(OutputError, match="no total energy"):
        read_scf(first[:-40])


@genuine
def test_bands_of_an_insulator() -> None:
    bands = read_bands(text("case.scf"))
    assert (bands.fermi_Ry, bands.electrons, bands.first_empty_Ry) == (0.3666447308, 408.0, 0.652933)
    assert bands.gap_Ry == pytest.approx(0.2863, abs=1e-4)  # as it says itself


@genuine
def test_inputs() -> None:
    inc = text("other.inc")
    assert hole_occupation(inc) == 2
    assert hole_occupation(with_hole(inc)) == 1
    changed = [b for a, b in zip(inc.splitlines(), with_hole(inc).splitlines(), strict=True) if a != b]
    assert changed == ["1,-1,1               ( N,KAPPA,OCCUP)"]
    with pytest.raises(InputError, match="holds 1 electrons"):
        with_hole(with_hole(inc))
    in2 = text("case.in2c")
    assert electrons(in2) == 408
    assert with_electrons(in2, 409).splitlines()[1].startswith("  -12.00  409.00   0.50 0.05  1   EMIN, NE")
    assert with_electrons(with_electrons(in2, 409), 408).splitlines() == in2.splitlines()
    in1 = with_bands_to(text("case.in1c"), 3.4, 900).splitlines()
    assert in1[-1] == "K-VECTORS FROM UNIT:4   -9.0       3.4   900   emin / de (emax=Ef+de) / nband"
    assert in1[:-1] == text("case.in1c").splitlines()[:-1]


def test_what_looks_otherwise_is_refused() -> None:
    for change in (
        lambda: with_hole(""),
        lambda: with_hole(" 1 0.00  0  NUMBER OF ORBITALS\n2,-1,2   ( N,KAPPA,OCCUP)\n 0\n"),
        lambda: electrons("TOT\nTETRA\n"),
        lambda: with_bands_to("WFFIL\nK-VECTORS FROM UNIT:4\n", 3.0, 100),
        lambda: with_mixing("0.20\n", background=-1, numerics={}),
    ):
        with pytest.raises(InputError):
            change()
    assert mesh_of("END\n") is None
    assert mesh_of("         1  1.0 -7.0  1.5      1000 k, div: ( 10 10 10)\n") == (10, 10, 10)
    assert mesh_of("         1  1.0 -7.0  1.5    200000 k, div: (100 20100)\n") == (100, 20, 100)
    assert mesh_of("         1  1.0 -7.0  1.5    200000 k, div: (*** 20100)\n") is None


def test_spectra_that_are_none() -> None:
    def table(*rows: tuple[float, float, float, float]) -> str:
        return "".join(f"{e:10.5f}{a:14.5E}{b:14.5E}{c:14.5E}\n" for e, a, b, c in rows)

    good = [(-0.1, 0, 0, 0), (0.0, 0, 0, 0), (0.1, 2e-3, 2e-3, 0), (0.2, 3e-3, 3e-3, 0)]
    energies, total = read_txspec(table(*good))
    assert energies.tolist() == [-0.1, 0.0, 0.1, 0.2]
    assert total.tolist() == [0, 0, 0.002, 0.003]
    for text_, words in (
        (table(*good)[:-1], "cut short"),
        (table(*good[:2]), "cut short"),
        (table(*good, (0.5, 1e-3, 1e-3, 0)), "no even grid"),
        (table(*good, (0.3, 1e-3, 0, 0)), "not of an s shell"),
        (table(*good, (0.3, 1e-3, 1e-3, 1e-5)), "not of an s shell"),
        (
            table((-0.5, 1e-3, 1e-3, 0), *((e - 0.3, 0, 0, 0) for e in (-0.1, 0.0, 0.1)), *good[2:]),
            "grid|below",
        ),
        (table((-0.4, 1e-3, 1e-3, 0), (-0.3, 0, 0, 0), (-0.2, 0, 0, 0), *good), "below the Fermi level"),
        (table(*((e, 0, 0, 0) for e, *_ in good)), "nothing is absorbed"),
        (table(*good).replace("E-03", "E+XX"), "txspec"),
    ):
        with pytest.raises(OutputError, match=words):
            read_txspec(text_)
