"""A small made-up campaign: as domain objects, in memory, and in a real store.

ethanol is complete; propanone lacks one site (failed); methane has nothing done at all. The same once more with
continuous spectra and without ground states.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Convergence, Kind, State
from htxas.domain.dos import LocalDos, Pdos
from htxas.domain.result import CurveResult, GroundResult, Provenance, SiteResult, Spectral
from htxas.domain.spectrum import Curve, Sticks, combine
from htxas.domain.structure import Structure
from htxas.errors import Cause, NotFound
from htxas.store.outcomes import done, failed
from htxas.store.records import (
    CalculationRecord,
    MolecularSpectrum,
    MoleculeRecord,
    PlannedCalculation,
    SiteRef,
    StructureRecord,
)

CAMPAIGN = "quickstart"
PARAMETERS = {"functional": "made up", "grid": 3}
DOCUMENT: dict[str, Any] = {
    "engine": "fake",
    "element": "C",
    "edge": "K",
    "preset": "published",
    "parameters": {"site": PARAMETERS, "ground": PARAMETERS},
    "spectrum": {"sigma_eV": 0.5, "step_eV": 0.1},
}
_PROVENANCE = Provenance(
    "fake 1",
    {"numpy": "2"},
    "laptop",
    "2026-01-01T00:00:00+00:00",
    "2026-01-01T00:00:07+00:00",
    7.0,
    6.5,
    {},
    "/runs/x",
)
_MOLECULES: dict[str, tuple[str, list[str], list[list[float]], list[tuple[int, ...]]]] = {
    # name: SMILES, symbols and positions in file order, equivalent carbons
    "ethanol": (
        "CCO",
        ["O", "C", "C", "H", "H", "H", "H", "H", "H"],
        [[2.4, 0.0, 0.0], [1.0, 0.2, 0.0], [0.2, -1.1, 0.0], [2.9, 0.8, 0.0], [0.8, 0.8, 0.9], [0.8, 0.8, -0.9],
         [-0.9, -0.9, 0.0], [0.4, -1.7, 0.9], [0.4, -1.7, -0.9]],
        [(1,), (2,)],
    ),
    "propanone": (
        "CC(C)=O",
        ["C", "C", "C", "O", "H", "H", "H", "H", "H", "H"],
        [[-1.3, -0.6, 0.0], [0.0, 0.2, 0.0], [1.3, -0.6, 0.0], [0.0, 1.4, 0.0], [-2.1, 0.1, 0.0], [-1.3, -1.2, 0.9],
         [-1.3, -1.2, -0.9], [2.1, 0.1, 0.0], [1.3, -1.2, 0.9], [1.3, -1.2, -0.9]],
        [(0, 2), (1,)],
    ),
    "methane": (
        "C",
        ["C", "H", "H", "H", "H"],
        [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63], [0.63, -0.63, -0.63]],
        [(0,)],
    ),
}  # fmt: skip
_DONE = {"ethanol": {"ground", 1, 2}, "propanone": {"ground", 0}, "methane": set()}


@dataclass(frozen=True)
class World:
    """Everything there is to know of the campaign."""

    structures: dict[str, StructureRecord] = field(default_factory=dict)
    molecules: dict[str, MoleculeRecord] = field(default_factory=dict)
    calculations: dict[str, Calculation] = field(default_factory=dict)
    sites: dict[str, Spectral] = field(default_factory=dict)
    grounds: dict[str, GroundResult] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)


def site_result(seed: int) -> SiteResult:
    rng = np.random.default_rng(seed)
    first = 286.0 + 0.7 * seed
    energies = np.r_[first, first + np.sort(rng.uniform(0.5, 30.0, 60))]
    strengths = rng.gamma(0.4, 0.004, (61, 3))
    strengths[0] = [0.001, 0.002, 0.06]
    return SiteResult(
        convergence=Convergence.CONVERGED,
        sticks=Sticks(energies, strengths.astype(np.float32).astype(np.float64)),
        excitation_energy_eV=first,
        ionization_eV=first + 4.5,
        scale="ion + transition potential",
        energies_eV={"ground": -4000.0, "ion": -4000.0 + first + 4.5},
        hole_overlap=0.998,
        window_eV=25.0,
        provenance=_PROVENANCE,
    )


def curve_result(seed: int) -> CurveResult:
    """Return a made-up multiple-scattering spectrum; x, y and z differ for even seeds."""
    rng = np.random.default_rng(seed)
    edge = 286.0 + 0.7 * seed
    above = np.r_[np.arange(-15.0, 20.0, 0.2), np.arange(20.0, 80.0, 0.7)]
    step = 0.5 + np.arctan(above / 0.4) / np.pi
    ripple = (
        0.25 * np.sin(4.0 * np.sqrt(np.maximum(above, 0.0)) + seed) * np.exp(-np.maximum(above, 0.0) / 30.0)
    )
    white = (0.8 + rng.random()) * np.exp(-0.5 * ((above - 2.0) / 1.2) ** 2)
    total = step * (1.0 + ripple) + white
    polarised = total[:, None] + white[:, None] * ([0.6, 0.0, -0.6] if seed % 2 == 0 else [0.0, 0.0, 0.0])
    single = polarised.astype(np.float32).astype(np.float64)  # as the store keeps it
    energies = np.linspace(-20.0, 15.0, 120)
    levels = rng.uniform(-12.0, 8.0, (2, 1, 4, 6))
    density = (0.3 / (1.0 + ((energies[:, None, None] - levels) / 0.5) ** 2)).sum(axis=-1)
    return CurveResult(
        convergence=Convergence.CONVERGED,
        curve=Curve(edge + above, single),
        background=step.astype(np.float32).astype(np.float64),
        edge_eV=edge,
        fermi_eV=-6.5,
        lifetime_eV=0.09,
        normalisation="1 is the bare atom 50 eV above the edge: 0.123 A^2",
        scale="FEFF's own, nothing shifted",
        doubts=(),
        dos=LocalDos(energies, density, ("C*", "H"), np.array([0.1, -0.1]), 0.3),
        provenance=_PROVENANCE,
    )


def ground_result(structure: Structure, seed: int) -> GroundResult:
    rng = np.random.default_rng(seed)
    weights = rng.gamma(0.5, 1.0, (40, len(structure), 3))
    weights /= weights.sum(axis=(1, 2), keepdims=True)
    energies = np.r_[np.sort(rng.uniform(-25, -7, 13)), np.sort(rng.uniform(0.5, 20, 27))]
    occupations = np.where(np.arange(40) < 13, 2.0, 0.0)
    return GroundResult(
        convergence=Convergence.CONVERGED,
        total_energy_eV=-4000.0,
        homo_eV=float(energies[12]),
        lumo_eV=float(energies[13]),
        dipole_D=np.array([0.0, 0.6, 0.8]),
        pdos=Pdos(energies, occupations, weights.astype(np.float32).astype(np.float64)),
        provenance=_PROVENANCE,
    )


def build(*, curves: bool = False) -> World:
    world = World()
    seed = 0
    for name, (smiles, symbols, positions, groups) in _MOLECULES.items():
        structure, order = Structure.from_atoms(symbols, positions)
        world.structures[structure.key] = StructureRecord(
            structure,
            smiles,
            {"file": "made.sdf", "record": 2, "geometry": {"method": "GFN2-xTB", "energy_eV": -1.5}},
        )
        ground = None if curves else Calculation(Kind.GROUND, structure.key, "fake", PARAMETERS)
        if ground is not None:
            world.calculations[ground.key] = ground
            if "ground" in _DONE[name]:
                world.grounds[ground.key] = ground_result(structure, len(world.grounds))
        refs = []
        for atoms in groups:
            atom = min(order.index(a) for a in atoms)
            site = Calculation(Kind.SITE, structure.key, "fake", PARAMETERS, "C", "K", atom)
            world.calculations[site.key] = site
            refs.append(SiteRef(site.key, atom, atoms[0], "C", len(atoms), atoms))
            seed += 1
            if atoms[0] in _DONE[name]:
                world.sites[site.key] = curve_result(seed) if curves else site_result(seed)
            elif _DONE[name]:
                world.failed.add(site.key)
        world.molecules[name] = MoleculeRecord(
            CAMPAIGN, name, structure.key, None if ground is None else ground.key, smiles, order, tuple(refs)
        )
    return world


class MemoryResults:
    """The reading part of the store over a :class:`World`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ladders: dict[str, dict[str, Any]] = {}
        self.provenance: dict[str, dict[str, Any]] = {}

    def campaign(self, name: str) -> dict[str, Any]:
        if name != CAMPAIGN:
            raise NotFound(f"no campaign is called {name!r}")
        return {**DOCUMENT, "name": name, "created": datetime(2026, 1, 1, tzinfo=UTC)}

    def calculation(self, key_or_prefix: str) -> CalculationRecord:
        found = [c for k, c in self.world.calculations.items() if k.startswith(key_or_prefix)]
        if not found:
            raise NotFound(f"no calculation starts with {key_or_prefix!r}")
        c = found[0]
        state = self.states([c.key])[c.key]
        scalars = {}
        result = self.world.sites.get(c.key)
        if isinstance(result, CurveResult):
            scalars = {"edge_eV": result.edge_eV, "fermi_eV": result.fermi_eV, "white_line": 1.9}
        elif result is not None:
            scalars = {
                "excitation_energy_eV": result.excitation_energy_eV,
                "ionization_eV": result.ionization_eV or 0.0,
            }
        failed = state is State.FAILED
        return CalculationRecord(
            c.key, c.kind, c.structure_key, c.engine, c.parameters_key, c.element, c.edge, c.atom, state,
            Cause.SCF_UNCONVERGED if failed else None, "gave up after 100 cycles" if failed else None,
            {"cycles": 100, "change": float("nan")} if failed else {}, 1, "b", 10.0, 7.0, "laptop", "/runs/x", "w",
            (CAMPAIGN,), scalars, datetime(2026, 1, 1, tzinfo=UTC), self.provenance.get(c.key),
            ladder=self.ladders.get(c.key),
        )  # fmt: skip

    def calculations(self, keys: Iterable[str]) -> Mapping[str, CalculationRecord]:
        return {k: self.calculation(k) for k in keys}

    def states(self, keys: Iterable[str]) -> Mapping[str, State]:
        def state(key: str) -> State:
            if key in self.world.sites or key in self.world.grounds:
                return State.DONE
            return State.FAILED if key in self.world.failed else State.READY

        return {k: state(k) for k in keys}

    def structure(self, key: str) -> StructureRecord:
        return self.world.structures[key]

    def molecule(self, campaign: str | None, name: str) -> MoleculeRecord:
        if name not in self.world.molecules or campaign not in (None, CAMPAIGN):
            raise NotFound(f"no molecule is called {name!r}")
        return self.world.molecules[name]

    def molecules(
        self, campaign: str | None = None, *, structure_key: str | None = None
    ) -> Iterator[MoleculeRecord]:
        return (m for m in self.world.molecules.values() if structure_key in (None, m.structure_key))

    def site_result(self, key: str) -> Spectral:
        return self.world.sites[key]

    def ground_result(self, key: str) -> GroundResult:
        return self.world.grounds[key]

    def assemble(self, molecule: MoleculeRecord) -> MolecularSpectrum:
        done = [s for s in molecule.sites if s.key in self.world.sites]
        spectrum = combine(
            [self.world.sites[s.key].spectrum() for s in done], [float(s.multiplicity) for s in done]
        )
        missing = tuple(s.key for s in molecule.sites if s.key not in self.world.sites)
        return MolecularSpectrum(
            "k", CAMPAIGN, molecule.name, molecule.structure_key, molecule.ground_key, spectrum,
            tuple(s.key for s in molecule.sites), tuple(s.multiplicity for s in molecule.sites), not missing, missing,
        )  # fmt: skip


