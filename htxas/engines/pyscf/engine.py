"""The engine object: what the rest of htxas sees of PySCF. Importing it does not import PySCF."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.calculation import Convergence, Kind
from htxas.domain.dos import Pdos
from htxas.domain.result import GroundResult, Provenance, Result, SiteResult
from htxas.domain.spectrum import Sticks
from htxas.domain.structure import Structure
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import Correction, Job, ResolvedParameters, write_job
from htxas.engines.numerics import Numeric, refuse_numerics
from htxas.engines.pyscf.corrections import LADDER, NUMERICS
from htxas.engines.pyscf.parameters import OTHERS, PRESETS, resolve, shells
from htxas.engines.pyscf.versions import libraries
from htxas.errors import Cause, EngineFailure, UnsupportedInput

__all__ = ["ENGINE", "PyscfEngine"]

_MODULE = "htxas.engines.pyscf"
_LOG = "engine.log"
_TAIL_LINES = 15


@dataclass(frozen=True, slots=True)
class PyscfEngine:
    """Core-hole Kohn-Sham spectra of closed-shell molecules in vacuum.

    The spectrum shows bound valence excitations (pi*, sigma*) reliably, Rydberg states approximately, and above
    the ionisation energy a discretised continuum, converged with the basis to about 5 eV above it; the lines further up
    have no meaning one by one.
    """

    name: str = "pyscf"

    @property
    def presets(self) -> Mapping[str, str]:
        """Preset name -> one line for the user."""
        return {name: text for name, (text, _, _) in PRESETS.items()}

    @property
    def ladder(self) -> Mapping[Cause, tuple[Correction, ...]]:
        """See :mod:`htxas.engines.pyscf.corrections`."""
        return LADDER

    @property
    def numerics(self) -> Mapping[str, Numeric]:
        """See :mod:`htxas.engines.pyscf.corrections`."""
        return NUMERICS

    @property
    def keep(self) -> tuple[str, ...]:
        """Inputs, outcome and logs."""
        return ("*.json", "result.npz", "*.log")

    def resolve(
        self, preset: str, overrides: Mapping[str, Any], *, element: str, edge: str
    ) -> ResolvedParameters:
        """See :func:`htxas.engines.pyscf.parameters.resolve`."""
        return resolve(preset, overrides, element=element, edge=edge)

    def check(self, structure: Structure, parameters: ResolvedParameters) -> None:
        """Refuse crystals, odd electron counts and elements without basis functions.

        Everything else is computed as a neutral singlet: xyz files carry neither charge nor spin.
        """
        if structure.is_periodic:
            raise UnsupportedInput(
                f"{structure.formula} is periodic; the pyscf engine treats molecules in vacuum",
                hint="remove the cell to compute the molecule, or use a periodic engine",
            )
        if sum(structure.atomic_numbers) % 2:
            raise UnsupportedInput(
                f"{structure.formula} has an odd number of electrons; the pyscf engine needs a closed shell",
                hint="check for a missing hydrogen",
            )
        ground = parameters.site["ground"]
        for element in structure.composition:
            name = ground["core_basis"] if element == ground["core_element"] else ground["valence_basis"]
            if element not in OTHERS or shells(name, element) is None:
                raise UnsupportedInput(f"basis {name} has no functions for {element} in {structure.formula}")

    def estimate_s(self, structure: Structure, kind: Kind, parameters: Mapping[str, Any]) -> float:
        """Return expected seconds on one core: a power of the number of basis functions.

        Fitted to the processor seconds of 910 calculations of the reference campaign (preset ``published``, up to eight
        heavy atoms, median deviation 6 %); the factors for other presets are from single runs.
        """
        ground = parameters if kind is Kind.GROUND else parameters["ground"]
        core = 33 if str(ground["core_basis"]).startswith("aug") else 24
        size = sum(
            count * (core if e == ground["core_element"] else 5 if e == "H" else 14)
            for e, count in structure.composition.items()
        )
        meta = 2.0 if ground["functional"] in ("r2SCAN", "TPSS") else 1.0
        grid = (0.6, 1.0, 1.7, 2.6, 4.0, 6.0, 9.0)[ground["grid_level"]]
        if kind is Kind.GROUND:
            return float(1.6 * meta * grid * (size / 200) ** 2.1)
        neutral = 2.5 if parameters["hole"]["scale"] == "neutral" else 1.0
        return float(3.7 * meta * grid * neutral * (size / 200) ** 1.65)

    def write(self, job: Job, directory: Path) -> None:
        """Write ``calculation.json``, the engine's only input.

        Raises
        ------
        EngineFailure
            BAD_INPUT for numerics that are none of this engine's.
        """
        refuse_numerics(self.name, NUMERICS, job.numerics)
        write_job(job, directory)

    def command(self, directory: Path) -> list[str]:
        """Return the argument list that runs ``directory`` once."""
        return [sys.executable, "-m", _MODULE, str(directory)]

    @property
    def starts_code(self) -> bool:
        """The command is the engine."""
        return False

    def missing(self, environment: Mapping[str, str]) -> None:
        """Return None: it comes with htxas."""
        return

    def server_command(self) -> list[str]:
        """Return the argument list of the persistent process."""
        return [sys.executable, "-m", _MODULE, "--serve"]

    def read(self, job: Job, directory: Path) -> Result:
        """Read ``outcome.json`` and ``result.npz``.

        Raises
        ------
        EngineFailure
            The engine's own named failure; ENGINE_CRASH without an outcome; BAD_OUTPUT if the files are stale, cut
            short or another calculation's.
        """
        outcome = _read_outcome(directory)
        if outcome.get("key") not in (None, job.calculation.key):
            raise EngineFailure(
                Cause.BAD_OUTPUT,
                f"outcome.json belongs to calculation {outcome['key']}",
                where=str(directory),
            )
        if outcome.get("status") != "ok":
            failure = outcome.get("failure", {})
            raise EngineFailure(
                Cause(failure.get("cause", Cause.BAD_OUTPUT.value)),
                failure.get("message", "outcome.json names no cause"),
                evidence=failure.get("evidence", {}),
                where=str(directory),
            )
        arrays = _read_arrays(directory, outcome)
        try:
            convergence = Convergence(outcome.get("convergence", "unknown"))
            provenance = _provenance(outcome, directory)
            if job.calculation.kind is Kind.GROUND:
                return _ground_result(arrays, convergence, provenance)
            return _site_result(arrays, outcome, convergence, provenance)
        except (KeyError, ValueError, IndexError) as error:
            raise EngineFailure(
                Cause.BAD_OUTPUT, f"result.npz or outcome.json lacks a value: {error}", where=str(directory)
            ) from error

    def versions(self) -> dict[str, str]:
        """Return package name -> version."""
        return libraries()


def _read_outcome(directory: Path) -> dict[str, Any]:
    try:
        outcome = json.loads((directory / "outcome.json").read_text())
    except FileNotFoundError:
        raise EngineFailure(
            Cause.ENGINE_CRASH,
            "the engine process ended without an outcome",
            evidence={"log_tail": _tail(directory)},
            where=str(directory),
        ) from None
    except ValueError as error:
        raise EngineFailure(
            Cause.BAD_OUTPUT, f"outcome.json cannot be read: {error}", where=str(directory)
        ) from None
    if not isinstance(outcome, dict):
        raise EngineFailure(Cause.BAD_OUTPUT, "outcome.json is not an object", where=str(directory))
    return outcome


def _tail(directory: Path) -> list[str]:
    log = directory / _LOG
    if not log.exists():
        return []
    return log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]


def _read_arrays(directory: Path, outcome: Mapping[str, Any]) -> dict[str, Any]:
    import hashlib
    import zipfile

    path = directory / "result.npz"
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != outcome.get("arrays_sha256"):
            raise EngineFailure(
                Cause.BAD_OUTPUT, "result.npz is not the file outcome.json speaks of", where=str(directory)
            )
        with np.load(path, allow_pickle=False) as data:
            return {name: data[name] for name in data.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise EngineFailure(
            Cause.BAD_OUTPUT, f"result.npz cannot be read: {error}", where=str(directory)
        ) from None


def _provenance(outcome: Mapping[str, Any], directory: Path) -> Provenance:
    libraries_used = dict(outcome["libraries"])
    return Provenance(
        engine_version=libraries_used["pyscf"],
        libraries=libraries_used,
        host=outcome["host"],
        started=outcome["started"],
        ended=outcome["ended"],
        wall_s=float(outcome["wall_s"]),
        cpu_s=float(outcome["cpu_s"]),
        inputs_sha256=dict(outcome["inputs_sha256"]),
        directory=str(directory),
        extra=dict(outcome.get("extra", {})),
    )


def _ground_result(
    arrays: Mapping[str, Any], convergence: Convergence, provenance: Provenance
) -> GroundResult:
    homo, lumo = (float(x) * HARTREE_EV for x in arrays["frontier_Ha"])
    return GroundResult(
        convergence=convergence,
        total_energy_eV=float(arrays["energy_Ha"]) * HARTREE_EV,
        homo_eV=homo,
        lumo_eV=lumo,
        dipole_D=arrays["dipole_D"],
        pdos=Pdos(arrays["pdos_energies_eV"], arrays["pdos_occupations"], arrays["pdos_weights"]),
        provenance=provenance,
    )


def _site_result(
    arrays: Mapping[str, Any], outcome: Mapping[str, Any], convergence: Convergence, provenance: Provenance
) -> SiteResult:
    energies = arrays["energies_eV"]
    ionization = float(arrays["ionization_eV"])
    return SiteResult(
        convergence=convergence,
        sticks=Sticks(energies, arrays["strengths"]),
        excitation_energy_eV=float(energies[0]) if len(energies) else math.nan,
        ionization_eV=ionization,
        scale=outcome["scale"],
        energies_eV=dict(outcome["total_energies_eV"]),
        hole_overlap=float(arrays["hole_overlap"]),
        window_eV=float(arrays["window_eV"]),
        provenance=provenance,
    )


ENGINE = PyscfEngine()
