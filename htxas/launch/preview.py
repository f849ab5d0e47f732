"""What submitting a plan would do; nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from htxas.campaign.batches import Task, Work
from htxas.campaign.cost import Calibration
from htxas.campaign.plan import Plan, PlannedMolecule, Skipped
from htxas.domain.calculation import State
from htxas.launch.estimates import measured
from htxas.launch.submit import CHUNK, layout
from htxas.store.store import Store

__all__ = ["Preview", "preview", "skipped_document"]


@dataclass(slots=True)
class Preview:
    """A plan in numbers.

    Attributes
    ----------
    done, known, new
        Calculations finished already, known but not finished, and not known.
    new_estimate_s
        Expected seconds of the new ones on one core of this machine.
    batches
        Fireworks that would be made.
    calibration
        How the expectation was made.
    checked
        Whether a database was asked; without one everything counts as new.
    """

    done: int = 0
    known: int = 0
    new: int = 0
    new_estimate_s: float = 0.0
    batches: int = 0
    calibration: Calibration = field(default_factory=Calibration)
    checked: bool = False

    def to_dict(self, plan: Plan) -> dict[str, Any]:
        """Return preview and survey as a document."""
        survey = plan.survey
        return {
            "campaign": plan.campaign.name,
            "molecules": survey.molecules,
            "atoms": survey.atoms,
            "sites": survey.sites,
            "calculations": survey.calculations,
            "without_element": asdict(survey.without_element),
            "refused": asdict(survey.refused),
            "skipped": skipped_document(survey.skipped),
            **asdict(self),
        }


def skipped_document(skipped: Sequence[Skipped]) -> dict[str, Any]:
    """Return what was skipped: ``count``, ``why`` (kind -> count), and every molecule."""
    return {
        "count": len(skipped),
        "why": dict(Counter(s.why for s in skipped)),
        "molecules": [asdict(s) for s in skipped],
    }


def preview(plan: Plan, store: Store | None) -> Preview:
    """Return what submitting ``plan`` to ``store`` would do; without a store, to an empty one."""
    campaign = plan.campaign
    calibration = Calibration() if store is None else measured(store, campaign)
    found = Preview(calibration=calibration, checked=store is not None)
    total_s = calibration.total_s(plan.survey.ground_s, plan.survey.sites_s)
    tally: Counter[State] = Counter()
    works = _new_works(plan.molecules(), store, calibration, tally, found)
    found.batches = sum(1 for _ in layout(campaign, works, total_s))
    found.done = tally[State.DONE]
    found.known = sum(tally.values()) - found.done
    return found


def _new_works(
    molecules: Iterator[PlannedMolecule],
    store: Store | None,
    calibration: Calibration,
    tally: Counter[State],
    found: Preview,
) -> Iterator[Work]:
    while chunk := list(islice(molecules, CHUNK)):
        planned = {p.calculation.key: p for m in chunk for p in m.calculations}
        states = {} if store is None else store.states(planned)
        tally.update(states.values())
        left = planned.keys() - states.keys()
        found.new += len(left)
        for molecule in chunk:
            tasks = []
            atoms = len(molecule.structure.structure)
            for p in molecule.calculations:
                key = p.calculation.key
                if key in left:
                    left.discard(key)
                    tasks.append(Task(key, calibration.seconds(p.calculation.kind, p.estimate_s, atoms)))
            found.new_estimate_s += sum(t.seconds for t in tasks)
            ground = molecule.ground
            with_ground = bool(tasks) and ground is not None and tasks[0].key == ground.calculation.key
            yield Work(tasks[0] if with_ground else None, tuple(tasks[1:] if with_ground else tasks))
