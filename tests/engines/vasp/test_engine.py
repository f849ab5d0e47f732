from __future__ import annotations

import gzip
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Convergence, Kind
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import CurveResult, GroundResult
from htxas.domain.structure import Structure
from htxas.engines.base import Job
from htxas.engines.vasp.corrections import LADDER
from htxas.engines.vasp.engine import ENGINE
from htxas.engines.vasp.parameters import ground_from
from htxas.engines.vasp.process import find_vasp
from htxas.engines.vasp.vasprun import read_run
from htxas.engines.vasp.write import lay_out
from htxas.errors import Cause, EngineFailure, UnsupportedInput, UserError
from tests.engines.vasp.conftest import SMALL, make_job
from tests.engines.vasp.fake_vasp import AXES, JUMP
from tests.engines.vasp.synthetic import potcar

Run = Callable[..., tuple[int, Path]]


def failure(job: Job, folder: Path) -> EngineFailure:
    with pytest.raises(EngineFailure) as caught:
        ENGINE.read(job, folder)
    return caught.value


def tags(path: Path) -> dict[str, str]:
    return dict(line.split(" = ", 1) for line in path.read_text().splitlines())


def test_the_inputs_of_a_crystal(mgo: Structure, tmp_path: Path) -> None:
    job = make_job(mgo, **SMALL)
    ENGINE.write(job, tmp_path)
    incar = tags(tmp_path / "INCAR")
    assert incar["SYSTEM"] == f"htxas {job.calculation.key}"
    assert len(incar["SYSTEM"]) <= 40  # VASP keeps no more
    hole = {k: incar[k] for k in ("ICORELEVEL", "CLNT", "CLN", "CLL", "CLZ", "CH_LSPEC")}
    assert hole == {
        "ICORELEVEL": "2",
        "CLNT": "1",
        "CLN": "1",
        "CLL": "0",
        "CLZ": "1.0",
        "CH_LSPEC": ".TRUE.",
    }
    assert "NELECT" not in incar  # VASP puts the electron into the valence
    assert (incar["ISPIN"], incar["ISYM"], incar["CH_NEDOS"]) == ("1", "0", "800")
    poscar = (tmp_path / "POSCAR").read_text().splitlines()
    assert (poscar[5].split(), poscar[6].split()) == (["O", "Mg", "O"], ["1", "2", "1"])
    assert (tmp_path / "KPOINTS").read_text() == "mesh\n0\nGamma\n2 1 1\n0 0 0\n"
    assert not (tmp_path / "POTCAR").exists()
    assert "made up" not in (tmp_path / "calculation.json").read_text()


@pytest.mark.filterwarnings("ignore")  # of pymatgen and ASE
def test_pymatgen_and_ase_read_what_neither_would_write(mgo: Structure, tmp_path: Path) -> None:
    from ase.io import read
    from pymatgen.io.vasp.inputs import Incar, Kpoints, Poscar

    job = make_job(mgo, "Mg", **SMALL)
    ENGINE.write(job, tmp_path)
    layout = lay_out(mgo, ground_from(job.calculation.parameters["ground"]), job.calculation.atom)
    wanted = layout.cell.positions_A[list(layout.order)]
    assert (tmp_path / "POSCAR").read_text().splitlines()[6].split() == ["1", "1", "2"]
    atoms = read(tmp_path / "POSCAR", format="vasp")
    assert atoms.get_chemical_symbols() == ["Mg", "Mg", "O", "O"]
    assert np.allclose(atoms.positions, wanted, atol=1e-9)
    structure = Poscar.from_file(tmp_path / "POSCAR", check_for_potcar=False).structure
    assert np.allclose(structure.lattice.matrix, layout.cell.cell_A, atol=1e-9)
    assert Poscar(structure).natoms == [2, 2]  # pymatgen joins the absorber to its kind
    assert Incar.from_file(tmp_path / "INCAR")["CH_LSPEC"] is True
    assert Kpoints.from_file(tmp_path / "KPOINTS").kpts == [(2, 1, 1)]


