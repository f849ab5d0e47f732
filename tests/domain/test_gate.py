from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from htxas.domain.calculation import Convergence
from htxas.domain.dos import Pdos
from htxas.domain.elements import edge_range_eV
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import GroundResult, Provenance, SiteResult
from htxas.domain.spectrum import Sticks
from htxas.domain.strength import bare_atom_strength
from htxas.errors import Cause

PROVENANCE = Provenance("0", {}, "h", "t", "t", 1.0, 1.0, {}, "/d")
SITE = SiteResult(
    convergence=Convergence.CONVERGED,
    sticks=Sticks(np.array([285.0, 290.0, 310.0]), np.full((3, 3), 0.05)),
    excitation_energy_eV=285.0,
    ionization_eV=290.5,
    scale="ion",
    energies_eV={"ground": -3000.0, "ion": -2709.5},
    hole_overlap=0.99,
    window_eV=40.0,
    provenance=PROVENANCE,
)
WEIGHTS = np.zeros((2, 1, 3))
WEIGHTS[:, 0, 0] = 1.0
GROUND = GroundResult(
    convergence=Convergence.CONVERGED,
    total_energy_eV=-3000.0,
    homo_eV=-6.0,
    lumo_eV=-1.0,
    dipole_D=np.zeros(3),
    pdos=Pdos(np.array([-6.0, -1.0]), np.array([2.0, 0.0]), WEIGHTS),
    provenance=PROVENANCE,
)


def test_sound_results_pass() -> None:
    assert inspect(SITE, GateLimits(), element="C", edge="K") is None
    assert inspect(GROUND, GateLimits()) is None


@pytest.mark.parametrize("state", [Convergence.UNCONVERGED, Convergence.UNKNOWN])
def test_unknown_convergence_is_a_failure(state: Convergence) -> None:
    for result in (SITE, GROUND):
        rejection = inspect(replace(result, convergence=state), GateLimits())
        assert rejection is not None
        assert rejection.cause is Cause.SCF_UNCONVERGED


@pytest.mark.parametrize(
    ("change", "cause", "message"),
    [
        ({"hole_overlap": 0.3}, Cause.HOLE_LEFT_SITE, "0.300"),
        ({"hole_overlap": float("nan")}, Cause.GATE_REJECTED, "not finite"),
        ({"window_eV": 5.0}, Cause.GATE_REJECTED, "5.0 eV above"),
        ({"excitation_energy_eV": 284.0}, Cause.GATE_REJECTED, "first stick"),
        ({"energies_eV": {"ground": float("inf")}}, Cause.GATE_REJECTED, "not finite"),
        ({"sticks": Sticks(np.zeros(0), np.zeros((0, 3)))}, Cause.GATE_REJECTED, "no transitions"),
        ({"sticks": Sticks(np.array([285.0]), np.full((1, 3), 50.0))}, Cause.GATE_REJECTED, "add up to 50"),
        ({"sticks": Sticks(np.array([285.0]), np.full((1, 3), 1e-9))}, Cause.GATE_REJECTED, "add up to"),
        ({"sticks": Sticks(np.array([285.0]), np.array([[0.2, -0.01, 0]]))}, Cause.GATE_REJECTED, "negative"),
        (
            {"sticks": Sticks(np.array([285.0, 280.0]), np.full((2, 3), 0.1))},
            Cause.GATE_REJECTED,
            "first stick",
        ),
        (
            {"sticks": Sticks(np.array([11.0]), np.full((1, 3), 0.1)), "excitation_energy_eV": 11.0},
            Cause.GATE_REJECTED,
            "outside 261.5..306.9 eV",
        ),
        ({"ionization_eV": float("nan")}, Cause.GATE_REJECTED, "not finite"),
        ({"ionization_eV": 280.0}, Cause.GATE_REJECTED, "far below the first state"),
        ({"window_eV": float("nan")}, Cause.GATE_REJECTED, "not finite"),
        ({"hole_overlap": 37.0}, Cause.GATE_REJECTED, "no overlap"),
        ({"energies_eV": {}}, Cause.GATE_REJECTED, "ground state is missing"),
    ],
)
def test_unsound_sites_are_refused(change: dict[str, object], cause: Cause, message: str) -> None:
    rejection = inspect(replace(SITE, **change), GateLimits(), element="C", edge="K")  # type: ignore[arg-type]
    assert rejection is not None
    assert rejection.cause is cause
    assert message in rejection.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total_energy_eV": 1e6}, "not negative"),
        ({"homo_eV": -7.0}, "frontier"),
        ({"pdos": replace(GROUND.pdos, occupations=np.array([7.0, 0.0]))}, "between 0 and 2"),
        ({"pdos": replace(GROUND.pdos, occupations=np.array([2.0, 2.0]))}, "between 0 and 2"),
        ({"pdos": replace(GROUND.pdos, energies_eV=np.array([-1.0, -6.0]))}, "not in order"),
        ({"pdos": replace(GROUND.pdos, weights=WEIGHTS - [1.2, -1.2, 0])}, "negative"),
        (
            {"pdos": replace(GROUND.pdos, complete_to_eV=-1.5)},
            "complete to -1.500 eV, which is below the LUMO",
        ),
        ({"pdos": replace(GROUND.pdos, complete_to_eV=float("nan"))}, "complete to nan eV"),
    ],
)
def test_ground_states_that_contradict_themselves_are_refused(
    change: dict[str, object], message: str
) -> None:
    rejection = inspect(replace(GROUND, **change), GateLimits())  # type: ignore[arg-type]
    assert rejection is not None
    assert message in rejection.message


