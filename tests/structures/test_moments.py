"""Magnetic moments and constraints of files: read right, or refused; never dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength
from ase.io import write
from pymatgen.core import Lattice, Species, Structure
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp.inputs import Poscar

from htxas.errors import StructureError
from htxas.structures.geometry import GeometryMaker
from htxas.structures.moments import collinear_muB
from htxas.structures.read import expand, read_molecules
from htxas.structures.relax import Relaxed
from htxas.structures.source import SourceMolecule

# Rutile FeF2's magnetic structure (P4_2'/mnm', moments along c), operations written out.
FEF2 = """\
data_FeF2
_cell_length_a 4.70
_cell_length_b 4.70
_cell_length_c 3.31
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_magn.name_BNS "P4_2'/mnm'"
loop_
_space_group_symop_magn_operation.id
_space_group_symop_magn_operation.xyz
1 x,y,z,+1
2 -x,-y,z,+1
3 -y+1/2,x+1/2,z+1/2,-1
4 y+1/2,-x+1/2,z+1/2,-1
5 x+1/2,-y+1/2,-z+1/2,-1
6 -x+1/2,y+1/2,-z+1/2,-1
7 y,x,-z,+1
8 -y,-x,-z,+1
9 -x,-y,-z,+1
10 x,y,-z,+1
11 y+1/2,-x+1/2,-z+1/2,-1
12 -y+1/2,x+1/2,-z+1/2,-1
13 -x+1/2,y+1/2,z+1/2,-1
14 x+1/2,-y+1/2,z+1/2,-1
15 -y,-x,z,+1
16 y,x,z,+1
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Fe1 Fe 0 0 0 1
F1 F 0.301 0.301 0 1
loop_
_atom_site_moment.label
_atom_site_moment.crystalaxis_x
_atom_site_moment.crystalaxis_y
_atom_site_moment.crystalaxis_z
Fe1 0 0 3.93
"""


def put(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def only(path: Path) -> SourceMolecule:
    (found,) = read_molecules(path)
    return found


def moments(path: Path) -> list[float] | None:
    """Return the moments in the order of the file."""
    found = only(path)
    if found.structure.moments_muB is None:
        return None
    return found.structure.moments_muB[np.argsort(found.order)].tolist()


def refuse(path: Path, *parts: str) -> None:
    with pytest.raises(StructureError) as caught:
        list(read_molecules(path))
    text = str(caught.value)
    assert "\n" not in text
    for part in (str(path), *parts):
        assert part in text


def iron_oxide(**arrays: object) -> Atoms:
    atoms = bulk("FeO", "rocksalt", a=4.3, cubic=True)[[0, 1, 2, 3]]
    for name, values in arrays.items():
        atoms.set_array(name, np.array(values))
    return atoms


@pytest.mark.parametrize("suffix", ["extxyz", "xyz", "traj", "json"])
def test_initial_moments_of_ase(tmp_path: Path, suffix: str) -> None:
    atoms = iron_oxide(initial_magmoms=[3.7, 0.01, -3.7, 0.0])
    path = tmp_path / f"feo.{suffix}"
    write(path, atoms, format="extxyz" if suffix == "xyz" else None)
    assert moments(path) == [3.7, 0.01, -3.7, 0.0]


def test_calculated_moments_come_before_initial_ones(tmp_path: Path) -> None:
    atoms = iron_oxide(initial_magmoms=[5.0, 0, -5.0, 0])
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, magmoms=[3.6, 0.1, -3.6, -0.1], magmom=0.0)
    write(tmp_path / "a.extxyz", atoms)
    assert moments(tmp_path / "a.extxyz") == [3.6, 0.1, -3.6, -0.1]
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, magmoms=[0.0] * 4)
    write(tmp_path / "b.extxyz", atoms)
    refuse(tmp_path / "b.extxyz", "record 1", "calculated ones of zero", "initial_magmoms or magmoms")


def test_zeros_and_noise_are_no_moments(tmp_path: Path) -> None:
    plain = iron_oxide()
    write(tmp_path / "plain.extxyz", plain)
    for name, values in (("zero", [0.0] * 4), ("noise", [2e-4, 0, -3e-4, 0])):
        write(tmp_path / f"{name}.extxyz", iron_oxide(initial_magmoms=values))
        assert moments(tmp_path / f"{name}.extxyz") is None
        assert only(tmp_path / f"{name}.extxyz").structure == only(tmp_path / "plain.extxyz").structure


def xyz(columns: str, *rows: str, info: str = "") -> str:
    head = f'{len(rows)}\nProperties=species:S:1:pos:R:3{columns} pbc="F F F" {info}\n'
    return head + "".join(f"O 0 0 {1.2 * i} {row}\n" for i, row in enumerate(rows))


def test_columns_of_extended_xyz(tmp_path: Path) -> None:
    assert moments(put(tmp_path, "a.xyz", xyz(":magmoms:R:1", "1.0", "1.0"))) == [1.0, 1.0]
    assert moments(put(tmp_path, "b.xyz", xyz(":magmom:R:1", "1.0", "1.0"))) == [1.0, 1.0]
    assert moments(put(tmp_path, "c.xyz", xyz(":magmoms:R:1", "1", "1", info="magmom=2.0"))) == [1.0, 1.0]
    assert moments(put(tmp_path, "d.xyz", xyz(":initial_magmoms:R:1:spin:R:1", "1 0", "1 0"))) == [1.0, 1.0]
    for name in ("spin", "magnetic_moments", "dft_magmom", "moment"):
        refuse(put(tmp_path, "e.xyz", xyz(f":{name}:R:1", "1", "1")), f"column {name!r}", "initial_magmoms")
    assert moments(put(tmp_path, "f.xyz", xyz(":dipole_moments:R:3", "1 0 0", "0 1 0"))) is None
    refuse(
        put(tmp_path, "g.xyz", xyz("", "", "", info="magmom=2.0")),
        "total magnetic moment of 2",
        "of the atoms",
    )
    assert moments(put(tmp_path, "h.xyz", xyz("", "", "", info="magmom=0.0"))) is None
    refuse(put(tmp_path, "i.xyz", xyz(":initial_magmoms:S:1", "up", "down")), "not numbers")
    refuse(put(tmp_path, "j.xyz", xyz(":initial_magmoms:R:1", "nan", "1")), "not one finite number")


def test_a_plain_xyz_has_no_place_for_moments(tmp_path: Path) -> None:
    refuse(put(tmp_path, "a.xyz", "2\noxygen\nO 0 0 0 1.0\nO 0 0 1.2 1.0\n"), "expected symbol x y z")


def test_vectors_along_one_axis_are_collinear(tmp_path: Path) -> None:
    path = put(tmp_path, "a.xyz", xyz(":magmoms:R:3", "0 0 1", "0 0 -2"))
    assert moments(path) == [1.0, -2.0]
    refuse(put(tmp_path, "b.xyz", xyz(":magmoms:R:3", "0 0 1", "0 1 0")), "noncollinear", "record 1")
    refuse(put(tmp_path, "c.xyz", xyz(":magmoms:R:3", "0 0 3", "0 0.05 3")), "noncollinear")  # a canting
    axis = np.array([1.0, -2.0, 2.0]) / 3
    for turned in (axis, -axis):  # the sign is the axis's, not the first atom's
        found = collinear_muB(np.outer([1.0, 0.0, -2.5], turned), 3, "here")
        assert found == pytest.approx(np.array([-1.0, 0.0, 2.5]) * (1 if turned is axis else -1))
    assert collinear_muB(np.zeros((3, 3)), 3, "here") is None


def test_a_magnetic_cif_keeps_its_two_sublattices(tmp_path: Path) -> None:
    for name in ("a.mcif", "b.cif"):
        found = only(put(tmp_path, name, FEF2))
        structure = found.structure
        assert (structure.formula, found.provenance["format"]) == ("F4Fe2", "cif")
        assert structure.moments_muB is not None
        by_element = sorted(zip(structure.symbols, structure.moments_muB.tolist(), strict=True))
        assert by_element == [("F", 0.0)] * 4 + [("Fe", -3.93), ("Fe", 3.93)]
        assert [s.multiplicity for s in expand(found, "Fe")] == [1, 1]
        assert [s.multiplicity for s in expand(found, "F")] == [2, 2]  # near iron that is up, or down
    plain = FEF2.replace("Fe1 0 0 3.93", "Fe1 0 0 0")
    assert [s.multiplicity for s in expand(only(put(tmp_path, "c.mcif", plain)), "F")] == [4]


def test_moments_along_a_hexagonal_axis(tmp_path: Path) -> None:
    """Components count along axes that are not at right angles: (m, 2m) is a moment across a, of sqrt(3) m."""
    text = FEF2.replace("_length_b 4.70", "_length_b 4.70\n_cell_length_x 0").replace("gamma 90", "gamma 120")
    text = (
        text.split("_space_group_magn")[0].replace("_cell_length_x 0\n", "")
        + "loop_"
        + text.split("loop_")[2]
    )
    text += "loop_\n_atom_site_moment_label\n" + "".join(
        f"_atom_site_moment_crystalaxis_{a}\n" for a in "xyz"
    )
    path = put(tmp_path, "a.mcif", text + "Fe1 1.0 2.0 0\n")
    assert moments(path) == pytest.approx([1.732, 0.0], abs=1e-3)


def magnetic_cif(vectors: list[list[float]]) -> str:
    crystal = Structure(
        Lattice.cubic(4.2), ["Ni", "Ni"], [[0, 0, 0], [0.5, 0.5, 0]], site_properties={"magmom": vectors}
    )
    return str(CifWriter(crystal, write_magmoms=True))


def test_magnetic_cifs_of_pymatgen(tmp_path: Path) -> None:
    assert moments(put(tmp_path, "a.cif", magnetic_cif([[0, 0, 2], [0, 0, -2]]))) == [2.0, -2.0]
    assert moments(put(tmp_path, "b.cif", magnetic_cif([[1, 1, 0], [-1, -1, 0]]))) == [1.414, -1.414]
    refuse(put(tmp_path, "c.cif", magnetic_cif([[0, 2, 0], [2, 0, 0]])), "noncollinear")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("crystalaxis", "Cartn", "not given along the crystal's axes"),
        (
            "_atom_site_moment.crystalaxis_x",
            "_ATOM_SITE_MOMENT.CRYSTALAXIS_X",
            "not given along the crystal's axes",
        ),
        ("Fe1 0 0 3.93", "Fe2 0 0 3.93", "a magnetic moment of 'Fe2', which is no atom"),
        ("Fe1 0 0 3.93", "Fe1 0 0 many", "a magnetic moment of 'many'"),
        ("Fe1 0 0 3.93", "Fe1 ? ? ?", "a magnetic moment of '?'"),
        ("data_FeF2", "data_FeF2\n_cell_modulation_dimension 1", "not readable as CIF: Incommensurate"),
        (
            "_space_group_magn.name_BNS \"P4_2'/mnm'\"",
            "_space_group_IT_number 136",
            "do not say what they do",
        ),
        (
            "_space_group_magn.name_BNS \"P4_2'/mnm'\"",
            "_space_group_name_H-M_alt 'P 42/m n m'",
            "do not say what",
        ),
    ],
)
def test_magnetic_cifs_that_would_lose_something(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FEF2
    text = FEF2.replace(old, new)
    if "do not say" in message:
        head, tail = text.split("loop_", 1)
        text = head + "loop_" + tail.split("loop_", 1)[1]
    refuse(put(tmp_path, "a.mcif", text), message)


def test_moments_outside_a_loop(tmp_path: Path) -> None:
    head, tail = FEF2.rsplit("loop_", 1)
    values = "Fe1 0 0 3.93".split()
    items = [line for line in tail.splitlines() if line.startswith("_")]
    flat = "".join(f"{item} {value}\n" for item, value in zip(items, values, strict=True))
    refuse(put(tmp_path, "a.mcif", head + flat), "a.mcif")


def test_species_with_spins_are_refused(tmp_path: Path) -> None:
    species = [Species("Ni", 2, spin=5), Species("Ni", 2, spin=-5)]
    crystal = Structure(Lattice.cubic(4.2), species, [[0, 0, 0], [0.5, 0.5, 0]])
    refuse(put(tmp_path, "a.cif", str(CifWriter(crystal))), "species with spins", "magnetic CIF")
    refuse(put(tmp_path, "POSCAR", str(Poscar(crystal))), "species with spins")


class Still:
    """Moves nothing, and must not be asked."""

    @property
    def settings(self) -> dict[str, str | float]:
        return {"method": "still"}

    def relax(self, symbols, positions_A, *, where=None) -> Relaxed:
        return Relaxed(positions_A, 0.0, 0, 0.0, "still", "none")


def relaxed(path: Path, folder: Path) -> list[SourceMolecule]:
    return list(read_molecules(path, geometry=GeometryMaker(folder / "kept", Still()), relax=True))


def test_atoms_held_in_place_are_not_relaxed(tmp_path: Path) -> None:
    water = molecule("H2O")
    water.set_constraint([FixAtoms([0]), FixAtoms([1])])
    path = tmp_path / "held.extxyz"
    write(path, water)
    assert "move_mask" in path.read_text()
    with pytest.raises(
        StructureError, match=r"held\.extxyz, held: .*in place \(FixAtoms\).*take the constraints out"
    ):
        relaxed(path, tmp_path)
    assert only(path).constraints == ("FixAtoms",)  # and computed as it is

    water.set_constraint(FixBondLength(0, 1))
    write(tmp_path / "bond.traj", water)
    with pytest.raises(StructureError, match="FixBondLength"):
        relaxed(tmp_path / "bond.traj", tmp_path)

    text = xyz(":move_mask:L:3", "T T T", "T T F")
    with pytest.raises(StructureError, match="FixCartesian"):
        relaxed(put(tmp_path, "one.xyz", text), tmp_path)
    for free in (xyz(":move_mask:L:3", "T T T", "T T T"), xyz(":move_mask:L:1", "T", "T")):
        assert only(put(tmp_path, "free.xyz", free)).constraints == ()
        relaxed(tmp_path / "free.xyz", tmp_path)


def test_selective_dynamics(tmp_path: Path) -> None:
    crystal = Structure(Lattice.cubic(4.2), ["Ni", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    held = Poscar(crystal, selective_dynamics=[[True] * 3, [True, True, False]])
    free = Poscar(crystal, selective_dynamics=[[True] * 3] * 2)
    assert only(put(tmp_path, "POSCAR_held", str(held))).constraints == ("selective dynamics",)
    assert only(put(tmp_path, "POSCAR_free", str(free))).constraints == ()
    assert only(tmp_path / "POSCAR_held").structure == only(tmp_path / "POSCAR_free").structure
    with pytest.raises(StructureError, match="crystals are not relaxed"):
        relaxed(tmp_path / "POSCAR_held", tmp_path)


def test_a_molecule_with_moments_is_not_relaxed_without_them(tmp_path: Path) -> None:
    path = put(tmp_path, "oxygen.xyz", xyz(":initial_magmoms:R:1", "1", "1"))
    with pytest.raises(
        StructureError, match=r"oxygen\.xyz, oxygen: a molecule with magnetic moments is not relaxed"
    ):
        relaxed(path, tmp_path)
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(("key", "value"), [("charge", 1), ("charge", "unknown"), ("multiplicity", 3)])
def test_what_a_file_says_of_charge_and_spin_is_not_dropped(tmp_path: Path, key: str, value: object) -> None:
    atoms = Atoms("CO", [[0, 0, 0], [0, 0, 1.13]], info={key: value, "name": "co"})
    write(tmp_path / "a.extxyz", atoms)
    refuse(tmp_path / "a.extxyz", "record 1", f"{key}={value}")
    atoms.info[key] = {"charge": 0, "multiplicity": 1}[key]
    write(tmp_path / "b.extxyz", atoms)
    assert len(list(read_molecules(tmp_path / "b.extxyz"))) == 1