def test_the_absorber_of_a_molecule_is_its_only_carbon(formaldehyde: Structure, tmp_path: Path) -> None:
    job = make_job(
        formaldehyde, "C", "molecule", potcars={"H": "H_GW", "C": "C_GW", "O": "O_GW"}, box={"side_A": 8.0}
    )
    ENGINE.write(job, tmp_path)
    poscar = (tmp_path / "POSCAR").read_text().splitlines()
    assert (poscar[5].split(), poscar[6].split()) == (["C", "H", "O"], ["1", "2", "1"])
    assert (tmp_path / "KPOINTS").read_text().splitlines()[3] == "1 1 1"


def test_a_ground_state_by_way_of_the_process(mgo: Structure, run: Run) -> None:
    job = make_job(mgo, kind=Kind.GROUND, **SMALL)
    status, folder = run(job, "ground")
    result = ENGINE.read(job, folder)
    assert status == 0
    assert isinstance(result, GroundResult)
    assert result.convergence is Convergence.CONVERGED
    assert result.total_energy_eV == pytest.approx(-12.0)  # per formula unit; vasprun.xml ends with 0.0
    assert result.reference == "average potential of the cell"
    held = result.pdos.weights.sum(axis=(1, 2))
    filled = result.pdos.occupations > 1
    assert held[filled].min() == pytest.approx(0.7 * 0.99, abs=0.02)
    assert held.max() <= 1 + 1e-9
    assert result.provenance.extra["most_in_spheres"] > 1.05  # brought down to 1
    assert result.pdos.shares is not None
    electrons = float((result.pdos.occupations * result.pdos.shares).sum())
    assert electrons == pytest.approx(16.0)  # of MgO with these POTCARs
    assert inspect(result, GateLimits()) is None


def test_a_spectrum_has_the_strength_that_was_put_in(mgo: Structure, run: Run) -> None:
    job = make_job(mgo, **SMALL)
    _, folder = run(job, "site")
    result = ENGINE.read(job, folder)
    assert isinstance(result, CurveResult)
    above = result.curve.energies_eV > result.edge_eV + 1
    above &= result.curve.energies_eV < result.edge_eV + 20
    assert np.allclose(result.curve.intensity[above].mean(axis=0), AXES, rtol=0.06)
    e = result.curve.energies_eV
    assert e[0] == pytest.approx(result.edge_eV - 5, abs=0.1)  # VASP's table begins 2 eV below
    assert not result.curve.intensity[e < result.edge_eV - 2.5].any()
    assert result.window_eV > GateLimits().window_eV
    assert result.background[above][0] == pytest.approx((1 + 1 / 543.1) ** -2.6, abs=2e-3)
    assert f"{JUMP['O']:.4g}" in result.normalisation
    assert "shifts between sites mean nothing" in result.scale
    assert result.lifetime_eV == 0.0
    assert inspect(result, GateLimits(), element="O", edge="K") is None


def test_with_a_reference_sites_stand_where_their_total_energies_are(mgo: Structure, run: Run) -> None:
    found = []
    for reference in (None, 541.0):
        job = make_job(mgo, **SMALL, **({} if reference is None else {"reference_eV": reference}))
        _, folder = run(job, f"site-{reference}")
        found.append(ENGINE.read(job, folder))
    own, referred = found
    assert isinstance(own, CurveResult)
    assert isinstance(referred, CurveResult)
    total = referred.provenance.extra["total_energies_eV"]
    assert total["ground"] == pytest.approx(-24.0)  # of the supercell
    assert referred.edge_eV == pytest.approx(541.0 + total["excited"] - total["ground"])
    assert np.array_equal(own.curve.intensity, referred.curve.intensity)
    shift = referred.edge_eV - own.edge_eV
    assert np.allclose(referred.curve.energies_eV, own.curve.energies_eV + shift)
    assert "541" in referred.scale


def test_the_excited_electron_may_be_removed(mgo: Structure, run: Run) -> None:
    job = replace(make_job(mgo, **SMALL, electron="removed"), ground_energy_eV=-12.0)
    _, folder = run(job, "site")
    assert tags(folder / "INCAR")["NELECT"] == "32"  # as without the hole
    result = ENGINE.read(job, folder)
    assert isinstance(result, CurveResult)
    assert "electron removed" in result.scale
    assert make_job(mgo, **SMALL).calculation.key != job.calculation.key


