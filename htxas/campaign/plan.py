"""Molecules -> unique sites -> calculations, one molecule at a time.

Planning has two passes. The first reads, selects and checks every molecule and finds its sites; what it finds lies
in a temporary file, so that the second, :meth:`Plan.molecules`, repeats none of that. Nothing is written to a database
before the whole input has been seen, and nothing holds the campaign in memory.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np

from htxas.campaign.cost import CostModel
from htxas.campaign.file import CampaignFile
from htxas.campaign.molecules import campaign_molecules
from htxas.domain.calculation import Calculation, Kind
from htxas.domain.structure import Structure
from htxas.errors import HtxasError, StructureError, UnsupportedInput, UserError
from htxas.store.records import MoleculeRecord, PlannedCalculation, SiteRef, StructureRecord
from htxas.structures.read import expand
from htxas.structures.source import SourceMolecule

__all__ = ["Plan", "PlannedMolecule", "Skipped", "Survey", "ground_calculation", "site_calculation"]

_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class PlannedMolecule:
    """A molecule with its structure and calculations.

    Attributes
    ----------
    structure, molecule
        Records for the store.
    ground
        Its ground state, or None where the engine has none.
    sites
        One calculation per unique site, in the order of ``molecule.sites``.
    """

    structure: StructureRecord
    molecule: MoleculeRecord
    ground: PlannedCalculation | None
    sites: tuple[PlannedCalculation, ...]

    @property
    def calculations(self) -> tuple[PlannedCalculation, ...]:
        """Ground state, if there is one, and sites, in the order they run."""
        return self.sites if self.ground is None else (self.ground, *self.sites)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A molecule left out because its source says ``on_error: skip``.

    Attributes
    ----------
    name
        As in the file, or the file's name and the number of the record.
    why
        What is wrong: its ``record``, its ``structure`` (an atom on another), its ``geometry`` (none could be made), or
        the ``engine`` refuses it.
    message
        The error in full, with file and record.
    """

    name: str
    why: str
    message: str

    def __str__(self) -> str:
        return self.message if self.name in self.message else f"{self.name}: {self.message}"


