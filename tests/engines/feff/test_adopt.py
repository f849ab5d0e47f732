from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.structure import Structure
from htxas.engines.adoption import Adopted, Adopter, NotAdopted, Why
from htxas.engines.base import Job, read_job
from htxas.engines.feff.adopt import ADOPTER
from htxas.engines.feff.engine import ENGINE

POSCAR = """MgO
1.0
0.0 2.106 2.106
2.106 0.0 2.106
2.106 2.106 0.0
Mg O
1 1
direct
0.0 0.0 0.0
0.5 0.5 0.5
"""
Copy = Callable[[str], Path]


def adopt(folder: Path, root: Path | None = None) -> Adopted:
    return ADOPTER.adopt(folder, root or folder)


def test_it_is_an_adopter() -> None:
    assert isinstance(ADOPTER, Adopter)


def test_a_molecule_has_the_identity_it_was_made_with(runs: Path) -> None:
    for name in ("methane", "overlapped", "carbon-dioxide"):
        found = adopt(runs / name)
        assert found.calculation.key == read_job(runs / name).calculation.key
        assert found.origin == {"structure": "cluster"}
        mine = ENGINE.read(read_job(runs / name), runs / name)
        assert found.result.curve.intensity == pytest.approx(mine.curve.intensity, abs=0)  # type: ignore[union-attr]
        assert found.result.provenance.wall_s is None
        assert found.result.provenance.extra["adopted"] is True


def test_wrong_densities_of_states_are_left_behind(runs: Path) -> None:
    """FEFF's are, beside hydrogen; its spectrum is not touched by them."""
    found = adopt(runs / "methane-ldos")
    assert found.calculation.key == read_job(runs / "methane").calculation.key
    assert found.result.dos is None  # type: ignore[union-attr]
    assert "C* holds 13.1 electrons" in found.result.provenance.extra["dos_left_out"]


def made(structure: Structure, **spheres: Any) -> tuple[Job, Any]:
    overrides = {"xanes": {"grid": [["e_grid", -10, 30, 0.5]]}, **spheres}
    parameters = ENGINE.resolve("crystal", overrides, element="O", edge="K")
    atom = structure.indices_of("O")[0]
    site = Calculation(Kind.SITE, structure.key, "feff", parameters.site, "O", "K", atom)
    return Job(site, structure), parameters


def test_a_crystal_has_the_identity_it_would_have_here(copied: Copy) -> None:
    """The deck is one that htxas writes for these radii; the POSCAR is turned and shifted against nothing."""
    folder = copied("mgo")
    (folder / "POSCAR").write_text(POSCAR)
    found = adopt(folder)
    assert found.origin["structure"] == "POSCAR"
    assert found.structure.formula == "MgO"
    job, _ = made(found.structure, scf={"radius_A": 3.0783}, fms={"radius_A": 4.312})
    assert found.calculation.parameters == dict(job.calculation.parameters)
    assert found.calculation.key == job.calculation.key


def test_the_structure_is_looked_for_up_to_the_root(copied: Copy) -> None:
    folder = copied("mgo")
    inner = folder / "a/b/001_O"
    inner.mkdir(parents=True)
    for name in ("feff.inp", "feff.out", "xmu.dat"):
        (folder / name).rename(inner / name)
    (folder / "POSCAR").write_text(POSCAR)
    found = adopt(inner, folder)
    assert (found.origin["structure"], found.name) == ("POSCAR", "mgo")
    found = adopt(inner, folder.parent)
    assert (found.origin["structure"], found.name) == ("POSCAR", "mgo")
    (folder / "POSCAR").unlink()
    assert adopt(inner, folder).name == "a.b.001_O"


def test_a_structure_that_does_not_explain_the_deck_is_not_believed(copied: Copy) -> None:
    folder = copied("mgo")
    (folder / "POSCAR").write_text(POSCAR.replace("2.106", "2.2"))
    found = adopt(folder)
    assert found.origin == {"structure": "cluster"}
    assert len(found.structure) > 33
    (folder / "POSCAR").write_text("garbage")
    assert adopt(folder).origin == {"structure": "cluster"}