def test_the_ground_state_is_read_stored_or_computed_again(
    mgo: Structure, run: Run, with_ground: Callable[[Job], Job]
) -> None:
    site = make_job(mgo, **SMALL)
    referred = with_ground(site)
    stored = replace(site, ground_energy_eV=-12.0)
    broken = replace(site, ground_directory=Path("/nowhere"))
    sources = []
    for name, job in (("read", referred), ("stored", stored), ("again", broken)):
        _, folder = run(job, name)
        result = ENGINE.read(job, folder)
        sources.append(result.provenance.extra["ground"]["from"])
        assert result.provenance.extra["total_energies_eV"]["ground"] == pytest.approx(-24.0)
        assert (folder / "ground").is_dir() == (name == "again")
    assert sources == [str(referred.ground_directory), "database", "ground"]
    other = make_job(mgo, **{**SMALL, "cutoff_eV": 600.0})
    _, folder = run(replace(other, ground_directory=referred.ground_directory), "other")
    assert ENGINE.read(other, folder).provenance.extra["ground"]["from"] == "ground"


def test_no_potcar_is_left_behind(mgo: Structure, run: Run) -> None:
    for mode in ("good", "crashed", "killed"):
        _, folder = run(make_job(mgo, **SMALL), mode, mode=mode)
        left = [p for p in folder.rglob("*") if p.is_file() and "made up" in p.read_text()]
        if mode == "killed":  # the process goes with VASP, and nobody is left to remove it; it is not kept
            left = [p for p in left if any(p.match(pattern) for pattern in ENGINE.keep)]
        assert left == []


@pytest.mark.parametrize(
    ("mode", "cause", "words"),
    [
        ("unconverged", Cause.SCF_UNCONVERGED, "did not converge in 100 steps"),
        ("refused", Cause.BAD_INPUT, "number of species in POSCAR and POTCAR differ"),
        ("memory", Cause.OUT_OF_MEMORY, "got no memory"),
        ("disk", Cause.DISK_FULL, "disk is full"),
        ("silent", Cause.ENGINE_CRASH, "ended in step 7"),
        ("crashed", Cause.ENGINE_CRASH, "ZHEGV"),
        ("killed", Cause.ENGINE_CRASH, "without a word"),
        ("no-hole", Cause.BAD_OUTPUT, "32 electrons, the calculation has 33"),
        ("other-potcar", Cause.BAD_OUTPUT, "VASP read the POTCARs"),
        ("old", Cause.BAD_OUTPUT, "VASP 6.1.0 has no core-level spectra"),
        ("blind", Cause.BAD_OUTPUT, "0 tables"),
        ("dark", Cause.BAD_OUTPUT, "no peak"),
    ],
)
def test_each_end_has_its_cause(mgo: Structure, run: Run, mode: str, cause: Cause, words: str) -> None:
    job = make_job(mgo, **SMALL)
    _, folder = run(replace(job, ground_energy_eV=-12.0), "site", mode=mode)
    found = failure(job, folder)
    assert (found.cause, found.cause.value) == (cause, cause.value)
    assert words in str(found)


def test_a_site_without_its_ground_state_has_no_result(mgo: Structure, run: Run) -> None:
    job = make_job(mgo, **SMALL)
    _, folder = run(job, "site", mode="unconverged", inside="ground")
    found = failure(job, folder)
    assert found.cause is Cause.SCF_UNCONVERGED
    assert "ground" in str(found.where)


@pytest.mark.parametrize("name", ["OUTCAR", "vasprun.xml"])
def test_files_of_another_calculation_are_refused(mgo: Structure, run: Run, name: str) -> None:
    one = replace(make_job(mgo, **SMALL), ground_energy_eV=-12.0)
    two = replace(make_job(mgo, **{**SMALL, "cutoff_eV": 600.0}), ground_energy_eV=-12.0)
    (_, first), (_, second) = run(one, "one"), run(two, "two")
    shutil.copy(second / name, first / name)
    found = failure(one, first)
    assert found.cause is Cause.BAD_OUTPUT
    assert f"not of calculation {one.calculation.key}" in str(found)


