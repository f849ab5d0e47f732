"""The engine object: what the rest of htxas sees of VASP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Kind
from htxas.domain.result import Result
from htxas.domain.structure import Structure
from htxas.domain.units import HARTREE_EV
from htxas.engines.base import Job, ResolvedParameters
from htxas.engines.external import Program, provenance_of, read_outcome
from htxas.engines.external_engine import ExternalEngine
from htxas.engines.vasp.corrections import LADDER, NUMERICS
from htxas.engines.vasp.outcar import read_log
from htxas.engines.vasp.parameters import PRESETS, RECIPE, ground_from, hole_from, resolve
from htxas.engines.vasp.potcar import library
from htxas.engines.vasp.process import find_vasp
from htxas.engines.vasp.read import GROUND, OUTPUT, bad, ground_result, site_result
from htxas.engines.vasp.write import bands, ground_texts, lay_out, site_bands, site_texts
from htxas.errors import Cause, UnsupportedInput

__all__ = ["ENGINE", "VaspEngine"]

_FILES = ("INCAR", "POSCAR", "KPOINTS", "OUTCAR", "OSZICAR", "vasprun.xml", OUTPUT)


class VaspEngine(ExternalEngine):
    """Core holes in projector augmented waves: K edges of crystals and of molecules in a box.

    The spectrum is a curve. VASP does not know its absolute energies; shifts between sites need a reference, see
    :class:`htxas.engines.vasp.parameters.Hole`.
    """

    name = "vasp"
    presets: Mapping[str, str] = {name: text for name, (text, *_) in PRESETS.items()}
    ladder = LADDER
    numerics = NUMERICS

    @property
    def keep(self) -> tuple[str, ...]:
        """Inputs but the POTCAR, logs, and what is read of them."""
        return ("*.json", *_FILES, *(f"{GROUND}/{name}" for name in _FILES))

    def resolve(
        self, preset: str, overrides: Mapping[str, Any], *, element: str, edge: str
    ) -> ResolvedParameters:
        """See :func:`htxas.engines.vasp.parameters.resolve`."""
        return resolve(preset, overrides, element=element, edge=edge)

    def check(self, structure: Structure, parameters: ResolvedParameters) -> None:
        """Refuse elements without a POTCAR, cutoffs that are too low, odd electrons, and cells that cannot be built."""
        assert parameters.ground is not None
        ground = ground_from(parameters.ground)
        lacking = [e for e in structure.composition if e not in ground.potcars]
        if lacking:
            raise UnsupportedInput(
                f"no POTCAR of {' and '.join(lacking)} in {structure.formula} is named",
                hint=f"potcars: {{{lacking[0]}: NAME}}",
            )
        highest = max((ground.potcars[e] for e in structure.composition), key=lambda p: p.cutoff_eV)
        if ground.cutoff_eV < highest.cutoff_eV:
            raise UnsupportedInput(
                f"{highest.name} needs a cutoff of {highest.cutoff_eV:g} eV, not {ground.cutoff_eV:g}",
                hint="a larger cutoff_eV",
            )
        if round(lay_out(structure, ground).electrons) % 2:
            raise UnsupportedInput(
                f"{structure.formula} has an odd number of electrons; the vasp engine needs a closed shell",
                hint="check for a missing hydrogen, or take an even number of cells",
            )

    def estimate_s(self, structure: Structure, kind: Kind, parameters: Mapping[str, Any]) -> float:
        """Return expected seconds on one core, by plane waves, bands and k points.

        Not measured, for VASP is licensed: transforms as in Quantum ESPRESSO's ground states on a laptop (1e-5 s a wave
        and band), and some 700 operations a wave and pair of bands for rotations, at 10 GFlop/s.
        """
        is_ground = kind is Kind.GROUND
        ground = ground_from(parameters if is_ground else parameters["ground"])
        layout = lay_out(structure, ground, None if is_ground else 0)
        waves = layout.volume_a03 * (2 * ground.cutoff_eV / HARTREE_EV) ** 1.5 / (6 * math.pi**2)
        points = 1.0
        if ground.kpoints is not None:
            a, b, c = ground.kpoints.build(layout.cell.cell_A)
            points = (a * b * c + 1) // 2
        if is_ground:
            count = bands(layout, molecule=ground.box is not None, window_eV=ground.pdos_window_eV)
        else:
            count = site_bands(layout, ground, hole_from(parameters["hole"]))
        return float(2.0 + points * waves * (1e-5 * count + 7e-8 * count**2))

    def write(self, job: Job, directory: Path) -> None:
        """Write ``calculation.json``, INCAR, POSCAR and KPOINTS; the POTCAR comes when VASP starts.

        A ``previous_directory`` is of no use: VASP writes its wave functions at its end, so one cut short has none.

        Raises
        ------
        EngineFailure
            BAD_INPUT for numerics that are none of this engine's, or another recipe.
        """
        self.write_job(job, directory, recipe=RECIPE)
        c = job.calculation
        document = c.parameters if c.kind is Kind.GROUND else c.parameters["ground"]
        ground = ground_from(document)
        if c.kind is Kind.GROUND:
            texts = ground_texts(c.key, job.structure, ground, job.numerics)
        else:
            assert c.atom is not None
            hole = hole_from(c.parameters["hole"])
            texts = site_texts(c.key, job.structure, c.atom, ground, hole, job.numerics)
        for name, text in texts.items():
            (directory / name).write_text(text)

    def find_code(self, environment: Mapping[str, str]) -> Program:
        """Look for the user's VASP and POTCARs."""
        found = find_vasp(environment)
        library(environment)
        return found

    def read(self, job: Job, directory: Path) -> Result:
        """Read ``OUTCAR`` and ``vasprun.xml``.

        Raises
        ------
        EngineFailure
            See :mod:`htxas.engines.vasp.read`.
        """
        outcome = read_outcome(
            job, directory, lambda: bad(Cause.ENGINE_CRASH, "the process ended without a word", directory)
        )
        path = directory / "OUTCAR"
        version = read_log(path.read_text(errors="replace")).version if path.is_file() else ""
        provenance = provenance_of(outcome, directory, version=version, libraries={"vasp": version})
        if job.calculation.kind is Kind.GROUND:
            return ground_result(job, directory, provenance)
        return site_result(job, directory, outcome, provenance)


ENGINE = VaspEngine()
