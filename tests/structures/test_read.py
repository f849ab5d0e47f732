"""Every format read, and every way a file can be wrong."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import write

from htxas.errors import StructureError
from htxas.structures.read import expand, read_molecules
from htxas.structures.xyz import smiles_heavy_atoms

SHARED = Path(__file__).parents[3] / "shared/data/ck_molecules"

METHANE = """5
methane C
C 0.0 0.0 0.0
H 0.63 0.63 0.63
H -0.63 -0.63 0.63
H -0.63 0.63 -0.63
H 0.63 -0.63 -0.63
"""
WATER = """3
water O
O 0.0 0.0 0.119
H 0.0 0.763 -0.477
H 0.0 -0.763 -0.477
"""
# The layout of QM9 with made-up numbers.
QM9_WATER = (
    "3\n"
    "gdb 3\t799.6\t437.9\t282.9\t1.85\t6.31\t-0.2928\t0.0687\t0.3615\t19.0\t"
    "0.0213\t-76.4047\t-76.4019\t-76.4009\t-76.4224\t6.002\n"
    "O\t0.0\t 1.19*^-1\t 0.0\t-0.589\n"
    "H\t7.63*^-1\t-0.477\t 0.0\t 0.294\n"
    "H\t-0.763\t-0.477\t 1.*^-6\t 0.294\n"
    "1671.4\t3803.0\t3907.6\n"
    "[H]O[H]\tO\n"
    "InChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2\n"
)


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refuse(path: Path, *parts: str, **options: object) -> StructureError:
    """Read to the end; the error must name the file and hold every part, in one line."""
    with pytest.raises(StructureError) as caught:
        list(read_molecules(path, **options))
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    for part in parts:
        assert part in text
    return caught.value


def test_plain_xyz(tmp_path: Path) -> None:
    path = put(tmp_path, "two.xyz", METHANE + "\n" + WATER)
    first, second = read_molecules(path, geometry_method="B3LYP")
    assert (first.name, first.smiles, first.structure.formula) == ("methane", "C", "CH4")
    assert (second.name, second.smiles, second.structure.formula) == ("water", "O", "H2O")
    assert second.order == (2, 1, 0)
    assert second.provenance["file"] == "two.xyz"
    assert second.provenance["record"] == 1
    assert second.provenance["format"] == "xyz"
    assert second.provenance["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert second.provenance["geometry"] == {"method": "B3LYP", "energy_eV": None}


def test_order_maps_canonical_atoms_to_the_file(tmp_path: Path) -> None:
    (water,) = read_molecules(put(tmp_path, "w.xyz", WATER))
    symbols = ["O", "H", "H"]
    assert [symbols[i] for i in water.order] == list(water.structure.symbols)


@pytest.mark.parametrize(
    ("suffix", "squeeze"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_compressed(tmp_path: Path, suffix: str, squeeze) -> None:
    names = [
        m.name for m in read_molecules(put(tmp_path, f"a.xyz{suffix}", squeeze((METHANE + WATER).encode())))
    ]
    assert names == ["methane", "water"]


def test_comment_lines(tmp_path: Path) -> None:
    def comment(text: str) -> tuple[str, str | None]:
        (found,) = read_molecules(put(tmp_path, "ethane-scan.xyz", METHANE.replace("methane C", text)))
        return found.name, found.smiles

    assert comment("gdb_1 C") == ("gdb_1", "C")
    assert comment("gdb_1 CC") == ("gdb_1", None)  # not the SMILES of these atoms
    assert comment("gdb_1 [H]C([H])([H])[H]") == ("gdb_1", "[H]C([H])([H])[H]")
    assert comment("m-1") == ("m-1", None)
    assert comment("frame 5") == ("frame", None)
    assert comment("") == ("ethane-scan", None)
    assert comment("-40.5 Hartree") == ("ethane-scan", None)


def test_nameless_records_are_numbered(tmp_path: Path) -> None:
    path = put(tmp_path, "scan.xyz", METHANE.replace("methane C", "") + WATER.replace("water O", ""))
    assert [m.name for m in read_molecules(path)] == ["scan-1", "scan-2"]


def test_smiles_atoms_without_a_chemistry_library() -> None:
    assert smiles_heavy_atoms("C[N+](=O)[O-]") == {"C": 1, "N": 1, "O": 2}
    assert smiles_heavy_atoms("c1cc(Cl)ccc1Br") == {"C": 6, "Cl": 1, "Br": 1}
    assert smiles_heavy_atoms("C[C@@H](N)C%12CC%12") == {"C": 5, "N": 1}
    assert smiles_heavy_atoms("[nH]1cccc1") == {"N": 1, "C": 4}
    assert smiles_heavy_atoms("[2H]O") == {"O": 1}
    assert smiles_heavy_atoms("[Se]=[13CH2]") == {"Se": 1, "C": 1}
    assert smiles_heavy_atoms("Energy=-40") is None


def test_qm9(tmp_path: Path) -> None:
    (water,) = read_molecules(put(tmp_path, "dsgdb9nsd_000003.xyz", QM9_WATER), geometry_method="not used")
    assert (water.name, water.smiles) == ("gdb_3", "O")
    provenance = water.provenance
    assert provenance["format"] == "qm9-xyz"
    assert provenance["smiles_enumerated"] == "[H]O[H]"
    assert provenance["qm9"]["homo_hartree"] == -0.2928
    assert provenance["qm9"]["Cv_cal_per_mol_K"] == 6.002
    assert provenance["geometry"]["method"] == "B3LYP/6-31G(2df,p)"
    assert provenance["geometry"]["energy_eV"] == pytest.approx((-76.4047 - 0.0213) * 27.211386245988)
    oxygen = water.structure.positions_A[water.structure.indices_of("O")[0]]
    assert oxygen.tolist() == [0.0, 0.119, 0.0]
    assert water.structure.positions_A[:, 2].max() == 1e-6


def test_qm9_errors(tmp_path: Path) -> None:
    path = put(tmp_path, "a.xyz", QM9_WATER.replace("1.85", "1.85x"))
    refuse(path, "line 5", "record 1", "not a number")
    refuse(put(tmp_path, "b.xyz", "\n".join(QM9_WATER.splitlines()[:6])), "line 6", "QM9 SMILES", "cut short")
    refuse(put(tmp_path, "c.xyz", QM9_WATER.replace("-0.589", "")), "line 3", "symbol x y z charge")
    refuse(put(tmp_path, "d.xyz", QM9_WATER.replace("[H]O[H]\tO", " ")), "SMILES line is empty")


def test_folder_and_archives(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    put(folder, "b.xyz", WATER)
    put(folder, "a.xyz", METHANE)
    put(folder, ".hidden", "nothing")
    deep = folder / "z" / "mgo"
    deep.mkdir(parents=True)
    write(deep / "POSCAR", bulk("MgO", "rocksalt", a=4.2), format="vasp")
    found = list(read_molecules(folder))
    assert [m.name for m in found] == ["methane", "water", "mgo"]
    assert [m.provenance["file"] for m in found] == ["a.xyz", "b.xyz", "z/mgo/POSCAR"]

    with tarfile.open(tmp_path / "set.tar.bz2", "w:bz2") as tar:
        tar.add(folder / "a.xyz", "a.xyz")
        tar.add(folder / "b.xyz", "sub/b.xyz")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(folder / "a.xyz", "a.xyz")
        archive.write(folder / "b.xyz", "sub/b.xyz")
    for name in ("set.tar.bz2", "set.zip"):
        found = list(read_molecules(tmp_path / name))
        assert [m.name for m in found] == ["methane", "water"]
        assert found[1].provenance["file"] == f"{name}/sub/b.xyz"


def test_archive_errors(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("notes.doc", "x")
    refuse(tmp_path / "a.zip", "notes.doc", "only .xyz")
    refuse(put(tmp_path, "b.tar.gz", b"not a tar"), "damaged archive")
    refuse(put(tmp_path, "c.zip", b"not a zip"), "damaged archive")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(put(tmp_path, "w.xyz", WATER * 1), "w.xyz")
    refuse(put(tmp_path, "d.tar.gz", buffer.getvalue()[:60]), "damaged")
    empty = tmp_path / "empty"
    empty.mkdir()
    refuse(empty, "no molecules")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ["empty"]),
        ("\n\n", ["no molecules"]),
        ("five\n", ["line 1, record 1", "number of atoms", "'five'"]),
        ("0\nx\n", ["line 1, record 1", "number of atoms"]),
        ("-3\nx\n", ["line 1, record 1", "number of atoms"]),
        ("2.0\nx\n", ["line 1, record 1", "number of atoms"]),
        ("5\n", ["a comment line should follow", "cut short"]),
        (METHANE + WATER[:-8], ["record 2", "line 12", "expected symbol x y z"]),
        (METHANE + "3\nwater\nO 0 0 0\n", ["record 2", "line 10", "atom 2 of 3", "cut short"]),
        (
            METHANE.replace("5\n", "4\n", 1) + WATER,
            ["record 2", "line 7", "number of atoms", "record before"],
        ),
        (METHANE.replace("5\n", "6\n", 1) + WATER, ["record 1", "line 8", "symbol x y z"]),
        (METHANE.replace("0.63 0.63 0.63", "0.63 0.63 0.63 0.1"), ["line 4", "symbol x y z"]),
        (METHANE.replace("0.63 0.63 0.63", "0.63 abc 0.63"), ["line 4", "symbol x y z"]),
        (METHANE.replace("0.63 0.63 0.63", "0.63 nan 0.63"), ["not a finite number", "methane"]),
        (METHANE.replace("H 0.63 0.63 0.63", "Hx 0.63 0.63 0.63"), ["no element", "'Hx'", "methane"]),
        (METHANE.replace("0.63 0.63 0.63", "0.01 0.0 0.0"), ["0.010 A apart", "methane", "record 1"]),
        (METHANE + METHANE, ["used twice", "record 2", "line 8"]),
        (
            METHANE.replace("methane C", "Properties=species:S:1:pos:R:4") + WATER,
            ["record 1", "not readable"],
        ),
        (METHANE + WATER.replace("water O", 'Lattice="1 0 0 0 1 0 0 0 1"'), ["record 2", "extended xyz"]),
    ],
)
def test_wrong_xyz(tmp_path: Path, content: str, parts: list[str]) -> None:
    refuse(put(tmp_path, "wrong.xyz", content), *parts)


def test_records_before_the_wrong_one_are_given(tmp_path: Path) -> None:
    source = read_molecules(put(tmp_path, "a.xyz", METHANE + WATER + "3\n"))
    assert next(source).name == "methane"
    assert next(source).name == "water"
    with pytest.raises(StructureError, match="cut short"):
        next(source)


def test_damaged_files(tmp_path: Path) -> None:
    squeezed = gzip.compress((METHANE * 50).encode())
    refuse(put(tmp_path, "cut.xyz.gz", squeezed[: len(squeezed) // 2]), "damaged")
    refuse(put(tmp_path, "plain.xyz.gz", METHANE), "damaged")
    refuse(put(tmp_path, "binary.xyz", b"5\n\xff\xfe\x00\n"), "not text")
    refuse(tmp_path / "absent.xyz", "no such file")


def test_names_that_cannot_be(tmp_path: Path) -> None:
    refuse(put(tmp_path, "a.smi", "C a/b\n"), "'a/b'", "line 1")
    refuse(put(tmp_path, "b.smi", "C ..\n"), "'..'")


def test_wanted_names_only(tmp_path: Path) -> None:
    path = put(tmp_path, "a.smi", "C methane\nO water\n")
    assert list(read_molecules(path, wanted=lambda name: False)) == []
    refuse(path, "line 2", "no geometry", wanted=lambda name: name == "water")


def test_relaxation_needs_a_recipe(tmp_path: Path) -> None:
    refuse(put(tmp_path, "a.xyz", METHANE), "not how", relax=True)


def test_extended_xyz(tmp_path: Path) -> None:
    path = tmp_path / "images.xyz"
    water = molecule("H2O")
    water.info |= {"name": "water", "smiles": "O", "energy": -14.2}
    crystal = bulk("MgO", "rocksalt", a=4.2)
    crystal.info["name"] = "mgo"
    write(path, [water, crystal], format="extxyz")
    first, second = read_molecules(path)
    assert (first.name, first.smiles, first.structure.is_periodic) == ("water", "O", False)
    assert first.provenance["geometry"]["energy_eV"] == -14.2
    assert (second.name, second.structure.is_periodic) == ("mgo", True)
    assert [s.multiplicity for s in expand(second, "O")] == [1]


def test_extended_xyz_errors(tmp_path: Path) -> None:
    slab = bulk("MgO", "rocksalt", a=4.2)
    slab.pbc = (True, True, False)
    write(tmp_path / "slab.extxyz", slab)
    refuse(tmp_path / "slab.extxyz", "periodic in some directions only")
    path = tmp_path / "two.extxyz"
    write(path, [molecule("CH4"), molecule("CH4")])
    lines = path.read_text().splitlines()
    put(tmp_path, "two.extxyz", "\n".join(lines[:-2]))
    refuse(path, "not readable as extxyz")


def test_other_formats_through_ase(tmp_path: Path) -> None:
    write(tmp_path / "water.gen", molecule("H2O"))
    (water,) = read_molecules(tmp_path / "water.gen")
    assert (water.name, water.structure.formula, water.provenance["format"]) == ("water", "H2O", "gen")
    refuse(put(tmp_path, "a.nonsense", "what is this"), "not known")


def test_crystals_do_not_depend_on_file_or_wrapping(tmp_path: Path) -> None:
    crystal = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    write(tmp_path / "salt.cif", crystal)
    write(tmp_path / "POSCAR_salt", crystal, format="vasp", sort=True)
    moved = crystal.copy()
    moved.positions += moved.cell[0] - 2 * moved.cell[2]
    write(tmp_path / "moved.extxyz", moved)
    found = [next(read_molecules(tmp_path / n)) for n in ("salt.cif", "POSCAR_salt", "moved.extxyz")]
    assert [m.name for m in found] == ["salt", "salt", "moved"]
    assert [m.provenance["format"] for m in found] == ["cif", "poscar", "extxyz"]
    assert len({m.structure.key for m in found}) == 1
    assert [s.multiplicity for s in expand(found[0], "Cl")] == [4]


def test_crystal_errors(tmp_path: Path) -> None:
    write(tmp_path / "a.cif", bulk("NaCl", "rocksalt", a=5.64))
    text = (tmp_path / "a.cif").read_text()
    refuse(put(tmp_path, "half.cif", text.replace(" 1.0000", " 0.5000", 1)), "partly occupied")
    refuse(put(tmp_path, "none.cif", "data_x\n_cell_length_a 3\n"), "none.cif")
    refuse(put(tmp_path, "prose.cif", "nothing here"), "prose.cif")
    refuse(
        put(tmp_path, "POSCAR", "comment\n1.0\n4 0 0\n0 4 0\n0 0 4\n1\nDirect\n0 0 0\n"),
        "not readable as POSCAR",
    )
    refuse(put(tmp_path, "CONTCAR", "comment\n1.0\n4 0 0\n0 4 0\n"), "not readable as POSCAR")


def sdf(*, flat: bool = False, smiles: str = "CO", hydrogens: bool = True, name: str = "methanol") -> str:
    from rdkit import Chem
    from rdkit.Chem import rdDepictor, rdDistGeom

    mol = Chem.MolFromSmiles(smiles)
    if flat:
        rdDepictor.Compute2DCoords(mol)
    else:
        mol = Chem.AddHs(mol)
        rdDistGeom.EmbedMolecule(mol, randomSeed=7)
        mol = mol if hydrogens else Chem.RemoveHs(mol)
    mol.SetProp("_Name", name)
    return Chem.MolToMolBlock(mol) + "$$$$\n"


def test_sdf(tmp_path: Path) -> None:
    first, second = read_molecules(put(tmp_path, "a.sdf", sdf() + sdf(smiles="CC=O", name="ethanal")))
    assert (first.name, first.smiles, first.structure.formula) == ("methanol", "CO", "CH4O")
    assert (second.name, second.structure.formula) == ("ethanal", "C2H4O")
    assert first.order[-1] == 1  # oxygen is the second atom of the file
    (packed,) = read_molecules(put(tmp_path, "b.sdf.gz", gzip.compress(sdf().encode())))
    assert packed.structure.key == first.structure.key


def test_sdf_errors(tmp_path: Path) -> None:
    good = sdf()
    refuse(put(tmp_path, "cut.sdf", good + good[:200]), "record 2", "RDKit refuses")
    refuse(put(tmp_path, "ion.sdf", sdf(smiles="C[NH3+]")), "record 1", "charged")
    refuse(put(tmp_path, "radical.sdf", sdf(smiles="[CH3]")), "radical")
    refuse(put(tmp_path, "bare.sdf", sdf(hydrogens=False)), "without all its hydrogens")
    refuse(put(tmp_path, "flat.sdf", sdf(flat=True)), "no geometry")


def test_smiles_lists_need_a_geometry(tmp_path: Path) -> None:
    refuse(put(tmp_path, "a.smi", "# comment\n\nCCO ethanol\n"), "line 3, record 1 (ethanol)", "no geometry")
    refuse(put(tmp_path, "a.csv", "gdb_id,smiles\n7,CC\n"), "line 2, record 1 (gdb_7)", "no geometry")
    refuse(put(tmp_path, "b.csv", "\ufeffname,SMILES\nx,CC\n"), "(x)", "no geometry")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("name,formula\nx,C\n", ["line 1", "no column 'smiles'"]),
        ("name,smiles\nx,C,3\n", ["line 2", "3 fields"]),
        ("name,smiles\nx,\n", ["line 2", "no SMILES"]),
        ('name,smiles\nx,"C\n', ["not a CSV"]),
    ],
)
def test_wrong_csv(tmp_path: Path, content: str, parts: list[str]) -> None:
    refuse(put(tmp_path, "a.csv", content), *parts)


def test_absent_element_names_the_molecule(tmp_path: Path) -> None:
    (water,) = read_molecules(put(tmp_path, "w.xyz", WATER))
    with pytest.raises(StructureError, match=r"w\.xyz, water: there is no C in H2O"):
        expand(water, "C")


def test_reading_xyz_loads_no_heavy_library(tmp_path: Path) -> None:
    path = put(tmp_path, "w.xyz", METHANE)
    code = (
        "import sys; from htxas.structures.read import read_molecules, expand\n"
        f"assert [len(expand(m, 'C')) for m in read_molecules({str(path)!r})] == [1]\n"
        "print([m for m in ('ase', 'rdkit', 'pymatgen', 'spglib', 'tblite', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not SHARED.exists(), reason="needs the QM9 geometries")
def test_the_published_set_expands_in_time() -> None:
    start = time.process_time()
    molecules = carbons = sites = 0
    for source in read_molecules(SHARED / "ck_geometries.xyz.gz"):
        found = expand(source, "C", 0.05)
        molecules += 1
        sites += len(found)
        carbons += sum(s.multiplicity for s in found)
        assert source.smiles is not None
    assert (molecules, carbons, sites) == (21_323, 118_343, 114_112)
    assert time.process_time() - start < 20  # of one core, whatever else runs
    assert np.isfinite(source.structure.positions_A).all()