def test_atoms_elsewhere_are_refused(mgo: Structure, run: Run) -> None:
    job = replace(make_job(mgo, **SMALL), ground_energy_eV=-12.0)
    _, folder = run(job, "site")
    text = (folder / "vasprun.xml").read_text()
    start, end = text.split(' <structure name="finalpos" >')
    row = re.findall(r"<v>.*</v>", end)[6]
    (folder / "vasprun.xml").write_text(
        start + ' <structure name="finalpos" >' + end.replace(row, "<v> 0.1 0.2 0.3 </v>")
    )
    text = (folder / "vasprun.xml").read_text().replace(row, "<v> 0.1 0.2 0.3 </v>")
    (folder / "vasprun.xml").write_text(text)
    assert "atoms elsewhere" in str(failure(job, folder))


def test_corrections_change_only_the_way(mgo: Structure, tmp_path: Path) -> None:
    plain = make_job(mgo, **SMALL)
    found = []
    for rung, numerics in enumerate([{}, *(dict(r.numerics) for r in LADDER[Cause.SCF_UNCONVERGED])]):
        folder = tmp_path / str(rung)
        folder.mkdir()
        ENGINE.write(replace(plain, numerics=numerics), folder)
        found.append(tags(folder / "INCAR"))
        for name in ("POSCAR", "KPOINTS"):
            assert (folder / name).read_text() == (tmp_path / "0" / name).read_text()
    changed = {tag for f in found for tag in f if f[tag] != found[0].get(tag)}
    assert changed == {"AMIX", "BMIX", "NELM"}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({}, "say which POTCARs"),
        ({"potcars": {"Mg": "Mg_sv_GW"}}, "absorber O has no POTCAR"),
        ({"potcars": {"O": "O_s"}}, "no POTCAR O_s in your library"),
        ({"potcars": {"O": "../O_GW"}}, "no name of a POTCAR"),
        ({"potcars": {"O": "C_GW"}}, "one of C, not of O"),
        ({"potcars": {"O": "O_GW"}, "cutoff": 500}, "cutoff_eV"),
        ({"potcars": {"O": "O_GW"}, "box": {"side_A": 9.0}, "supercell": {"distance_A": 9.0}}, "say box"),
        ({"potcars": {"O": "O_GW"}, "window_eV": math.inf}, "no number"),
        ({"potcars": {"O": "O_GW"}, "electron": "removed", "reference_eV": 540.0}, "electron: kept"),
        ({"potcars": {"O": "O_GW"}, "electron": "removed", "box": {"side_A": 9.0}}, "charged molecule"),
    ],
)
def test_what_cannot_be_is_refused_at_once(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        ENGINE.resolve("crystal", overrides, element="O", edge="K")


def test_edges_and_elements_without_a_core_are_refused(potcars: Path) -> None:
    with pytest.raises(UserError, match="1s only"):
        ENGINE.resolve("crystal", {"potcars": {"O": "O_GW"}}, element="O", edge="L1")
    with pytest.raises(UserError, match="bare H"):
        ENGINE.resolve("molecule", {"potcars": {"H": "H_GW"}}, element="H", edge="K")
    (potcars / "POTCAR.Li_sv").write_text(potcar("Li_sv", "Li", zval=3))
    with pytest.raises(UserError, match="1s is a valence state in Li_sv"):
        ENGINE.resolve("crystal", {"potcars": {"Li": "Li_sv"}}, element="Li", edge="K")


def test_a_structure_is_checked(mgo: Structure, formaldehyde: Structure) -> None:
    only_oxygen = ENGINE.resolve("crystal", {**SMALL, "potcars": {"O": "O_GW"}}, element="O", edge="K")
    with pytest.raises(UnsupportedInput, match="no POTCAR of Mg"):
        ENGINE.check(mgo, only_oxygen)
    low = ENGINE.resolve("crystal", {**SMALL, "cutoff_eV": 350.0}, element="O", edge="K")
    with pytest.raises(UnsupportedInput, match="needs a cutoff of 400 eV"):
        ENGINE.check(mgo, low)
    fine = ENGINE.resolve("crystal", SMALL, element="O", edge="K")
    ENGINE.check(mgo, fine)
    with pytest.raises(UnsupportedInput):
        ENGINE.check(formaldehyde, fine)
    radical = Structure.from_atoms(["C", "H", "H", "H"], np.eye(4, 3) * 1.1)[0]
    box = ENGINE.resolve("molecule", {"potcars": {"C": "C_GW", "H": "H_GW"}}, element="C", edge="K")
    with pytest.raises(UnsupportedInput, match="odd number of electrons"):
        ENGINE.check(radical, box)


def test_the_identity_has_the_content_of_potcars_but_not_the_pdos(potcars: Path) -> None:
    def site(**more: Any) -> dict[str, Any]:
        return dict(ENGINE.resolve("crystal", {**SMALL, **more}, element="O", edge="K").site)

    one = site()
    assert site(pdos_window_eV=9.0) == one
    assert re.fullmatch(r"[0-9a-f]{64}", one["ground"]["potcars"]["O"]["sha256"])
    assert "made up" not in json.dumps(one)
    text = (potcars / "O_GW" / "POTCAR").read_text()
    (potcars / "O_GW" / "POTCAR").write_text(text.replace("it is made up", "it is another"))
    assert site() != one


def test_a_library_may_be_packed_and_is_never_guessed(potcars: Path) -> None:
    text = (potcars / "O_GW" / "POTCAR").read_bytes()
    shutil.rmtree(potcars / "O_GW")
    release = potcars / "POT_GGA_PAW_PBE_64"
    release.mkdir()
    (release / "POTCAR.O_GW.gz").write_bytes(gzip.compress(text))
    ENGINE.resolve("crystal", SMALL, element="O", edge="K")
    (potcars / "POTCAR.O_GW").write_bytes(text)  # the same twice is no question
    ENGINE.resolve("crystal", SMALL, element="O", edge="K")
    (potcars / "POTCAR.O_GW").write_bytes(text.replace(b"01Jan2000", b"02Jan2000"))
    with pytest.raises(UserError, match="2 different POTCARs"):
        ENGINE.resolve("crystal", SMALL, element="O", edge="K")
    (release / "POTCAR.O_GW.gz").write_bytes(gzip.compress(text)[:40])
    with pytest.raises(UserError, match="cannot be read"):
        ENGINE.resolve("crystal", SMALL, element="O", edge="K")
    (release / "POTCAR.O_GW.gz").unlink()
    (potcars / "POTCAR.O_GW").write_bytes(text[:300])
    with pytest.raises(UserError, match="POTCAR O_GW"):
        ENGINE.resolve("crystal", SMALL, element="O", edge="K")


def test_another_release_of_the_library_does_not_run(mgo: Structure, run: Run, potcars: Path) -> None:
    job = make_job(mgo, **SMALL)
    text = (potcars / "O_GW" / "POTCAR").read_text()
    (potcars / "O_GW" / "POTCAR").write_text(text.replace("01Jan2000", "02Jan2000"))
    _, folder = run(job, "site")
    found = failure(job, folder)
    assert found.cause is Cause.BAD_INPUT
    assert "not the one of this calculation" in str(found)


def test_without_a_library_or_a_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "vasp_std"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert "library of POTCARs" in str(ENGINE.missing({"PATH": str(tmp_path)}))
    assert ENGINE.missing({"PATH": str(tmp_path), "PMG_VASP_PSP_DIR": str(tmp_path)}) is None
    assert find_vasp({"PATH": "", "HTXAS_VASP": str(tmp_path)}).command("vasp_std") == [str(program)]
    monkeypatch.delenv("HTXAS_VASP_POTCARS")
    monkeypatch.delenv("PMG_VASP_PSP_DIR", raising=False)
    with pytest.raises(UserError, match="HTXAS_VASP_POTCARS"):
        ENGINE.resolve("crystal", SMALL, element="O", edge="K")


def test_the_spectrum_of_a_molecule(formaldehyde: Structure, run: Run) -> None:
    job = make_job(
        formaldehyde,
        "C",
        "molecule",
        potcars={"H": "H_GW", "C": "C_GW", "O": "O_GW"},
        box={"side_A": 7.0},
        points=3000,
    )
    _, folder = run(job, "site")
    result = ENGINE.read(job, folder)
    assert inspect(result, GateLimits(), element="C", edge="K") is None
    ground = read_run(folder / "ground" / "vasprun.xml", projected=False)
    assert ground.electrons == pytest.approx(12)
    assert ENGINE.estimate_s(formaldehyde, Kind.SITE, job.calculation.parameters) > ENGINE.estimate_s(
        formaldehyde, Kind.GROUND, job.calculation.parameters["ground"]
    )