def test_unsound_ground_states_are_refused() -> None:
    limits = GateLimits()
    no_gap = inspect(replace(GROUND, lumo_eV=-6.05), limits)
    assert no_gap is not None
    assert "gap" in no_gap.message
    half = Pdos(GROUND.pdos.energies_eV, GROUND.pdos.occupations, WEIGHTS * 0.5)
    lost = inspect(replace(GROUND, pdos=half), limits)
    assert lost is not None
    assert "weights" in lost.message
    nan = inspect(replace(GROUND, dipole_D=np.array([0, 0, np.nan])), limits)
    assert nan is not None
    assert "finite" in nan.message


def test_plane_waves_need_not_lie_on_atoms_but_their_occupied_levels_do() -> None:
    weights = WEIGHTS * np.array([0.95, 0.2])[:, None, None]
    projected = Pdos(GROUND.pdos.energies_eV, GROUND.pdos.occupations, weights, np.array([0.5, 0.5]), False)
    crystal = replace(GROUND, dipole_D=None, reference="average potential", pdos=projected)
    assert inspect(crystal, GateLimits()) is None
    for change, message in (
        ({"weights": weights * 0.7}, "only 0.6"),
        ({"weights": weights * 1.2}, "miss 1"),
        ({"shares": np.array([0.5, 0.0])}, "belongs to nobody"),
    ):
        rejection = inspect(replace(crystal, pdos=replace(projected, **change)), GateLimits())  # type: ignore[arg-type]
        assert rejection is not None
        assert message in rejection.message


def test_spheres_hold_less_of_a_level_than_atomic_functions() -> None:
    weights = WEIGHTS * np.array([0.45, 0.1])[:, None, None]
    spheres = Pdos(
        GROUND.pdos.energies_eV, GROUND.pdos.occupations, weights, None, complete=False, spheres=True
    )
    crystal = replace(GROUND, dipole_D=None, reference="average potential", pdos=spheres)
    assert inspect(crystal, GateLimits()) is None
    for change, message in (({"weights": weights * 0.3}, "only 0.1"), ({"weights": weights * 2.5}, "miss 1")):
        rejection = inspect(replace(crystal, pdos=replace(spheres, **change)), GateLimits())  # type: ignore[arg-type]
        assert rejection is not None
        assert message in rejection.message