@dataclass(slots=True)
class Examples:
    """A count, and the first few names of what was counted."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.names) < _EXAMPLES:
            self.names.append(name)

    def __str__(self) -> str:
        more = f" and {self.count - len(self.names)} more" if self.count > len(self.names) else ""
        return ", ".join(self.names) + more


@dataclass(slots=True)
class Survey:
    """What the first pass found.

    Attributes
    ----------
    molecules, atoms, sites
        Molecules planned, their atoms of the absorbing element, and the unique sites among those.
    grounds
        Ground states: one per molecule, or none.
    ground_s, sites_s
        Expected seconds of all ground states and of all sites, by the engine's prior.
    largest
        The same two of the most expensive molecule.
    without_element
        Molecules left out because the element is not in them.
    refused
        Molecules the engine cannot treat, with the reason.
    skipped
        Molecules left out because the campaign says so.
    """

    molecules: int = 0
    atoms: int = 0
    sites: int = 0
    grounds: int = 0
    ground_s: float = 0.0
    sites_s: float = 0.0
    largest: tuple[float, float] = (0.0, 0.0)
    without_element: Examples = field(default_factory=Examples)
    refused: Examples = field(default_factory=Examples)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def calculations(self) -> int:
        """Ground states and sites."""
        return self.grounds + self.sites


def ground_calculation(campaign: CampaignFile, structure_key: str) -> Calculation | None:
    """Return the ground state of a structure, or None where the engine has none."""
    parameters = campaign.parameters.ground
    return (
        None if parameters is None else Calculation(Kind.GROUND, structure_key, campaign.engine, parameters)
    )


def site_calculation(campaign: CampaignFile, structure_key: str, atom: int) -> Calculation:
    """Return the site calculation of canonical atom ``atom``."""
    return Calculation(
        Kind.SITE,
        structure_key,
        campaign.engine,
        campaign.parameters.site,
        campaign.element,
        campaign.edge,
        atom,
    )


class Plan:
    """A surveyed campaign. Use as a context manager: it owns a temporary file.

    Parameters
    ----------
    campaign
        The campaign.
    on_molecule
        Called after each molecule of the survey, for a progress bar.

    Raises
    ------
    UserError
        Two molecules of one name, a molecule without the element in all, or anything the readers refuse.
    """

    def __init__(self, campaign: CampaignFile, on_molecule: Callable[[], None] | None = None) -> None:
        self.campaign = campaign
        self.survey = Survey()
        self._cost = CostModel(campaign.load_engine(), campaign.parameters)
        self._spool: TextIO = tempfile.TemporaryFile("w+", encoding="ascii", prefix="htxas-plan-")  # noqa: SIM115
        with ExitStack() as cleanup:
            cleanup.callback(self._spool.close)
            self._survey(on_molecule)
            cleanup.pop_all()  # kept open: the survey is sound

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()

    def refuse_unless_sound(self) -> None:
        """Raise if anything must not be submitted.

        Raises
        ------
        UnsupportedInput
            If the engine refused a molecule: a campaign is submitted whole or not at all.
        """
        refused = self.survey.refused
        if refused.count:
            raise UnsupportedInput(
                f"{refused.count} molecule{'s' * (refused.count > 1)} cannot be computed, nothing was submitted: "
                f"{refused.names[0]}",
                where=str(self.campaign.path),
                hint="all of them: htxas campaign plan; leave them out: structures: on_error: skip, or select: exclude",
            )

    def _survey(self, on_molecule: Callable[[], None] | None) -> None:
        campaign, survey, engine = self.campaign, self.survey, self._cost.engine
        names: set[str] = set()

        def skip(name: str, why: str, error: HtxasError) -> None:
            if on_molecule is not None and name not in names:
                on_molecule()
            where = f"{error.where}: " if error.where else ""
            survey.skipped.append(Skipped(name, why, f"{where}{error.message}"))

        for source, molecule in campaign_molecules(campaign, skip):
            if molecule.name in names:
                raise UserError(
                    f"two molecules are called {molecule.name!r}",
                    where=str(source.path),
                    hint="names are how results are found: make them differ",
                )
            names.add(molecule.name)
            if on_molecule is not None:
                on_molecule()
            structure = molecule.structure
            if campaign.element not in structure.composition:
                survey.without_element.add(molecule.name)
                continue
            try:
                _refuse_moments(molecule)
                engine.check(structure, campaign.parameters)
                sites = expand(molecule, campaign.element, campaign.symmetry_tolerance_A)
            except UnsupportedInput as error:
                if source.skip:
                    skip(molecule.name, "engine", error)
                else:
                    survey.refused.add(f"{molecule.name}: {error.message}")
                continue
            except StructureError as error:
                if not source.skip:
                    raise
                skip(molecule.name, "structure", error)
                continue
            ground_s, sites_s = self._cost.ground_s(structure), len(sites) * self._cost.site_s(structure)
            survey.molecules += 1
            survey.atoms += structure.composition[campaign.element]
            survey.sites += len(sites)
            survey.grounds += campaign.parameters.ground is not None
            survey.ground_s += ground_s
            survey.sites_s += sites_s
            survey.largest = max(survey.largest, (ground_s, sites_s), key=sum)
            document = {
                "name": molecule.name,
                "structure": structure.to_dict(),
                "order": molecule.order,
                "smiles": molecule.smiles,
                "provenance": dict(molecule.provenance),
                "sites": [site.equivalent for site in sites],
            }
            self._spool.write(json.dumps(document) + "\n")
        if not survey.molecules and not survey.refused.count:
            raise _nothing(campaign, survey)

    def molecules(self) -> Iterator[PlannedMolecule]:
        """Yield the planned molecules: the second pass."""
        self._spool.seek(0)
        for line in self._spool:
            yield self._planned(json.loads(line))

    def _planned(self, document: dict[str, Any]) -> PlannedMolecule:
        campaign, name = self.campaign, document["name"]
        structure = Structure.from_dict(document["structure"])
        order = tuple(document["order"])
        ground = ground_calculation(campaign, structure.key)
        site_s = self._cost.site_s(structure)
        planned, refs = [], []
        for equivalent in document["sites"]:
            site = site_calculation(campaign, structure.key, equivalent[0])
            planned.append(PlannedCalculation(site, site_s))
            refs.append(
                SiteRef(
                    key=site.key,
                    atom=equivalent[0],
                    file_atom=order[equivalent[0]],
                    element=campaign.element,
                    multiplicity=len(equivalent),
                    equivalent_file_atoms=tuple(sorted(order[a] for a in equivalent)),
                )
            )
        return PlannedMolecule(
            StructureRecord(structure, document["smiles"], document["provenance"]),
            MoleculeRecord(
                campaign.name,
                name,
                structure.key,
                None if ground is None else ground.key,
                document["smiles"],
                order,
                tuple(refs),
            ),
            None if ground is None else PlannedCalculation(ground, self._cost.ground_s(structure)),
            tuple(planned),
        )


def _refuse_moments(molecule: SourceMolecule) -> None:
    """Refuse magnetic moments, before any engine is asked: none of them has a spin-polarised initial state.

    An engine that learns to takes this check over; that of all others stays here.

    Raises
    ------
    UnsupportedInput
        Saying what to do: without its moments a structure is computed without spin, and the user has said so.
    """
    structure, moments = molecule.structure, molecule.structure.moments_muB
    if moments is None:
        return
    atom = int(np.abs(moments).argmax())
    file = molecule.provenance.get("file")
    raise UnsupportedInput(
        f"magnetic moments in {file}, up to {abs(moments[atom]):g} Bohr magnetons ({structure.symbols[atom]}, atom "
        f"{molecule.order[atom]} of the file, counted from 0): no engine here starts from a spin-polarised state; to "
        "compute it without spin, knowingly, take the moments out of the file",
        where=f"{file}, {molecule.name}",
    )


def _nothing(campaign: CampaignFile, survey: Survey) -> UserError:
    if survey.skipped:
        return UserError(
            f"no molecule is left, {len(survey.skipped)} had to be skipped, first {survey.skipped[0]}",
            where=f"{campaign.path}: structures",
            hint="on_error: stop shows the first one in full",
        )
    if survey.without_element.count:
        return UserError(
            f"none of the {survey.without_element.count} molecules has {campaign.element} in it",
            where=f"{campaign.path}: site.element",
            hint="name an element that is there",
        )
    return UserError(
        "no molecule is left after select",
        where=f"{campaign.path}: structures",
        hint="check names and exclude",
    )
