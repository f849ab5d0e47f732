"""One calculation at a time, for callers that have no journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from htxas.domain.calculation import Calculation
from htxas.domain.gate import Rejection
from htxas.domain.result import Provenance, Result
from htxas.domain.structure import Structure
from htxas.errors import Cause, NotFound
from htxas.store.delivery import Delivery
from htxas.store.outcomes import done, failed, quarantined
from htxas.store.reading import Reading
from htxas.store.records import Lease
from htxas.store.work import Work

__all__ = ["Single"]


class Single(Work, Delivery, Reading):
    """Wrappers."""

    def lease(self, key: str, owner: str, ttl_s: float = 600) -> Lease | None:
        """Take one calculation."""
        leased = self.lease_many([key], owner, ttl_s)
        if not leased and self._db["calculations"].find_one({"_id": key}, {"_id": 1}) is None:
            raise NotFound("no such calculation", where=key)
        return leased[0].lease if leased else None

    def finish(
        self,
        lease: Lease,
        calculation: Calculation,
        structure: Structure,
        result: Result,
        *,
        spectrum_sigma_eV: float = 0.5,
        step_eV: float = 0.1,
    ) -> bool:
        """Store a result."""
        outcome = done(lease, calculation, structure, result, sigma_eV=spectrum_sigma_eV, step_eV=step_eV)
        return self.deliver([outcome]) != ["refused"]

    def fail(
        self,
        lease: Lease,
        cause: Cause,
        message: str,
        evidence: Mapping[str, Any],
        provenance: Provenance | Mapping[str, Any] | None = None,
    ) -> bool:
        """Store a failure."""
        return self.deliver([failed(lease, cause, message, evidence, provenance)]) != ["refused"]

    def quarantine(
        self,
        lease: Lease,
        result: Result,
        rejection: Rejection,
        *,
        spectrum_sigma_eV: float = 0.5,
        step_eV: float = 0.1,
    ) -> bool:
        """Store a refused result."""
        calculation = self.identity(lease.key)
        structure = self.structure(calculation.structure_key).structure
        sigma_eV = spectrum_sigma_eV
        outcome = quarantined(
            lease, calculation, structure, result, rejection, sigma_eV=sigma_eV, step_eV=step_eV
        )
        return self.deliver([outcome]) != ["refused"]
