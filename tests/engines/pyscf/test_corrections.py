"""Corrections lead to the answer of the plain iteration, by its own thresholds, or to one where it finds none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Convergence
from htxas.domain.gate import GateLimits, inspect
from htxas.domain.result import SiteResult
from htxas.domain.structure import Structure
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import Engine
from htxas.engines.pyscf import corehole, ground
from htxas.engines.pyscf.checkpoint import CHECKPOINT, Checkpoint
from htxas.engines.pyscf.corrections import LADDER, NUMERICS
from htxas.engines.pyscf.parameters import resolve
from htxas.engines.pyscf.process import _aids, _start
from htxas.engines.pyscf.scf import PLAIN, Aids, At, KohnSham
from htxas.engines.pyscf.scf import helped as compare
from htxas.errors import Cause, EngineFailure
from tests.engines.pyscf.conftest import jobs, molecule, run

pytestmark = pytest.mark.pyscf
PBE = resolve("published", {}, element="C", edge="K")
TIGHT = {**PBE.ground, "energy_tolerance_Ha": 1e-8, "gradient_tolerance_Ha": 2e-5}
MEV = HARTREE_EV * 1000


def rungs() -> dict[str, dict[str, Any]]:
    """Return what each rung of each cause sets, merged with those before it as the launcher does."""
    out: dict[str, dict[str, Any]] = {}
    for corrections in LADDER.values():
        merged: dict[str, Any] = {}
        for correction in corrections:
            merged = {k: v for k, v in {**merged, **correction.numerics}.items() if v is not None}
            out[correction.name] = merged
    return out


def aids(numerics: Mapping[str, Any]) -> Aids:
    return _aids(numerics)


def stored(name: str) -> tuple[Structure, int]:
    data = json.loads((Path(__file__).parent / name).read_text())
    return Structure.from_atoms(data["symbols"], data["positions_A"])[0], data["atom"]


@pytest.fixture(scope="module", params=["formaldehyde", "methanol"])
def plain(
    request: pytest.FixtureRequest,
) -> tuple[str, ground.GroundState, corehole.HoleState, corehole.HoleState]:
    base = ground.run(molecule(request.param), PBE.ground)
    half = corehole.transition_potential(base, 0, PBE.ground)
    return request.param, base, half, corehole.ion(base, half, 0, PBE.ground)


@pytest.mark.parametrize("rung", rungs())
def test_no_rung_touches_a_converged_answer(
    rung: str, plain: tuple[str, ground.GroundState, corehole.HoleState, corehole.HoleState]
) -> None:
    name, base, half, cation = plain
    given, start = aids(rungs()[rung]), _start(rungs()[rung])
    again = ground.run(molecule(name), PBE.ground, aids=given, start_from=start)
    again_half = corehole.transition_potential(base, 0, PBE.ground, aids=given)
    again_ion = corehole.ion(base, half, 0, PBE.ground, aids=given)
    assert again.state.energy == base.state.energy  # to the last digit
    assert again.aided is None
    for before, after in ((half, again_half), (cation, again_ion)):
        assert after.state.energy == before.state.energy
        assert after.helped is None


@pytest.mark.parametrize("rung", rungs())
def test_every_rung_leads_where_the_plain_iteration_would(
    rung: str, plain: tuple[str, ground.GroundState, corehole.HoleState, corehole.HoleState]
) -> None:
    name, base, half, cation = plain
    few = {**PBE.ground, "max_cycles": 5}
    given, start = replace(aids(rungs()[rung]), cycles_factor=20.0), _start(rungs()[rung])
    mended = ground.run(molecule(name), few, aids=given, start_from=start)
    mended_ion = corehole.ion(base, half, 0, few, aids=given)
    assert mended.aided is not None
    assert mended_ion.helped is not None
    assert mended.aided["plain_cycles"] == 5
    for before, after in ((base.state, mended.state), (cation.state, mended_ion.state)):
        assert after.converged
        assert after.gradient < PBE.ground["gradient_tolerance_Ha"]
        assert (after.energy - before.energy) * MEV == pytest.approx(0.0, abs=0.1)


def test_too_few_cycles_are_mended_by_more_of_the_same() -> None:
    few = {**PBE.ground, "max_cycles": 5}
    failed = ground.run(molecule("formaldehyde"), few)
    assert not failed.state.converged
    mended = ground.run(molecule("formaldehyde"), few, aids=aids(rungs()["more_cycles"]))
    whole = ground.run(molecule("formaldehyde"), PBE.ground)
    assert mended.state.converged
    assert mended.state.energy == whole.state.energy
    assert mended.state.cycles == whole.state.cycles


def test_a_molecule_pulled_apart_needs_a_level_shift() -> None:
    far = np.array([[0, 0, 0], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]) * 1.9
    structure = Structure.from_atoms("C H H H H".split(), far)[0]
    # A soft state: at the usual thresholds its energy is known to 10 meV only, and rounding decides where it stops.
    assert not ground.run(structure, TIGHT).state.converged
    helped = ground.run(structure, TIGHT, aids=aids(rungs()["level_shift"]))
    assert helped.state.converged
    # what was found holds without the shift: the plain iteration starts there and stays
    again = ground.run(structure, TIGHT, at=begun(helped.state.scaled()))
    assert again.state.converged
    assert again.state.cycles < 20
    assert (again.state.energy - helped.state.energy) * MEV == pytest.approx(0.0, abs=0.01)


@pytest.fixture(scope="module")
def sloshing() -> tuple[ground.GroundState, int, corehole.HoleState, corehole.HoleState]:
    return _ion("sloshing.json")


@pytest.fixture(scope="module")
def unconverged() -> tuple[ground.GroundState, int, corehole.HoleState, corehole.HoleState]:
    return _ion("unconverged.json", FEW)


FEW = {**PBE.ground, "max_cycles": 20}


def _ion(
    name: str, parameters: Mapping[str, Any] = PBE.ground
) -> tuple[ground.GroundState, int, corehole.HoleState, corehole.HoleState]:
    structure, atom = stored(name)
    base = ground.run(structure, PBE.ground)
    site = base.core_atoms.index(atom)
    half = corehole.transition_potential(base, site, PBE.ground)
    return base, site, half, corehole.ion(base, half, site, parameters)


@pytest.mark.slow
@pytest.mark.parametrize("rung", ["level_shift"])
def test_an_ion_with_two_states_keeps_the_one_it_converged_on(
    rung: str, sloshing: tuple[ground.GroundState, int, corehole.HoleState, corehole.HoleState]
) -> None:
    """With small steps from the beginning it would end 325 meV lower."""
    base, site, half, plain = sloshing
    assert plain.state.converged
    again = corehole.ion(base, half, site, PBE.ground, aids=aids(rungs()[rung]))
    assert again.state.energy == plain.state.energy
    assert again.helped is None


@pytest.mark.slow
@pytest.mark.parametrize("rung", ["damped_follow"])
def test_an_ion_that_did_not_converge_says_which_state_it_is(
    rung: str, unconverged: tuple[ground.GroundState, int, corehole.HoleState, corehole.HoleState]
) -> None:
    """The plain iteration wanders between states, for 60 cycles, too; rounding decides on which one it ends."""
    base, site, half, plain = unconverged
    assert not plain.state.converged
    given = replace(aids(rungs()[rung]), cycles_factor=6.0)
    mended = corehole.ion(base, half, site, FEW, aids=given)
    assert mended.state.converged
    assert mended.is_kept
    assert mended.overlap > 0.99
    assert mended.helped is not None
    assert mended.helped.plain_Ha == plain.ends
    away = [abs(mended.state.energy - energy) * MEV for energy in plain.ends.values()]
    assert mended.helped.another_state is (min(away) > 10)
    # One of the states of this ion, all within an eV; the edge is known to that only, and says so.
    assert (mended.state.energy - base.state.energy) * HARTREE_EV == pytest.approx(292.4, abs=0.5)


@pytest.mark.parametrize(
    ("found_meV", "same_way", "another"),
    [
        (0.0, False, False),
        (9.0, False, False),
        (-11.0, False, True),
        (-11.0, True, False),
        (299.0, False, False),
    ],
)
def test_another_state_is_one_far_from_every_end_of_the_plain_iteration(
    found_meV: float, same_way: bool, another: bool
) -> None:
    ends = {"lowest": -100.0, "follow": -100.0 + 300 / MEV}
    plain = KohnSham(ends["follow"], (), (), (), False, 60, 0.01)
    found = KohnSham(-100.0 + found_meV / MEV, (), (), (), True, 30, 1e-4)
    told = compare(plain, ends, found, same_way=same_way)
    assert told.another_state is another
    assert (told.plain_cycles, told.plain_gradient_Ha) == (60, 0.01)
    assert told.plain_Ha == ends


def test_a_corrected_run_says_so(engine: Engine, tmp_path: Path) -> None:
    """Through the files: fails with 6 cycles, is well with the first rung, and tells."""
    ground_job, site_job = jobs(engine, molecule("formaldehyde"), tmp_path, max_cycles=6)
    assert run(engine, tmp_path / "ground") == 0
    assert engine.read(ground_job, tmp_path / "ground").convergence is Convergence.UNCONVERGED
    numerics = rungs()["more_cycles"]
    mended = replace(site_job, numerics=numerics)
    engine.write(mended, tmp_path / "site")
    assert run(engine, tmp_path / "site") == 0
    result = engine.read(mended, tmp_path / "site")
    assert isinstance(result, SiteResult)
    assert inspect(result, GateLimits(), element="C", edge="K") is None
    extra = result.provenance.extra
    assert extra["numerics"] == numerics
    assert extra["ground_state"] == "computed again"
    assert set(extra["aided"]) == {"ground", "transition_potential", "ion"}  # six cycles are too few for any
    assert extra["aided"]["ground"]["numerics"] == numerics
    assert extra["aided"]["ion"]["eV"] == result.energies_eV["ion"]
    assert set(extra["aided"]["ion"]["plain_eV"]) == {"lowest", "follow"}
    assert extra["threads"] == 1
    assert not (tmp_path / "site" / CHECKPOINT).exists()


@pytest.mark.parametrize(
    "numerics", [{"functional": "PBE0"}, {"gradient_tolerance_Ha": 1e-2}, {"damping": 3}]
)
def test_physics_is_refused(engine: Engine, numerics: dict[str, Any], tmp_path: Path) -> None:
    _, site = jobs(engine, molecule("formaldehyde"), tmp_path)
    with pytest.raises(EngineFailure) as caught:
        engine.write(replace(site, numerics=numerics), tmp_path)
    assert caught.value.cause is Cause.BAD_INPUT


def test_the_identity_keeps_its_own_parameters() -> None:
    assert NUMERICS.keys().isdisjoint(PBE.ground)
    assert NUMERICS.keys().isdisjoint(PBE.site["hole"])


def begun(scaled: list[np.ndarray]) -> At:
    """As if an attempt had been cut short in its first phase."""
    return lambda given, phase: replace(given, begin=scaled if phase in ("plain", "lowest") else None)


class CutShort(Exception):
    """As if the clock had run out."""


def test_an_attempt_that_was_cut_short_is_gone_on_from(tmp_path: Path) -> None:
    old, new = tmp_path / "1", tmp_path / "2"
    for directory in (old, new):
        directory.mkdir()
    whole = ground.run(molecule("formaldehyde"), PBE.ground)
    checkpoint = Checkpoint(old, "key", {}, None, every_s=0.0)
    given = checkpoint.of("ground")(PLAIN, "plain")
    seen = []

    def watch(scaled: Any) -> None:
        assert given.watch is not None
        given.watch(scaled)
        seen.append(1)
        if len(seen) == 6:
            raise CutShort

    with pytest.raises(CutShort):
        ground.run(molecule("formaldehyde"), PBE.ground, at=lambda _aids, _phase: replace(given, watch=watch))
    assert [p.name for p in old.iterdir()] == [CHECKPOINT]
    after = Checkpoint(new, "key", {}, old)
    assert after.found == ("ground plain",)
    resumed = ground.run(molecule("formaldehyde"), PBE.ground, at=after.of("ground"))
    assert resumed.state.converged
    assert resumed.state.cycles < whole.state.cycles
    assert (resumed.state.energy - whole.state.energy) * MEV == pytest.approx(0.0, abs=0.1)
    assert Checkpoint(new, "another key", {}, old).found == ()
    assert Checkpoint(new, "key", {"start": "huckel"}, old).found == ()  # not the way of this attempt
    (old / CHECKPOINT).write_bytes((old / CHECKPOINT).read_bytes()[:200])
    assert Checkpoint(new, "key", {}, old).found == ()
    assert not list(new.iterdir())  # too short a run to keep anything of


def test_a_density_on_the_way_to_another_state_is_not_gone_on_from() -> None:
    base = ground.run(molecule("formaldehyde"), TIGHT)
    half = corehole.transition_potential(base, 0, TIGHT)
    cation = corehole.ion(base, half, 0, TIGHT)
    alpha, beta = cation.state.scaled()
    filled = np.column_stack([base.cores[:, 0], beta[:, 1:]])  # the hole refilled, an electron lost elsewhere
    astray = corehole.ion(base, half, 0, TIGHT, at=begun([alpha, filled]))
    assert astray.state.energy == cation.state.energy
    near = corehole.ion(base, half, 0, TIGHT, at=begun([alpha, beta]))
    assert near.state.cycles < cation.state.cycles
    assert (near.state.energy - cation.state.energy) * MEV == pytest.approx(0.0, abs=0.1)
