"""The engine object: what the rest of htxas sees of CASTEP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from htxas.domain.calculation import Kind
from htxas.domain.result import Result
from htxas.domain.structure import Structure
from htxas.engines.base import Job, ResolvedParameters, write_job
from htxas.engines.castep.corrections import LADDER, NUMERICS
from htxas.engines.castep.judge import unfinished
from htxas.engines.castep.parameters import ground_of, site_of
from htxas.engines.castep.presets import PRESETS, resolve
from htxas.engines.castep.process import find_castep, state_key
from htxas.engines.castep.read import read_ground, read_site
from htxas.engines.castep.write import (
    GROUND,
    SITE,
    ground_texts,
    site_texts,
    state_texts,
    title,
    valence_electrons,
)
from htxas.engines.external import Program, read_outcome
from htxas.engines.external_engine import ExternalEngine
from htxas.engines.numerics import refuse_numerics
from htxas.errors import Cause, EngineFailure, UnsupportedInput

__all__ = ["ENGINE", "CastepEngine"]

_PUBLISHED_VOLUME_A3 = 15.0**3
_PUBLISHED_CUTOFF_EV = 500.0
_GROUND_SHARE = 0.3
_MOST_ATOMS = 999


class CastepEngine(ExternalEngine):
    """Core holes in pseudopotentials and plane waves: K edges of molecules in a box and of crystals.

    Absolute energies are differences of total energies, corrected by isolated all-electron atoms; nothing is aligned.
    States above the vacuum level of a molecule are those of its box.
    """

    name = "castep"
    presets: Mapping[str, str] = {name: text for name, (text, *_) in PRESETS.items()}
    ladder = LADDER
    numerics = NUMERICS

    @property
    def keep(self) -> tuple[str, ...]:
        """Inputs, logs, levels, matrix elements and projections; checkpoints and densities are not kept."""
        ends = "cell param odi castep out err bands elnes_bin eels_mat elnes_fmt pdos_bin pdos_weights dome_bin".split()
        return ("*.json", *(f"*.{end}" for end in ends))

    def resolve(
        self, preset: str, overrides: Mapping[str, Any], *, element: str, edge: str
    ) -> ResolvedParameters:
        """See :func:`htxas.engines.castep.presets.resolve`."""
        return resolve(preset, overrides, element=element, edge=edge)

    def check(self, structure: Structure, parameters: ResolvedParameters) -> None:
        """Refuse cells that do not fit, elements without a pseudopotential, and open shells.

        The calculations are not spin-polarised: the ground state must have an even number of electrons.
        """
        site = site_of(parameters.site)
        lacking = [e for e in structure.composition if site.ground.string(e) is None]
        if lacking:
            raise UnsupportedInput(
                f"htxas knows no on-the-fly string of {' and '.join(lacking)} in {structure.formula}",
                hint=f"say one, or a library of CASTEP's: pseudopotentials: {{{lacking[0]}: C9}}",
            )
        cell = site.ground.cell.build(structure)
        if len(cell) > _MOST_ATOMS:
            raise UnsupportedInput(
                f"{structure.formula}: {len(cell)} atoms in the supercell", hint="a smaller distance_A"
            )
        if cell.copies * sum(structure.atomic_numbers) % 2:
            raise UnsupportedInput(
                f"{structure.formula} has an odd number of electrons; the castep engine needs a closed shell",
                hint="check for a missing hydrogen, or take an even number of cells",
            )

    def estimate_s(self, structure: Structure, kind: Kind, parameters: Mapping[str, Any]) -> float:
        """Return expected seconds of one calculation, as the published campaign had its machines.

        Fitted to the times of 1,718 molecules of C, H, N and O of that campaign: unique carbons times (960 + 11.1 N)
        seconds with N valence electrons, median deviation 7 %, nine in ten within 33 %. How many processors they had
        is not known. The ground state's share cannot be told from these times; it is taken to be 0.3 of a site. Other
        boxes, cutoffs and k points are scaled by the size of the plane-wave problem, unmeasured.
        """
        ground = site_of(parameters).ground if kind is Kind.SITE else ground_of(parameters)
        cell = ground.cell.build(structure)
        volume = abs(float(np.linalg.det(cell.cell_A)))
        size = volume / _PUBLISHED_VOLUME_A3 * (ground.cutoff_eV / _PUBLISHED_CUTOFF_EV) ** 1.5
        points = 1.0
        if ground.kpoints is not None:
            a, b, c = ground.divisions(cell)
            points = max(1.0, a * b * c / 2)
        share = 1.0 if kind is Kind.SITE else _GROUND_SHARE
        return float(share * points * size * (960.0 + 11.1 * valence_electrons(cell)))

    def write(self, job: Job, directory: Path) -> None:
        """Write ``calculation.json`` and CASTEP's inputs; for a site also those of its ground state's energy.

        Each attempt starts anew. CASTEP's checkpoints do not serve spectral tasks, and its own way of restarting them
        (castep-docs, "Spectral/restarts": SPECTRAL_RESTART in a block for developers, files of each process) goes from
        k point to k point and needs the same number of processes, which is not known here; it is untested.

        Raises
        ------
        EngineFailure
            BAD_INPUT for numerics that are none of this engine's, or parameters of another recipe.
        """
        refuse_numerics(self.name, NUMERICS, job.numerics)
        write_job(job, directory)
        c = job.calculation
        try:
            if c.kind is Kind.GROUND:
                ground = ground_of(c.parameters)
                texts = ground_texts(title(c.key, state_key(job)), job.structure, ground, job.numerics)
            else:
                assert c.atom is not None
                site = site_of(c.parameters)
                stored = job.numerics if job.ground_energy_eV is None else job.ground_numerics
                refuse_numerics(self.name, NUMERICS, stored)
                texts = site_texts(title(c.key), job.structure, c.atom, site, job.numerics)
                texts |= state_texts(title(state_key(job)), job.structure, site.ground, stored)
        except ValueError as error:
            raise EngineFailure(Cause.BAD_INPUT, str(error), where=str(directory)) from None
        for name, text in texts.items():
            (directory / name).write_text(text)

    def find_code(self, environment: Mapping[str, str]) -> Program:
        """Look for the user's CASTEP."""
        return find_castep(environment)

    def read(self, job: Job, directory: Path) -> Result:
        """Read CASTEP's files.

        Raises
        ------
        EngineFailure
            See :func:`htxas.engines.castep.read.read_ground` and :func:`~htxas.engines.castep.read.read_site`.
        """
        seeds = (GROUND,) if job.calculation.kind is Kind.GROUND else (SITE, GROUND)
        outcome = read_outcome(job, directory, lambda: unfinished(directory, seeds))
        if job.calculation.kind is Kind.GROUND:
            return read_ground(job, directory, outcome)
        return read_site(job, directory, outcome)


ENGINE = CastepEngine()
