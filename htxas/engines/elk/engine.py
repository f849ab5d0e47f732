"""The engine object: what the rest of htxas sees of Elk."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.calculation import Kind
from htxas.domain.result import Result
from htxas.domain.structure import Structure
from htxas.engines.base import Job, ResolvedParameters
from htxas.engines.elk.corrections import LADDER, NUMERICS
from htxas.engines.elk.judge import bad
from htxas.engines.elk.output import OutputError, read_scf
from htxas.engines.elk.parameters import PRESETS, RECIPE, ground_from, resolve
from htxas.engines.elk.process import find_elk
from htxas.engines.elk.read import ground_result, site_result
from htxas.engines.elk.species import SPECIES, Role
from htxas.engines.elk.write import lay_out, scf_inputs
from htxas.engines.external import Program, provenance_of, read_outcome
from htxas.engines.external_engine import ExternalEngine
from htxas.errors import Cause, UnsupportedInput

__all__ = ["ENGINE", "ElkEngine"]

_MOST_SYMMETRIES = 192  # maxsymcrys of Elk
_ORBITALS = 13  # local ones of an atom, besides plane waves


class ElkEngine(ExternalEngine):
    """All-electron linearised augmented plane waves with a full core hole, by Elk: K edges of crystals.

    The hole is not spin-polarised, as published: absolute energies are some eV (1 to 2 %) high.
    """

    name = "elk"
    presets: Mapping[str, str] = {name: text for name, (text, *_) in PRESETS.items()}
    ladder = LADDER
    numerics = NUMERICS

    @property
    def keep(self) -> tuple[str, ...]:
        """Inputs, logs and what is read of them; not densities, wave functions and all matrix elements."""
        names = (
            "*.in",
            "elk.out",
            "INFO.OUT",
            "EIGVAL.OUT",
            "KPOINTS.OUT",
            "EVALCORE.OUT",
            "EQATOMS.OUT",
            "SYMCRYS.OUT",
        )
        folders = ("", "bands/", "spectrum/", "ground/")
        return ("*.json", *(f + n for f in folders for n in names), "bands/BAND_*.OUT")

    def resolve(
        self, preset: str, overrides: Mapping[str, Any], *, element: str, edge: str
    ) -> ResolvedParameters:
        """See :func:`htxas.engines.elk.parameters.resolve`."""
        return resolve(preset, overrides, element=element, edge=edge)

    def check(self, structure: Structure, parameters: ResolvedParameters) -> None:
        """Refuse molecules, odd electron counts, elements without species, and cells that cannot be built."""
        assert parameters.ground is not None
        ground = ground_from(parameters.ground)
        if not structure.is_periodic:
            raise UnsupportedInput(
                f"{structure.formula} is a molecule; elk is for crystals: plane waves would fill an empty box",
                hint="engine pyscf, qe or feff",
            )
        known = SPECIES[ground.species]
        lacking = [e for e in structure.composition if e not in known]
        if lacking:
            raise UnsupportedInput(
                f"the set {ground.species} has no {lacking[0]} in {structure.formula}",
                hint="it has " + " ".join(known),
            )
        if round(lay_out(structure, ground, None).electrons) % 2:
            raise UnsupportedInput(
                f"the cell of {structure.formula} has an odd number of electrons; its ground state is no closed shell",
                hint="a supercell of an even number of cells",
            )
        if (count := _symmetries(structure)) > _MOST_SYMMETRIES:
            raise UnsupportedInput(
                f"the cell of {structure.formula} has {count} symmetries, Elk takes {_MOST_SYMMETRIES}",
                hint="it repeats itself: give the primitive cell, and supercell for the hole",
            )

    def estimate_s(self, structure: Structure, kind: Kind, parameters: Mapping[str, Any]) -> float:
        """Return expected seconds on one core, by basis functions and k points.

        Fitted to CPU times of 2 to 8 atoms with 160 to 780 functions, Elk 8.4.30, within a factor of 2; how far
        symmetry reduces the k points is guessed.
        """
        is_ground = kind is Kind.GROUND
        ground = ground_from(parameters if is_ground else parameters["ground"])
        layout = lay_out(structure, ground, None if is_ground else 0)
        basis = layout.waves(ground.rgkmax) + _ORBITALS * len(layout.cell)
        points = math.ceil(math.prod(layout.mesh) / 2)
        iteration = 0.01 * len(layout.cell) + points * (3.5e-7 * basis**2 + 4.5e-10 * basis**3)
        return 2.0 + 25 * iteration

    def write(self, job: Job, directory: Path) -> None:
        """Write ``calculation.json`` and the inputs of self-consistency; those of later steps need its result.

        Raises
        ------
        EngineFailure
            BAD_INPUT for numerics that are none of this engine's, or another recipe.
        """
        self.write_job(job, directory, recipe=RECIPE)
        c = job.calculation
        is_ground = c.kind is Kind.GROUND
        document = c.parameters if is_ground else c.parameters["ground"]
        ground = ground_from(document)
        role = Role.HOLE if not is_ground and c.parameters["hole"]["electrons"] else Role.PLAIN
        layout = lay_out(job.structure, ground, c.atom, role=role)
        title = f"{job.structure.formula} {c.kind.value} htxas {c.key[:12]}"
        for name, text in scf_inputs(title, layout, ground, job.numerics).items():
            (directory / name).write_text(text)

    def find_code(self, environment: Mapping[str, str]) -> Program:
        """Look for the user's Elk."""
        return find_elk(environment)

    def read(self, job: Job, directory: Path) -> Result:
        """Read levels, charges in spheres and matrix elements.

        Raises
        ------
        EngineFailure
            See :mod:`htxas.engines.elk.read`.
        """
        outcome = read_outcome(
            job, directory, lambda: bad(Cause.ENGINE_CRASH, "the process ended without a word", directory)
        )
        version = _version(directory)
        provenance = provenance_of(outcome, directory, version=version, libraries={"elk": version})
        if job.calculation.kind is Kind.GROUND:
            return ground_result(job, directory, provenance)
        return site_result(job, directory, outcome, provenance)


def _symmetries(structure: Structure) -> int:
    import spglib

    lattice = np.asarray(structure.cell_A)
    cell: Any = (lattice, structure.positions_A @ np.linalg.inv(lattice), structure.atomic_numbers)
    with warnings.catch_warnings():
        # spglib 2.x announces with a warning that a failure, None today, will raise one day: both are handled
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            found = spglib.get_symmetry(cell, symprec=1e-5)
        except spglib.error.SpglibError:
            found = None
    return 1 if found is None else len(found["rotations"])


def _version(directory: Path) -> str:
    try:
        return read_scf(directory).version
    except OutputError:
        return ""


ENGINE = ElkEngine()