@pytest.fixture(scope="session")
def world() -> World:
    return build()


@pytest.fixture
def results(world: World) -> MemoryResults:
    return MemoryResults(world)


@pytest.fixture(scope="session")
def curve_world() -> World:
    return build(curves=True)


@pytest.fixture
def curves(curve_world: World) -> MemoryResults:
    return MemoryResults(curve_world)


def fill(store: Any, world: World) -> None:
    """Put the world into a real store, through its public interface only."""
    store.put_campaign(CAMPAIGN, DOCUMENT)
    store.put_structures(world.structures.values())
    store.put_calculations(CAMPAIGN, [PlannedCalculation(c, 10.0) for c in world.calculations.values()])
    store.put_molecules(world.molecules.values())
    outcomes = []
    for leased in store.lease_many([*world.grounds, *world.sites, *sorted(world.failed)], "test"):
        lease, calculation = leased.lease, world.calculations[leased.lease.key]
        structure = world.structures[calculation.structure_key].structure
        if lease.key in world.failed:
            outcomes.append(failed(lease, Cause.SCF_UNCONVERGED, "gave up after 100 cycles", {"cycles": 100}))
        else:
            result = world.grounds.get(lease.key) or world.sites[lease.key]
            outcomes.append(done(lease, calculation, structure, result, sigma_eV=0.5, step_eV=0.1))
    assert set(store.deliver(outcomes)) == {"stored"}


@pytest.fixture
def filled_store(store: Any, world: World) -> Any:
    """A real store on a real server that holds the world."""
    fill(store, world)
    return store


@pytest.fixture
def curve_store(store: Any, curve_world: World) -> Any:
    """A real store that holds the world of continuous spectra."""
    fill(store, curve_world)
    return store
