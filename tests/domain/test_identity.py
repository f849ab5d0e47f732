from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.identity import canonical_json, content_key, tidy_float
from htxas.domain.structure import Structure
from htxas.errors import StructureError

FORMALDEHYDE = (["C", "O", "H", "H"], [[0, 0, -0.6], [0, 0, 0.605], [0, 0.943, -1.187], [0, -0.943, -1.187]])

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8) | st.floats(-1e6, 1e6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: object, rng: random.Random) -> object:
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {k: shuffled(value[k], rng) for k in keys}
    if isinstance(value, list):
        return [shuffled(v, rng) for v in value]
    return value


@given(plain, st.integers(0, 100))
def test_key_order_does_not_matter(value: object, seed: int) -> None:
    assert content_key(value) == content_key(shuffled(value, random.Random(seed)))


@given(st.floats(-1e9, 1e9).filter(lambda x: abs(x) > 1e-9))
def test_float_formatting_does_not_matter(x: float) -> None:
    assert canonical_json(x) == canonical_json(float(f"{x:.14e}"))


def test_equal_numbers_have_equal_text() -> None:
    assert canonical_json([0.1 + 0.2, 500.0, 1e-6]) == canonical_json([0.3, 500, 0.000001])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_a_number_is_no_identity(bad: float) -> None:
    with pytest.raises(ValueError, match="identity"):
        tidy_float(bad)


def test_true_is_not_one() -> None:
    assert content_key({"a": True}) != content_key({"a": 1})


@given(st.permutations(range(4)), st.floats(-4e-10, 4e-10))
def test_structure_key_ignores_order_and_noise(order: list[int], noise: float) -> None:
    symbols, positions = FORMALDEHYDE
    reference, _ = Structure.from_atoms(symbols, positions)
    other, back = Structure.from_atoms(
        [symbols[i] for i in order], np.asarray(positions)[list(order)] + noise
    )
    assert other.key == reference.key
    assert [[symbols[i] for i in order][k] for k in back] == list(reference.symbols)


@given(
    st.lists(
        st.tuples(*[st.decimals(-9, 9, places=7) for _ in range(3)]), min_size=1, max_size=5, unique=True
    )
)
def test_decimal_text_and_its_float_agree(rows: list[tuple[object, ...]]) -> None:
    """A coordinate that ends in 5 on the seventh decimal falls the same way, however it was written."""
    exact = [[float(str(x)) for x in row] for row in rows]
    noisy = [[float(f"{float(str(x)):.10f}") + 1e-13 for x in row] for row in rows]
    try:
        first = Structure.from_atoms(["C"] * len(rows), exact)[0]
    except StructureError:
        return
    assert first.key == Structure.from_atoms(["C"] * len(rows), noisy)[0].key


def test_a_moved_atom_is_another_structure() -> None:
    symbols, positions = FORMALDEHYDE
    moved = np.asarray(positions, dtype=float)
    moved[0, 0] += 2e-6
    assert Structure.from_atoms(symbols, positions)[0].key != Structure.from_atoms(symbols, moved)[0].key


def test_structure_survives_its_dictionary() -> None:
    structure, _ = Structure.from_atoms(*FORMALDEHYDE, np.eye(3) * 7)
    assert Structure.from_dict(structure.to_dict()).key == structure.key


@pytest.mark.parametrize(
    ("symbols", "positions", "message"),
    [
        ([], np.zeros((0, 3)), "no atoms"),
        (["C", "C"], [[0, 0, 0], [0, 0, 0.1]], "0.100 A apart"),
        (["Xx"], [[0, 0, 0]], "no element"),
        (["C"], [[0, 0, float("nan")]], "not a finite"),
        (["C"], [[0, 0]], "shape"),
    ],
)
def test_impossible_structures_are_refused(symbols: list[str], positions: object, message: str) -> None:
    with pytest.raises(StructureError, match=message) as caught:
        Structure.from_atoms(symbols, positions, where="m.xyz: record 3")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("m.xyz: record 3: ")


def test_atoms_that_meet_through_the_cell_are_refused() -> None:
    with pytest.raises(StructureError, match="apart"):
        Structure.from_atoms(["C", "C"], [[0, 0, 0.05], [0, 0, 3.95]], np.eye(3) * 4)


def test_calculation_key_depends_on_each_part() -> None:
    base = {
        "structure_key": "s",
        "engine": "e",
        "parameters": {"x": 1},
        "element": "C",
        "edge": "K",
        "atom": 0,
    }
    keys = {Calculation(Kind.SITE, **base).key}
    for name, value in [
        ("structure_key", "t"),
        ("engine", "f"),
        ("parameters", {"x": 2}),
        ("element", "N"),
        ("edge", "L3"),
        ("atom", 1),
    ]:
        keys.add(Calculation(Kind.SITE, **{**base, name: value}).key)
    keys.add(Calculation(Kind.GROUND, "s", "e", {"x": 1}).key)
    assert len(keys) == 8


def test_a_ground_state_has_no_absorber() -> None:
    with pytest.raises(ValueError, match="no absorber"):
        Calculation(Kind.GROUND, "s", "e", {}, element="C")
    with pytest.raises(ValueError, match="names element"):
        Calculation(Kind.SITE, "s", "e", {}, element="C", edge="K")


def test_keys_of_structures_without_moments_stay_as_they_are_stored() -> None:
    water, _ = Structure.from_atoms(["O", "H", "H"], [[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]])
    cell = [[0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]]
    magnesia, _ = Structure.from_atoms(
        ["Mg", "O"], [[0, 0, 0], [2.1, 2.1, 2.1]], cell, moments_muB=[0, -4e-4]
    )
    assert water.key == "f051bfc9a83de8f5c8849e25fbf9b13c"
    assert magnesia.key == "556ab3962e262b17b51ee7f0e88ffc82"
    assert magnesia.moments_muB is None
    assert set(magnesia.to_dict()) == {"symbols", "positions_A", "cell_A"}


def test_moments_follow_their_atoms_and_are_part_of_the_identity() -> None:
    symbols, positions = FORMALDEHYDE
    plain, order = Structure.from_atoms(symbols, positions)
    some, same = Structure.from_atoms(symbols, positions, moments_muB=[0.5, -1.25, 0, 2e-4])
    assert order == same
    assert some.moments_muB is not None
    assert some.moments_muB.tolist() == [[0.5, -1.25, 0.0, 0.0][i] for i in order]
    assert not some.moments_muB.flags.writeable
    back = Structure.from_dict(some.to_dict())
    assert back == some
    assert back.moments_muB is not None
    assert back.moments_muB.tolist() == some.moments_muB.tolist()
    turned = Structure.from_atoms(symbols, positions, moments_muB=[-0.5, 1.25, 0, 0])[0]
    assert len({plain.key, some.key, turned.key}) == 3


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        ([1.0], "moments of shape"),
        ([[0, 0, 1.0]] * 4, "moments of shape"),
        ([1, 0, 0, float("inf")], "finite"),
    ],
)
def test_impossible_moments_are_refused(moments: object, message: str) -> None:
    with pytest.raises(StructureError, match=message):
        Structure.from_atoms(*FORMALDEHYDE, moments_muB=moments, where="m.xyz")
