"""Known molecules and crystals, cases that fool distance fingerprints, and what must not change the outcome."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from htxas.domain.structure import Structure
from htxas.errors import StructureError, UserError
from htxas.structures import symmetry
from htxas.structures.symmetry import symmetry_permutations, unique_sites

SHARED = Path(__file__).parents[3] / "shared/data/ck_molecules/ck_geometries.xyz.gz"


def g2(name: str) -> Structure:
    atoms = molecule(name)
    return Structure.from_atoms(atoms.get_chemical_symbols(), atoms.positions)[0]


def crystal(atoms) -> Structure:
    return Structure.from_atoms(atoms.get_chemical_symbols(), atoms.positions, atoms.cell.array)[0]


def multiplicities(structure: Structure, element: str = "C", tolerance_A: float = 0.05) -> list[int]:
    return sorted(s.multiplicity for s in unique_sites(structure, element, tolerance_A))


def naphthalene() -> Structure:
    rings = [1.4 * np.array([np.cos(a), np.sin(a), 0]) for a in np.radians(np.arange(30, 390, 60))]
    shift = np.array([1.4 * np.sqrt(3), 0, 0])
    carbon = {tuple(np.round(p, 6)) for p in rings} | {tuple(np.round(p + shift, 6)) for p in rings}
    carbon_xyz = np.array(sorted(carbon))
    hydrogen = []
    for p in carbon_xyz:
        near = carbon_xyz[np.argsort(np.linalg.norm(carbon_xyz - p, axis=1))[1:4]]
        near = near[np.linalg.norm(near - p, axis=1) < 1.5]
        if len(near) == 2:
            out = 2 * p - near.sum(axis=0)
            hydrogen.append(p + 1.09 * out / np.linalg.norm(out))
    return Structure.from_atoms(["C"] * 10 + ["H"] * 8, np.vstack([carbon_xyz, hydrogen]))[0]


def neopentane() -> Structure:
    corners = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]) / np.sqrt(3)
    symbols, positions = ["C"], [np.zeros(3)]
    for k, corner in enumerate(corners):
        symbols += ["C", "H", "H", "H"]
        positions.append(1.53 * corner)
        # staggered: hydrogens point against the other three carbons
        positions += [1.53 * corner - 1.09 * other for other in np.delete(corners, k, axis=0)]
    return Structure.from_atoms(symbols, positions)[0]


def test_known_molecules() -> None:
    assert multiplicities(g2("C6H6")) == [6]
    assert multiplicities(g2("C6H6"), "H") == [6]
    assert multiplicities(g2("CH4")) == [1]
    assert multiplicities(g2("CH4"), "H") == [4]
    assert multiplicities(g2("C3H4_D2d")) == [1, 2]  # allene
    assert multiplicities(g2("C3H4_D2d"), "H") == [4]
    assert multiplicities(naphthalene()) == [2, 4, 4]
    assert multiplicities(neopentane()) == [1, 4]
    assert multiplicities(neopentane(), "H") == [12]
    assert multiplicities(g2("CH3CH2OH")) == [1, 1]
    assert multiplicities(g2("CO2"), "O") == [2]


@pytest.mark.parametrize(
    ("name", "operations"),
    [("CH4", 24), ("C6H6", 12), ("C2H6", 12), ("C2H2", 2), ("C3H4_D2d", 8), ("H2O", 2)],
)
def test_group_orders(name: str, operations: int) -> None:
    # planar and linear molecules: operations that exchange no atoms are the identity
    group = symmetry_permutations(g2(name), 0.01)
    assert group.shape == (operations, len(g2(name)))
    assert (group[0] == np.arange(len(g2(name)))).all()


def test_buckminsterfullerene_has_one_carbon() -> None:
    golden = (1 + np.sqrt(5)) / 2
    points = set()
    for base in ((0, 1, 3 * golden), (1, 2 + golden, 2 * golden), (golden, 2, golden**3)):
        for signs in itertools.product((1, -1), repeat=3):
            signed = tuple(s * b for s, b in zip(signs, base, strict=True))
            points |= {signed[k:] + signed[:k] for k in range(3)}
    structure = Structure.from_atoms(["C"] * 60, 0.71 * np.array(sorted(points)))[0]
    assert multiplicities(structure) == [60]
    assert len(symmetry_permutations(structure)) == 120


def test_mirror_images_within_a_molecule_are_one_site() -> None:
    # meso-CHFCl-CHFCl with the fluorines opposite: only the inversion exchanges the carbons
    assert multiplicities(dihalide(180.0)) == [2]


def dihalide(twist_deg: float) -> Structure:
    """CHFCl-CHFCl, the second carbon a mirror image of the first, turned about the bond; all angles ideal."""
    symbols, positions = ["C", "C"], [np.zeros(3), np.array([0, 0, 1.54])]
    lean = np.radians(109.4712)
    for k, (symbol, length) in enumerate((("H", 1.09), ("F", 1.38), ("Cl", 1.77))):
        for z, up, start in ((0.0, 1, 0.0), (1.54, -1, twist_deg)):
            phi = np.radians(start + 120 * k)
            arm = length * np.array(
                [np.sin(lean) * np.cos(phi), np.sin(lean) * np.sin(phi), up * np.cos(lean)]
            )
            symbols.append(symbol)
            positions.append(arm + np.array([0, 0, z]))
    return Structure.from_atoms(symbols, positions)[0]


def test_fingerprints_agree_where_no_operation_exists() -> None:
    # turned by an angle that is neither eclipsed, anti nor any other symmetric one
    structure = dihalide(47.0)
    first, second = structure.indices_of("C")
    fingerprint = symmetry._Geometry(structure).fingerprint
    assert np.abs(fingerprint[first] - fingerprint[second]).max() < 2e-6
    assert multiplicities(structure) == [1, 1]
    assert len(symmetry_permutations(structure, 0.2)) == 1


def test_staggered_and_eclipsed_ethane() -> None:
    ethane = g2("C2H6")
    assert multiplicities(ethane) == [2]
    assert multiplicities(ethane, "H") == [6]


def test_tolerance_is_the_largest_displacement() -> None:
    # one hydrogen of water lifted by delta: the best fit leaves less than delta on each atom, more than a third
    positions = np.array([(0, 0, 0), (0.757, 0.586, 0), (-0.757, 0.586, 0)])
    positions[1] += (0.06, 0, 0)
    structure = Structure.from_atoms(["O", "H", "H"], positions)[0]
    moved = symmetry._displacements(symmetry._Geometry(structure).position, np.array([[1, 0, 2]]))[0]
    assert 0.02 < moved < 0.06
    assert multiplicities(structure, "H", moved + 1e-4) == [2]
    assert multiplicities(structure, "H", moved - 1e-4) == [1, 1]


def test_no_chaining_of_nearly_equivalent_atoms() -> None:
    # A planar ring of six, each bond to its hydrogen a little longer than the last: neighbours differ by less than the
    # tolerance, first and last by more. A site never holds two atoms that no operation within the tolerance relates.
    angle = np.radians(60 * np.arange(6))
    ring = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    stretch = (1 + 0.02 * np.arange(6))[:, None]
    structure = Structure.from_atoms(["C"] * 6 + ["H"] * 6, np.vstack([1.4 * ring, 2.5 * stretch * ring]))[0]
    for tolerance in (0.005, 0.02, 0.05, 0.1, 0.15, 0.2):
        group = symmetry_permutations(structure, tolerance)
        worst = symmetry._displacements(symmetry._Geometry(structure).position, group).max()
        assert worst <= tolerance + 1e-9
        assert symmetry._is_closed(group)
        for site in unique_sites(structure, "C", tolerance):
            pairs = {(int(p[a]), int(a)) for p in group for a in site.equivalent}
            assert set(itertools.product(site.equivalent, repeat=2)) <= pairs
    assert multiplicities(structure, "C", 0.001) == [1] * 6


def test_operations_that_do_not_make_a_group_are_dropped() -> None:
    # near-D2h rectangle: both mirrors within the tolerance, their product outside it
    x = np.array([(1.5, 1.0, 0), (-1.5, 1.0, 0), (-1.5, -1.0, 0), (1.5, -1.0, 0)])
    x[0] += (0.05, 0.05, 0)
    structure = Structure.from_atoms(["C"] * 4, x)[0]
    geometry = symmetry._Geometry(structure)
    alike = np.ones((4, 4), dtype=bool)
    every = symmetry._permutations(geometry.distance, alike, geometry.frame(alike), 0.5)
    displacement = np.unique(np.round(symmetry._displacements(geometry.position, every), 6))
    for low, high in itertools.pairwise(displacement):
        assert symmetry._is_closed(symmetry_permutations(structure, min((low + high) / 2, 0.2)))


def test_crystals() -> None:
    assert multiplicities(crystal(bulk("C", "diamond", a=3.567, cubic=True))) == [8]
    magnesia = crystal(bulk("MgO", "rocksalt", a=4.212, cubic=True))
    assert multiplicities(magnesia, "O") == [4]
    assert multiplicities(magnesia, "Mg") == [4]


def with_moments(structure: Structure, moments_muB: list[float]) -> Structure:
    return Structure.from_atoms(
        structure.symbols, structure.positions_A, structure.cell_A, moments_muB=moments_muB
    )[0]


def test_atoms_with_different_moments_are_different_sites() -> None:
    oxygen = g2("O2")
    assert multiplicities(with_moments(oxygen, [1, 1]), "O") == [2]
    assert multiplicities(with_moments(oxygen, [1, -1]), "O") == [1, 1]
    methane, benzene = g2("CH4"), g2("C6H6")
    up = [i == methane.indices_of("H")[0] for i in range(5)]
    assert multiplicities(with_moments(methane, [float(u) for u in up]), "H") == [1, 3]
    # a moment on one carbon tells the other carbons apart, and the hydrogens: C2v is left of D6h
    one = [float(i == benzene.indices_of("C")[0]) for i in range(12)]
    assert multiplicities(with_moments(benzene, one), "C") == [1, 1, 2, 2]
    assert multiplicities(with_moments(benzene, one), "H") == [1, 1, 2, 2]
    assert len(symmetry_permutations(with_moments(benzene, one))) == 2
    # equal moments everywhere change nothing
    assert multiplicities(with_moments(benzene, [0.5] * 12), "C") == [6]


def test_sublattices_of_a_crystal_are_different_sites() -> None:
    oxide = crystal(bulk("NiO", "rocksalt", a=4.17, cubic=True))
    nickel = [s == "Ni" for s in oxide.symbols]
    assert multiplicities(with_moments(oxide, [1.7 * n for n in nickel]), "Ni") == [4]
    layer = np.round(oxide.positions_A[:, 2] / 2.085).astype(int) % 2  # up and down along z
    layered = with_moments(oxide, [1.7 * n * (1 - 2 * z) for n, z in zip(nickel, layer, strict=True)])
    assert multiplicities(layered, "Ni") == [2, 2]
    assert multiplicities(layered, "O") == [2, 2]
    for site in unique_sites(layered, "Ni"):
        assert layered.moments_muB is not None
        assert len({float(layered.moments_muB[a]) for a in site.equivalent}) == 1


def quartz(shift_A: float = 0.0) -> Structure:
    """Alpha-quartz, P3_221; Levien, Prewitt, Weidner, Am. Mineral. 65, 920 (1980)."""
    a, c = 4.916, 5.4054  # origin on the threefold screw axis: z is 2/3 more than in the paper
    cell = np.array([(a, 0, 0), (-a / 2, a * np.sqrt(3) / 2, 0), (0, 0, c)])
    u, (x, y, z) = 0.4697, (0.4135, 0.2669, 0.1191 + 2 / 3)
    silicon = [(u, 0, 2 / 3), (0, u, 1 / 3), (-u, -u, 0)]
    oxygen = [
        (x, y, z), (-y, x - y, z + 2 / 3), (y - x, -x, z + 1 / 3),
        (y, x, -z), (x - y, -y, 1 / 3 - z), (-x, y - x, 2 / 3 - z),
    ]  # fmt: skip
    positions = (np.array(silicon + oxygen) % 1) @ cell
    positions[3, 2] += shift_A
    return Structure.from_atoms(["Si"] * 3 + ["O"] * 6, positions, cell)[0]


def test_quartz_and_its_distortion() -> None:
    assert multiplicities(quartz(), "O") == [6]
    assert multiplicities(quartz(), "Si") == [3]
    assert multiplicities(quartz(0.01), "O", 0.05) == [6]
    assert len(multiplicities(quartz(0.3), "O", 0.05)) > 1


def test_crystal_without_space_group_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spglib.get_symmetry_dataset", lambda *_, **__: None)
    with pytest.raises(StructureError, match="spglib finds no space group for O6Si3 at"):
        unique_sites(quartz(), "O")


def test_errors() -> None:
    with pytest.raises(StructureError, match=r"there is no C in H2O"):
        unique_sites(g2("H2O"), "C")
    for tolerance in (0.0, -1.0, 0.3, float("nan")):
        with pytest.raises(UserError, match="symmetry tolerance"):
            unique_sites(g2("CH4"), "C", tolerance)
    with pytest.raises(StructureError, match="crystal"):
        symmetry_permutations(quartz())


def test_blurred_molecule_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetry, "_MOST_PARTIAL_MAPS", 3)
    with pytest.raises(StructureError, match="lower the symmetry tolerance"):
        unique_sites(g2("C6H6"), "C")


MOLECULES = [
    g2("C6H6"), g2("C2H6"), g2("C3H4_D2d"), g2("CH3CH2OH"), g2("C2H2"), g2("bicyclobutane"), naphthalene(),
    neopentane(), dihalide(47.0), dihalide(60.0), dihalide(180.0), g2("isobutane"), g2("C5H8"),
]  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    structure=st.sampled_from(MOLECULES),
    seed=st.integers(0, 2**32 - 1),
    mirror=st.booleans(),
    tolerance_A=st.sampled_from([0.01, 0.05]),
)
def test_invariant_under_isometry_and_atom_order(
    structure: Structure, seed: int, mirror: bool, tolerance_A: float
) -> None:
    generator = np.random.default_rng(seed)
    turned = structure.positions_A @ Rotation.random(rng=generator).as_matrix().T + generator.uniform(
        -50, 50, 3
    )
    if mirror:
        turned[:, 2] *= -1
    shuffle = generator.permutation(len(structure))
    other, order = Structure.from_atoms([structure.symbols[i] for i in shuffle], turned[shuffle])
    back = [int(shuffle[i]) for i in order]  # atom i of `other` is atom back[i] of `structure`
    for element in structure.composition:
        want = {frozenset(s.equivalent) for s in unique_sites(structure, element, tolerance_A)}
        got = {frozenset(back[a] for a in s.equivalent) for s in unique_sites(other, element, tolerance_A)}
        assert got == want


@settings(derandomize=True, deadline=None, max_examples=60)
@given(structure=st.sampled_from(MOLECULES), seed=st.integers(0, 2**32 - 1), noise_A=st.floats(0, 0.06))
def test_sites_partition_the_element_and_obey_the_tolerance(
    structure: Structure, seed: int, noise_A: float
) -> None:
    noise = np.random.default_rng(seed).normal(scale=noise_A / 3, size=(len(structure), 3))
    shaken = Structure.from_atoms(structure.symbols, structure.positions_A + noise)[0]
    sites = unique_sites(shaken, "C", 0.05)
    assert sorted(a for s in sites for a in s.equivalent) == list(shaken.indices_of("C"))
    assert [s.atom for s in sites] == sorted(min(s.equivalent) for s in sites)
    group = symmetry_permutations(shaken, 0.05)
    assert symmetry._is_closed(group)
    assert symmetry._displacements(symmetry._Geometry(shaken).position, group).max() <= 0.05 + 1e-9


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(2, 6), flat=st.booleans(), tolerance_A=st.floats(0.01, 0.2)
)
def test_search_misses_no_permutation(seed: int, n: int, flat: bool, tolerance_A: float) -> None:
    # against all n! permutations, on points near a coarse grid so that near-symmetries abound
    generator = np.random.default_rng(seed)
    grid = np.array(list(itertools.product(range(3), range(3), [0] if flat else range(3))), dtype=float)
    points = grid[generator.choice(len(grid), n, replace=False)] + generator.normal(scale=0.03, size=(n, 3))
    structure = Structure.from_atoms(["C"] * n, points)[0]
    geometry = symmetry._Geometry(structure)
    every = np.array(list(itertools.permutations(range(n))))
    within = {tuple(p) for p in every[symmetry._displacements(geometry.position, every) <= tolerance_A]}
    alike = geometry.alike(slice(None), tolerance_A)
    found = symmetry._permutations(geometry.distance, alike, geometry.frame(alike), 2 * tolerance_A + 1e-9)
    assert within <= {tuple(p) for p in found.tolist()}


@pytest.mark.skipif(not SHARED.exists(), reason="needs the QM9 geometries")
def test_real_molecules_that_fool_fingerprints() -> None:
    # carbons of gdb_4536 have fingerprints within 0.018 A, but the nearest operation displaces an atom by 1.0 A
    wanted = {"gdb_4536": 5, "gdb_3630": 6, "gdb_4563": 4}
    found = {}
    with gzip.open(SHARED, "rt") as lines:
        for line in lines:
            atoms = [next(lines).split() for _ in range(int(line) + 1)]
            name = atoms[0][0]
            if name in wanted:
                positions = [[float(v) for v in a[1:]] for a in atoms[1:]]
                structure = Structure.from_atoms([a[0] for a in atoms[1:]], positions)[0]
                found[name] = len(unique_sites(structure, "C", 0.05))
            if len(found) == len(wanted):
                break
    assert found == wanted