@pytest.mark.filterwarnings("ignore")  # pymatgen's own, of spglib
def test_a_crystal_in_pymatgens_header(copied: Copy, mgo: Structure) -> None:
    pymatgen = pytest.importorskip("pymatgen.io.feff.sets")
    from pymatgen.core import Lattice
    from pymatgen.core import Structure as Crystal

    folder = copied("mgo")
    crystal = Crystal(Lattice(mgo.cell_A), list(mgo.symbols), mgo.positions_A, coords_are_cartesian=True)
    tags = {
        "EGRID": None,
        "XANES": "2.8 0.05 0.1",
        "SCF": "3.0783 0 100 0.1 3",
        "FMS": "4.312 0",
        "S02": "1.0",
        "COREHOLE": "RPA",
    }
    deck = pymatgen.MPXANESSet("O", crystal, radius=7.0, user_tag_settings=tags)
    text = "\n\n".join(str(deck.all_input()[k]) for k in ("HEADER", "PARAMETERS", "POTENTIALS", "ATOMS"))
    (folder / "feff.inp").write_text(text)
    xmu = (folder / "xmu.dat").read_text()
    (folder / "xmu.dat").write_text(
        xmu.replace("Pot 1 Z= 8", "Pot 1 Z=12").replace("Pot 2 Z=12", "Pot 2 Z= 8")
    )
    found = adopt(folder)
    assert found.origin == {"structure": "header"}
    assert found.structure.formula == "MgO"
    assert np.linalg.det(found.structure.cell_A) == pytest.approx(4.212**3 / 4, rel=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "why", "message"),
    [
        ("unconverged", Why.UNCONVERGED, "did not converge"),
        ("killed-in-pot", Why.DEAD, "pot"),
        ("killed-in-fms", Why.DEAD, "fms"),
        ("refused", Why.DEAD, "No atoms or overlap cards"),
        ("elnes", Why.UNSUPPORTED, "it is no XANES"),
    ],
)
def test_runs_that_failed_are_told_apart(runs: Path, name: str, why: Why, message: str) -> None:
    with pytest.raises(NotAdopted, match=message) as caught:
        adopt(runs / name)
    assert caught.value.why is why


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def drop(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


def shorten(name: str, share: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        os.truncate(path, int(share * path.stat().st_size))

    return change


@pytest.mark.parametrize(
    ("change", "why", "message"),
    [
        (drop("feff.out", "xmu.dat"), Why.DEAD, "there is no xmu.dat"),
        (drop("xmu.dat"), Why.DEAD, "there is no xmu.dat"),
        (drop("feff.inp"), Why.NO_INPUT, "no feff.inp"),
        (drop("feff.out"), Why.NO_INPUT, "nobody knows whether it converged"),
        (shorten("xmu.dat", 0.5), Why.DAMAGED, "cut short"),
        (shorten("xmu.dat", 0.0), Why.DAMAGED, "holds no points"),
        (shorten("feff.out", 0.3), Why.DEAD, "ended in pot"),
        (edit("feff.inp", "EDGE K", "EDGE L3"), Why.DAMAGED, "has edge L3, xmu.dat K"),
        (edit("feff.inp", "0    6  C ", "0    7  N "), Why.DAMAGED, "has absorber N, xmu.dat C"),
        (edit("feff.inp", "CONTROL 1", "CONTROL 0"), Why.UNSUPPORTED, "of another run"),
        (edit("feff.inp", "XANES", "EXAFS"), Why.UNSUPPORTED, "it is no XANES"),
        (edit("feff.inp", "COREHOLE", "POLARIZATION 1 0 0\nCOREHOLE"), Why.UNSUPPORTED, "a card POLA"),
        (
            edit("feff.inp", "1    1  H     -1   -1", "1    1  H     1   2"),
            Why.UNSUPPORTED,
            "angular momenta",
        ),
        (edit("feff.inp", "ATOMS", "ATOMS\n1 2"), Why.UNSUPPORTED, "an atom needs x, y, z"),
        (edit("feff.inp", "CONTROL 1 1 1", "CONTROL 1 1 0"), Why.UNSUPPORTED, "of another run"),
        (edit("feff.inp", "COREHOLE", "NRIXS 1 0 0 1\nCOREHOLE"), Why.UNSUPPORTED, "a card NRIX"),
        (edit("feff.inp", "COREHOLE", "RMULTIPLIER 1.05\nCOREHOLE"), Why.UNSUPPORTED, "a card RMUL"),
        (edit("feff.inp", "COREHOLE", "EXTPOT\nCOREHOLE"), Why.UNSUPPORTED, "a card EXTP"),
        (edit("feff.inp", "COREHOLE RPA", "NOHOLE 1"), Why.UNSUPPORTED, "NOHOLE 1"),
        (edit("feff.inp", "-1   -1  4", "-1   -1  4 0.5"), Why.UNSUPPORTED, "has a spin"),
        (edit("feff.inp", "-1   -1  4", "-1   -1"), Why.UNSUPPORTED, "some have none"),
        (
            edit("feff.inp", "COREHOLE RPA", "COREHOLE none"),
            Why.DAMAGED,
            "has hole NO core-hole, xmu.dat screened",
        ),
        (edit("feff.inp", "EXCHANGE 0", "EXCHANGE 5"), Why.DAMAGED, "has exchange val=s"),
        (edit("feff.inp", "EXCHANGE 0 0.0", "EXCHANGE 0 3.0"), Why.DAMAGED, "has shift_eV 3.0, xmu.dat 0.0"),
        (edit("feff.inp", "S02 1.0", "S02 0.7"), Why.DAMAGED, "has s02 0.7, xmu.dat 1.0"),
        (edit("feff.inp", "FMS 3.2794 1", "FMS 4.0 1"), Why.DAMAGED, "has fms 4.0, xmu.dat 3.2794"),
        (edit("feff.inp", "SCF 3.2794", "*SCF 3.2794"), Why.DAMAGED, "has scf None, xmu.dat 3.2794"),
        (
            edit("feff.inp", "e_grid -10.0 30.0", "e_grid -10.0 60.0"),
            Why.DAMAGED,
            "has last energy above the edge 60",
        ),
        (edit("feff.out", "FEFF 10.0.0", "FEFF 9.9.1"), Why.DAMAGED, "of different versions"),
    ],
)
def test_folders_that_give_nothing_say_why(
    copied: Copy, change: Callable[[Path], None], why: Why, message: str
) -> None:
    folder = copied("methane")
    change(folder)
    with pytest.raises(NotAdopted, match=message) as caught:
        adopt(folder)
    assert caught.value.why is why


def test_densities_of_states_of_another_run(copied: Copy) -> None:
    folder = copied("carbon-dioxide")
    edit("xmu.dat", "Mu=-6.765", "Mu=-3.000")(folder)
    with pytest.raises(NotAdopted, match="is not the spectrum's") as caught:
        adopt(folder)
    assert caught.value.why is Why.DAMAGED


def test_usual_screening_is_no_further_card(copied: Copy) -> None:
    folder = copied("methane")
    own = adopt(folder).calculation.key
    edit("feff.inp", "COREHOLE", "SCREEN rfms 3.2794\nCOREHOLE")(folder)
    assert adopt(folder).calculation.key == own
    edit("feff.inp", "SCREEN rfms 3.2794", "SCREEN rfms 5.0")(folder)
    assert adopt(folder).calculation.parameters["cards"] == ["SCRE rfms 5.0"]


def test_another_atom_in_the_cluster_is_another_structure(copied: Copy, mgo: Structure) -> None:
    folder = copied("mgo")
    (folder / "POSCAR").write_text(POSCAR)
    path = folder / "feff.inp"
    deck = path.read_text()
    atoms = deck.partition("ATOMS")[2]
    line = next(x for x in reversed(atoms.splitlines()) if x.split()[3:4] == ["2"])
    path.write_text(deck.replace(line, line[:40] + line[40:].replace(" 2 ", " 1 ", 1)))
    assert path.read_text() != deck
    assert adopt(folder).origin == {"structure": "cluster"}


def test_cards_that_name_a_potential_are_told_by_element(copied: Copy) -> None:
    """The numbers of a deck are its author's; FEFF takes the last card of each."""
    folder = copied("mgo")
    (folder / "POSCAR").write_text(POSCAR)
    edit("feff.inp", "COREHOLE", "FOLP 2 0.7\nFOLP 2 0.8\nCOREHOLE")(folder)
    before = adopt(folder).calculation
    assert before.parameters["cards"] == ["FOLP 2 0.8"]
    text = (folder / "feff.inp").read_text()
    head, atoms = text.split("ATOMS\n", 1)
    head = head.replace("    1    8  O ", "    9   12  Mg").replace("    2   12  Mg", "    1    8  O ")
    head = head.replace("    9 ", "    2 ", 1)
    turned = (
        head.replace("    2   12", "    7   12")
        .replace("    1    8", "    2    8")
        .replace("    7   12", "    1   12")
    )
    swap = {"1": "2", "2": "1"}
    lines = [
        line[:39] + line[39:].replace(f" {k} ", f" {swap[k]} ", 1)
        if (k := (line.split() + [""] * 4)[3]) in swap
        else line
        for line in atoms.splitlines()
    ]
    (folder / "feff.inp").write_text(turned.replace("FOLP 2", "FOLP 1") + "ATOMS\n" + "\n".join(lines) + "\n")
    xmu = (folder / "xmu.dat").read_text()
    xmu = (
        xmu.replace("Pot 1 Z= 8", "Pot 9 Z=12").replace("Pot 2 Z=12", "Pot 2 Z= 8").replace("Pot 9", "Pot 1")
    )
    (folder / "xmu.dat").write_text(xmu)
    assert adopt(folder).calculation.key == before.key


def test_what_others_wrote_differently_is_the_same_or_is_told(copied: Copy) -> None:
    folder = copied("methane")
    own = adopt(folder).calculation
    edit("feff.inp", "COREHOLE RPA", "corehole rpa\nPRINT 1 0 0 0 0 3")(folder)
    edit("feff.inp", "EDGE K", "HOLE 1 1.0")(folder)
    edit("feff.inp", "1 100 0.1 3", "1 30 0.2 1")(folder)  # the way, not the answer
    assert adopt(folder).calculation.key == own.key
    edit("feff.inp", "COREHOLE".lower(), "FOLP 1 0.8\nAFOLP 1.0\ncorehole")(folder)
    assert adopt(folder).calculation.parameters["cards"] == ["AFOL 1.0", "FOLP 1 0.8"]
    edit("feff.inp", "-1  4", "-1  7")(folder)
    assert adopt(folder).calculation.parameters["stoichiometry"] == [1.0, 7.0]
