"""The engine object: what the rest of htxas sees of FEFF."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Kind
from htxas.domain.result import Provenance, Result
from htxas.domain.structure import Structure
from htxas.engines.base import Job, ResolvedParameters, write_job
from htxas.engines.external import Program, log_tail, provenance_of, read_outcome
from htxas.engines.external_engine import ExternalEngine
from htxas.engines.feff.checkpoint import take_potentials
from htxas.engines.feff.cluster import NEIGHBOURS_MOST
from htxas.engines.feff.corrections import LADDER, NUMERICS
from htxas.engines.feff.parameters import PRESETS, FeffParameters, resolve
from htxas.engines.feff.process import find_feff
from htxas.engines.feff.read import FeffRun, log_text, read_run, result_of, unfinished
from htxas.engines.feff.write import AXES, Layout, deck_texts, lay_out
from htxas.engines.numerics import refuse_numerics
from htxas.errors import Cause, EngineFailure, UnsupportedInput

__all__ = ["ENGINE", "FeffEngine", "parameters_from"]

_KINDS_MOST = {9: 11, 10: 31}  # unique potentials (nphx)


def parameters_from(document: Mapping[str, Any]) -> FeffParameters:
    """Return the parameters of a calculation's document."""
    return FeffParameters.model_validate_json(json.dumps(dict(document)))


