"""What the chaos test computes, and how each calculation must end: known before anything starts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Ending", "Workload", "chains", "real"]

_H = 1.09


@dataclass(frozen=True, slots=True)
class Ending:
    """How a calculation must end."""

    state: str
    cause: str | None = None
    corrections: tuple[str, ...] = ()


DONE = Ending("done")

# The place in a molecule's chain -> how the fake engine fails there, and what that must be called in the end.
_FAILURES: Mapping[str, Ending] = {
    "unconverged": Ending("quarantined", "scf_unconverged"),
    "unconverged:level_shift_Ha": Ending("done", corrections=("level_shift",)),
    "unconverged:damping": Ending("done", corrections=("level_shift", "damping")),
    "hole_left": Ending("quarantined", "hole_left_site"),
    "hole_left:hole": Ending("done", corrections=("follow_hole",)),
    "nan": Ending("quarantined", "gate_rejected"),
    "crash": Ending("failed", "engine_crash"),
    "oom": Ending("failed", "out_of_memory"),
    "oom:x2": Ending("done", corrections=("more_memory",)),
    "bad_output": Ending("failed", "bad_output"),
    "truncated": Ending("failed", "bad_output"),
    "hang": Ending("failed", "walltime"),
    "kill_worker": Ending("failed", "lost"),
}


@dataclass(frozen=True, slots=True)
class Workload:
    """A campaign and its endings.

    Attributes
    ----------
    name, engine
        Of the campaign.
    document
        The campaign file.
    structures
        Text of the structure file, and its suffix.
    sites, grounds
        Numbers of calculations.
    endings
        ``FORMULA:ATOM`` or ``FORMULA:ground`` -> how it must end; all others must be done.
    """

    name: str
    engine: str
    document: Mapping[str, Any]
    structures: tuple[str, str]
    sites: int
    grounds: int
    endings: Mapping[str, Ending] = field(default_factory=dict)

    def file(self, folder: Path) -> Path:
        """Return the campaign file."""
        return folder / f"{self.name}.yaml"

    def write(self, folder: Path) -> None:
        """Write campaign and structures."""
        text, suffix = self.structures
        (folder / f"{self.name}{suffix}").write_text(text)
        self.file(folder).write_text(json.dumps(self.document, indent=1))  # JSON is YAML

    def ending(self, formula: str, place: str) -> Ending:
        """How this calculation must end."""
        return self.endings.get(f"{formula}:{place}", DONE)


def _chain(n: int) -> str:
    """Return an xyz record of n carbons and a fluorine without symmetry: n sites of a formula of its own."""
    atoms = [f"C {1.3 * i:.3f} {0.01 * i * i:.3f} 0.0" for i in range(n)]
    return "\n".join([str(n + 1), f"c{n}", *atoms, f"F {-_H - 0.1 * n:.3f} 0.1 0.3", ""])


def chains(sites: int, seconds: tuple[float, ...]) -> Workload:
    """Return fake calculations on chains of growing length; about ``sites`` of them.

    Failures that come and go with their cures are spread over the chains; two ground states fail, too, and take their
    sites along.
    """
    longest = 1
    while longest * (longest + 1) // 2 < sites:
        longest += 1
    endings: dict[str, Ending] = {}
    fail: dict[str, str] = {}
    for i, (failure, ending) in enumerate(_FAILURES.items()):
        size = longest - i
        if size <= 4:  # a short campaign has fewer ways to fail
            break
        fail[f"C{size}F:{size // 2}"] = failure
        endings[f"C{size}F:{size // 2}"] = ending
    for size, failure, cause, state in (
        (3, "nan", "gate_rejected", "quarantined"),
        (4, "crash", "engine_crash", "failed"),
    ):
        fail[f"C{size}F:ground"] = failure
        endings[f"C{size}F:ground"] = Ending(state, cause)
        endings |= {f"C{size}F:{atom}": Ending("failed", "ground_failed") for atom in range(size)}
    document = {
        "campaign": "chaos",
        "structures": {"file": "chaos.xyz"},
        "site": {"element": "C", "edge": "K"},
        "engine": {
            "name": "fake",
            "preset": "instant",
            "parameters": {"seconds_quantiles": list(seconds), "fail": fail, "ballast_bytes": 2000},
        },
        "batch": {"target_s": 15.0, "walltime_s": 8.0},
    }
    text = "".join(_chain(n) for n in range(1, longest + 1))
    return Workload("chaos", "fake", document, (text, ".xyz"), longest * (longest + 1) // 2, longest, endings)


_MOLECULES = """\
C methane
CC ethane
C=C ethene
C#C ethyne
CO methanol
C=O formaldehyde
CF fluoromethane
C#N hydrogen-cyanide
CCO ethanol
CC=O acetaldehyde
CC#N acetonitrile
CN methylamine
OC=O formic-acid
NC=O formamide
CC=C propene
CC#C propyne
COC dimethyl-ether
C1CC1 cyclopropane
C1CO1 oxirane
FC=C fluoroethene
CCF fluoroethane
CCN ethylamine
CNC dimethylamine
OCC=O glycolaldehyde
"""


def real() -> Workload:
    """Return small molecules through PySCF: real SCF runs, all of which must be done."""
    document = {
        "campaign": "chaos",
        "structures": {"file": "chaos.smi", "geometry": {"method": "gfn2-xtb"}},
        "site": {"element": "C", "edge": "K"},
        "engine": {"name": "pyscf", "preset": "accurate"},
        "batch": {"target_s": 20.0},
    }
    return Workload("chaos", "pyscf", document, (_MOLECULES, ".smi"), sites=35, grounds=24)
