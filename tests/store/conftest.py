"""A small world to submit: two molecules, their calculations, and results that pass for real ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from htxas.domain.calculation import Calculation, Convergence, Kind
from htxas.domain.dos import LocalDos, Pdos
from htxas.domain.identity import content_key
from htxas.domain.result import CurveResult, GroundResult, Provenance, Result, SiteResult
from htxas.domain.spectrum import Curve, Sticks
from htxas.domain.structure import Structure
from htxas.errors import Cause
from htxas.store.outcomes import Outcome, done, failed
from htxas.store.records import Batch, Lease, MoleculeRecord, PlannedCalculation, SiteRef, StructureRecord
from htxas.store.store import Store

CAMPAIGN = "demo"
GROUND_PARAMETERS = {"functional": "PBE", "basis": {"C": "0a.1b"}, "level": 3}
SITE_PARAMETERS = {**GROUND_PARAMETERS, "hole": "half"}
CURVE_PARAMETERS = {"scattering": "multiple", "radius_A": 6.0}


def provenance(directory: str = "/runs/1") -> Provenance:
    return Provenance(
        engine_version="1.2",
        libraries={"numpy": "2.0", "a.b": "1"},
        host="node1",
        started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:00:02+00:00",
        wall_s=2.5,
        cpu_s=2.0,
        inputs_sha256={"calculation.json": "00"},
        directory=directory,
        extra={"cycles": np.int64(12), "trace": (1.0, np.float32(2.0))},
    )


@dataclass(frozen=True)
class World:
    """What a campaign submits."""

    structures: dict[str, StructureRecord]
    molecules: tuple[MoleculeRecord, ...]
    calculations: dict[str, Calculation]
    batches: tuple[Batch, ...]
    curves: bool = False

    @staticmethod
    def make(n: int = 2, campaign: str = CAMPAIGN) -> World:
        return make_world(n, campaign)

    @staticmethod
    def site_result(energy_eV: float = 285.0, **changes: object) -> SiteResult:
        return site_result(energy_eV, **changes)

    @staticmethod
    def curve_result(edge_eV: float = 285.0, **changes: object) -> CurveResult:
        return curve_result(edge_eV, **changes)

    @staticmethod
    def ground_result(n_atoms: int = 4) -> GroundResult:
        return ground_result(n_atoms)

    @property
    def ground_key(self) -> str:
        key = self.molecules[0].ground_key
        assert key is not None
        return key

    @property
    def site_key(self) -> str:
        return self.molecules[0].sites[0].key

    @property
    def planned(self) -> list[PlannedCalculation]:
        return [PlannedCalculation(c, 10.0) for c in self.calculations.values()]

    def submit(self, store: Store, campaign: str = CAMPAIGN) -> set[str]:
        store.put_campaign(campaign, {"a": 1})
        store.put_structures(self.structures.values())
        homeless = store.put_calculations(campaign, self.planned, self.structures)
        store.put_molecules(self.molecules)
        store.put_batches(self.batches)
        return homeless

    def structure_of(self, key: str) -> Structure:
        return self.structures[self.calculations[key].structure_key].structure

    def lease(self, store: Store, key: str, owner: str = "w") -> Lease:
        (leased,) = store.lease_many([key], owner)
        return leased.lease

    def outcome(self, lease: Lease, energy_eV: float = 285.0, sigma_eV: float = 0.5) -> Outcome:
        """A good end of an attempt."""
        calculation, structure = self.calculations[lease.key], self.structure_of(lease.key)
        result: Result = ground_result(len(structure))
        if calculation.kind is Kind.SITE:
            result = curve_result(energy_eV) if self.curves else site_result(energy_eV)
        return done(lease, calculation, structure, result, sigma_eV=sigma_eV, step_eV=0.1)

    def finish(
        self, store: Store, key: str, *, energy_eV: float = 285.0, owner: str = "w", sigma_eV: float = 0.5
    ) -> bool:
        lease = self.lease(store, key, owner)
        return store.deliver([self.outcome(lease, energy_eV, sigma_eV)]) != ["refused"]

    def fail(
        self,
        store: Store,
        key: str,
        cause: Cause,
        message: str = "x",
        evidence: dict | None = None,
        **facts: str,
    ) -> bool:
        lease = self.lease(store, key)
        return store.deliver([failed(lease, cause, message, evidence or {}, facts)]) == ["stored"]


def site_result(energy_eV: float = 285.0, **changes: object) -> SiteResult:
    facts: dict[str, object] = {
        "convergence": Convergence.CONVERGED,
        "sticks": Sticks(
            energy_eV + np.array([0.0, 1.5, 22.0]), np.array([[0.03, 0.0, 0.0], [0, 0.02, 0], [0, 0, 0.01]])
        ),
        "excitation_energy_eV": energy_eV,
        "ionization_eV": energy_eV + 5.0,
        "scale": "ion + transition potential",
        "energies_eV": {"ground": -2084.123456789012, "ion": -1793.0},
        "hole_overlap": 0.99,
        "window_eV": 25.0,
        "provenance": provenance(),
    }
    return SiteResult(**{**facts, **changes})  # type: ignore[arg-type]


def curve_result(edge_eV: float = 285.0, **changes: object) -> CurveResult:
    """Return an averaged spectrum, uneven in energy, with a white line 2 eV above its threshold."""
    above = np.concatenate([np.arange(-10.0, 10.0, 0.25), np.arange(10.0, 41.0, 1.0)])
    step = 0.5 + np.arctan(above / 0.5) / np.pi
    total = step + np.exp(-0.5 * ((above - 2.0) / 1.0) ** 2)
    kinds, m = ("C*", "C", "H"), 5
    facts: dict[str, object] = {
        "convergence": Convergence.CONVERGED,
        "curve": Curve(edge_eV + above, np.repeat(total[:, None], 3, axis=1)),
        "background": step,
        "edge_eV": edge_eV,
        "fermi_eV": -7.25,
        "lifetime_eV": 0.09,
        "normalisation": "1 is the bare atom 50 eV above the edge: 0.123",
        "scale": "of the code",
        "doubts": (),
        "dos": LocalDos(
            np.linspace(-10.0, 10.0, m),
            np.arange(3.0 * m * 4).reshape(3, m, 4),
            kinds,
            np.array([0.2, -0.1, 0.0]),
            0.5,
        ),
        "provenance": provenance(),
    }
    return CurveResult(**{**facts, **changes})  # type: ignore[arg-type]


def ground_result(n_atoms: int) -> GroundResult:
    weights = np.zeros((4, n_atoms, 3))
    weights[:, 0, 0] = 1.0
    pdos = Pdos(np.array([-280.1, -20.0, -7.0, 1.0]), np.array([2.0, 2.0, 2.0, 0.0]), weights)
    return GroundResult(
        Convergence.CONVERGED, -2084.123456789012, -7.0, 1.0, np.array([0.0, 3.0, 4.0]), pdos, provenance()
    )


def make_world(n: int = 2, campaign: str = CAMPAIGN, *, curves: bool = False) -> World:
    """Carbon chains of two unique sites with multiplicities 1 and 2, one structure per molecule.

    With ``curves`` their sites have continuous spectra and they have no ground state.
    """
    structures, molecules, calculations, batches = {}, [], {}, []
    for i in range(n):
        positions = [[0, 0, 0], [0, 0, 1.3 + 0.001 * i], [0, 0, -1.3], [0, 1.1, 0]]
        structure, order = Structure.from_atoms("CCCH", positions)
        smiles = f"C{i}"
        structures[structure.key] = StructureRecord(structure, smiles, {"file": "a.xyz", "record": i})
        ground = None if curves else Calculation(Kind.GROUND, structure.key, "fake", GROUND_PARAMETERS)
        parameters = CURVE_PARAMETERS if curves else SITE_PARAMETERS
        sites = [Calculation(Kind.SITE, structure.key, "fake", parameters, "C", "K", a) for a in (1, 2)]
        refs = tuple(
            SiteRef(s.key, a, order[a], "C", m, (order[a],) * m)
            for s, a, m in zip(sites, (1, 2), (1, 2), strict=True)
        )
        ground_key = None if ground is None else ground.key
        molecules.append(MoleculeRecord(campaign, f"mol_{i}", structure.key, ground_key, smiles, order, refs))
        mine = {c.key: c for c in (ground, *sites) if c is not None}
        calculations |= mine
        keys = tuple(mine)
        batches.append(Batch(content_key(sorted(keys)), campaign, keys, 30.0))
    return World(structures, tuple(molecules), calculations, tuple(batches), curves)


@pytest.fixture
def world() -> World:
    return make_world()


@pytest.fixture
def curves() -> World:
    """A campaign of continuous spectra, without ground states."""
    return make_world(curves=True)