class FeffEngine(ExternalEngine):
    """Real-space multiple scattering in muffin-tin potentials: molecules and crystals, any edge of one shell.

    Energies are FEFF's own: a free-atom edge and the Fermi level of its potentials. They are eVs off (5 to 10 eV low
    at molecular carbon K edges) and are never aligned here.
    """

    name = "feff"
    presets: Mapping[str, str] = {name: text for name, (text, *_) in PRESETS.items()}
    ladder = LADDER
    numerics = NUMERICS

    @property
    def keep(self) -> tuple[str, ...]:
        """Input, spectrum, densities of states and logs; potentials and Green's functions are not kept."""
        names = (
            "feff.inp",
            "feff.out",
            "xmu.dat",
            "xmu10.dat",
            "eels.dat",
            "ldos*.dat",
            "convergence.scf",
            ".feff.error",
        )
        return ("*.json", *names, *(f"[xyz]/{n}" for n in names))

    def resolve(
        self, preset: str, overrides: Mapping[str, Any], *, element: str, edge: str
    ) -> ResolvedParameters:
        """See :func:`htxas.engines.feff.parameters.resolve`."""
        return resolve(preset, overrides, element=element, edge=edge)

    def check(self, structure: Structure, parameters: ResolvedParameters) -> None:
        """Refuse single atoms, more (kinds of) atoms than FEFF has room for, no spheres, and LDOS beside hydrogen."""
        p = parameters_from(parameters.site)
        if len(structure) == 1 and not structure.is_periodic:
            raise UnsupportedInput(f"{structure.formula} is one atom; FEFF needs neighbours to scatter from")
        if len(structure.composition) + 1 > _KINDS_MOST[p.version]:
            raise UnsupportedInput(
                f"FEFF {p.version} has room for {_KINDS_MOST[p.version] - 1} kinds of atoms"
            )
        if p.ldos is not None and "H" in structure.composition:
            raise UnsupportedInput(
                f"{structure.formula} has hydrogen: FEFF's densities of states are wrong then (its potentials are made "
                "with the hydrogens moved outwards)",
                hint="leave ldos out, or take them from another engine",
            )
        layout = self._layout(structure, 0, p)
        if len(layout.cluster) > NEIGHBOURS_MOST:
            raise UnsupportedInput(
                f"FEFF would be told of {len(layout.cluster)} atoms, it has room for {NEIGHBOURS_MOST}",
                hint="smaller radii, or cluster_radius_A",
            )
        if len(layout.cluster) < 2:
            raise UnsupportedInput(f"an atom of {structure.formula} has no neighbour within its radius")

    @staticmethod
    def _layout(structure: Structure, atom: int, parameters: FeffParameters) -> Layout:
        try:
            return lay_out(structure, atom, parameters)
        except ValueError as error:
            raise UnsupportedInput(f"{structure.formula}: {error}") from None

    def estimate_s(self, structure: Structure, kind: Kind, parameters: Mapping[str, Any]) -> float:
        """Return expected seconds on one core, by the atoms of both spheres.

        From 28 sites of molecules of 4 to 20 atoms with FEFF10 (gfortran, OpenBLAS): 4.4 to 12 s of processor time,
        within a fifth; crystals from single runs.
        """
        p = parameters_from(parameters)
        layout = lay_out(structure, 0, p)
        kinds = len(structure.composition) + 1
        scf = 0.0 if layout.scf_A is None else float(len(layout.cluster.within(layout.scf_A)))
        fms = 0.0 if layout.fms_A is None else float(len(layout.cluster.within(layout.fms_A)))
        matrices = kinds if p.scf is not None and p.scf.center == "each" else 1
        directions = 3 if p.polarization == "xyz" else 1
        work_scf = matrices * (0.15 * scf + 5e-4 * scf**2.6)
        work_fms = 0.1 * fms + 2e-4 * fms**2.6
        return float(3.5 + 1.25 * (work_scf + (directions + (p.ldos is not None)) * work_fms))

    def write(self, job: Job, directory: Path) -> None:
        """Write ``calculation.json`` and ``feff.inp``, or one of each polarisation in a folder of its own.

        Raises
        ------
        EngineFailure
            BAD_INPUT for numerics that are none of this engine's.
        """
        refuse_numerics(self.name, NUMERICS, job.numerics)
        write_job(job, directory)
        c = job.calculation
        assert c.edge is not None
        assert c.atom is not None
        title = f"{job.structure.formula} {c.element} {c.edge} atom {c.atom} htxas {c.key[:12]}"
        parameters = parameters_from(c.parameters)
        try:
            texts = deck_texts(title, c.edge, job.structure, c.atom, parameters, job.numerics)
        except ValueError as error:
            raise EngineFailure(Cause.BAD_INPUT, str(error), where=str(directory)) from None
        for folder, text in texts.items():
            here = directory / folder
            here.mkdir(exist_ok=True)
            if job.previous_directory is not None:
                text = take_potentials(job.previous_directory / folder, here, text)
            (here / "feff.inp").write_text(text)

    def find_code(self, environment: Mapping[str, str]) -> Program:
        """Look for the user's FEFF."""
        return find_feff(environment)

    def read(self, job: Job, directory: Path) -> Result:
        """Read ``xmu.dat``, ``ldosNN.dat`` and the logs.

        Raises
        ------
        EngineFailure
            See :func:`htxas.engines.feff.read.read_run`; also BAD_INPUT if another version of FEFF ran, or none.
        """
        outcome = read_outcome(job, directory, lambda: _unfinished(directory))
        parameters = parameters_from(job.calculation.parameters)
        assert job.calculation.atom is not None
        layout = lay_out(job.structure, job.calculation.atom, parameters)
        tags = {p.index: p.tag for p in layout.cluster.potentials(job.structure)}
        folders = list(AXES) if parameters.polarization == "xyz" else [""]
        runs: dict[str, FeffRun] = {}
        for folder in folders:
            runs[folder] = read_run(
                directory / folder,
                tags=tags,
                with_dos=parameters.ldos is not None and not runs,
                elnes=parameters.elnes is not None,
            )
        if outcome["ended_in"] is not None:
            raise EngineFailure(
                Cause.ENGINE_CRASH,
                f"FEFF ended in {outcome['ended_in']} with status {outcome['returncode']}",
                evidence={"log_tail": log_tail(log_text(directory / folders[-1]))},
                where=str(directory),
            )
        version = next(iter(runs.values())).xmu.version
        if version.split(".")[0] != str(parameters.version):
            raise EngineFailure(
                Cause.BAD_INPUT,
                f"FEFF {version} ran, the calculation is one of FEFF {parameters.version}",
                where=str(directory),
                hint="say version: in engine: parameters, or give the workers the other FEFF",
            )
        provenance = _provenance(outcome, runs, version, directory)
        return result_of(
            runs,
            layout=layout,
            self_consistent=parameters.scf is not None,
            provenance=provenance,
            where=str(directory),
        )


def _provenance(
    outcome: Mapping[str, Any], runs: Mapping[str, FeffRun], version: str, directory: Path
) -> Provenance:
    logs = [run.log for run in runs.values()]
    warnings: dict[str, int] = {}
    for log in logs:
        for name, count in log.warnings.items():
            warnings[name] = warnings.get(name, 0) + count
    extra = {
        "modules_s": outcome["modules_s"],
        "program": outcome["program"],
        "scf_iterations": logs[0].iterations,
        "charges": {str(k): v for k, v in logs[0].charges.items()},
        **({"warnings": warnings} if warnings else {}),
    }
    return provenance_of(outcome, directory, version=version, libraries={"feff": version}, extra=extra)


def _unfinished(directory: Path) -> EngineFailure:
    folders = (directory, *map(directory.joinpath, AXES))
    return unfinished(next((f for f in folders if log_text(f)), directory))


ENGINE = FeffEngine()