def test_a_level_counts_as_much_as_belongs_to_the_structure() -> None:
    grid = np.arange(-12.0, 6.0, 0.01)
    whole = GROUND.pdos.curve(grid, atoms=[0])
    halves = replace(GROUND.pdos, shares=np.array([0.5, 0.25])).curve(grid, atoms=[0])
    assert [whole.sum() * 0.01, halves.sum() * 0.01] == pytest.approx([4.0, 1.5], rel=1e-6)


def test_edges_without_a_table_have_no_default_range() -> None:
    assert edge_range_eV("H", "K") is None
    assert edge_range_eV("C", "L2,3") is None
    assert edge_range_eV(None, None) is None
    assert edge_range_eV("Si", "L2,3") == pytest.approx((99.2 - 15, 99.8 + 15))
    assert edge_range_eV("Cu", "K") == pytest.approx((8979 * 0.92, 8979 * 1.08))
    low, high = edge_range_eV("N", "K") or (0, 0)
    assert low < 399 < 411 < high


def strong(total: float) -> SiteResult:
    return replace(SITE, sticks=Sticks(np.array([285.0]), np.full((1, 3), total)))


# What PySCF gives in 20 eV, and CASTEP's Ge K of NaGe: all of them sound.
STRENGTHS = [
    ("B", 0.43), ("C", 0.197), ("C", 0.31), ("C", 0.409), ("N", 0.16), ("N", 0.22), ("O", 0.13), ("O", 0.15),
    ("F", 0.09), ("Al", 0.0386), ("Si", 0.0261), ("Si", 0.0391), ("P", 0.0274), ("S", 0.0196),
    ("Cl", 0.0145), ("Ge", 0.0047),
]  # fmt: skip


@pytest.mark.parametrize(("element", "total"), STRENGTHS)
def test_a_strength_is_judged_by_the_bare_atoms(element: str, total: float) -> None:
    limits = GateLimits(edge_range_eV=(0.0, 1e6))
    assert inspect(strong(total), limits, element=element, edge="K") is None
    for wrong in (total / 7, total * 6):
        rejection = inspect(strong(wrong), limits, element=element, edge="K")
        assert rejection is not None
        assert "of the bare atom's" in rejection.message
        assert rejection.evidence["strength_in_window"] == pytest.approx(wrong)


def test_an_oxygen_without_most_of_its_strength_is_refused() -> None:
    """Sums that Quantum ESPRESSO gave before the waves of the pseudopotential joined their tails; 0.139 after."""
    limits = GateLimits(edge_range_eV=(0.0, 1e6))
    for total in (0.0249, 0.0281):
        assert inspect(strong(total), limits, element="O", edge="K") is not None
    assert inspect(strong(0.139), limits, element="O", edge="K") is None


def test_the_limits_of_carbon_are_about_what_they_were() -> None:
    atom = bare_atom_strength("C", "K", 20.0)
    assert atom is not None
    low, high = GateLimits().strength_ratio
    assert (low * atom, high * atom) == pytest.approx((0.060, 0.754), abs=1e-3)


def test_a_strength_range_takes_the_place_of_the_ratio() -> None:
    limits = GateLimits(edge_range_eV=(0.0, 1e6), strength_range=(0.05, 1.0))
    for element, edge in (("Ge", "K"), ("Ge", "L3"), (None, None)):
        assert inspect(strong(0.06), limits, element=element, edge=edge) is None
        rejection = inspect(strong(0.0047), limits, element=element, edge=edge)
        assert rejection is not None
        assert "outside the strength_range 0.05..1.0" in rejection.message


@pytest.mark.parametrize(
    ("element", "edge"), [("H", "K"), ("Si", "L2,3"), ("Np", "K"), (None, "K"), (None, None)]
)
def test_an_absorber_whose_bare_atom_is_not_known_is_not_guessed(
    element: str | None, edge: str | None
) -> None:
    rejection = inspect(SITE, GateLimits(edge_range_eV=(0.0, 1e6)), element=element, edge=edge)
    assert rejection is not None
    assert "is not known: the gate needs a strength_range" in rejection.message
