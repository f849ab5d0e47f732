"""On-the-fly pseudopotentials: strings that CASTEP makes them of, and how a core hole is said in one.

``local l | core radii | cutoffs | projectors (options)``; a configuration in braces replaces the reference atom's, so
``{1s1}`` is an atom with a full hole in 1s and nothing else changed. CASTEP says in its log which strings it used, and
the readers compare.

There is no list of CASTEP's own libraries to be had without CASTEP. The strings here were found in genuine outputs
(H, O, Na, Si, Ge) and in published inputs (C, N). An element that is not the absorber may also have the name of one of
CASTEP's libraries (``C9``): its string is then the one in the log, and must be the same with and without the hole.

An entry never changes under its set's name, and a set may gain elements: an identity says the name of the set, the
user's own strings, and the absorber's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["LABEL", "SETS", "holds_1s", "hole_string", "is_library", "refusal", "site_label"]

SETS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "otfg-1": MappingProxyType(
            {
                "H": "1|0.6|13|15|17|10(qc=8)",
                "C": "2|1.4|10|12|13|20:21(qc=7)",
                "N": "2|1.1|14|16|18|20:21(qc=7)",
                "O": "2|1.1|15|18|20|20:21(qc=7)",
                "F": "C9",
                "Na": "2|1.3|14|16|18|20U:30:21(qc=7)",
                "Si": "3|1.8|5|6|7|30:31:32",
                "Ge": "3|1.5|13|15|17|30U:31U:32:40:41(qc=6)",
            }
        )
    }
)
"""By set and element: the string, or the library it is in."""

LABEL = "ex"
"""What the absorber is called after its element: ``C:ex``, as in the published campaign."""

_HOLE = "{1s1}"
_STRING = re.compile(
    r"[0-4](?:\|[0-9]+(?:\.[0-9]+)?){4,6}"  # local l, radii, cutoffs
    r"\|[0-9]{2}[A-Z]*(?:[+=\-0-9.]*)(?::[0-9]{2}[A-Z]*(?:[+=\-0-9.]*))*"  # projectors nl
    r"(?:\([^(){}\s]*\))?(?:\[[^\[\]{}\s]*\])?"
)
_LIBRARY = re.compile(r"C\d{1,2}|MS|HARD|QC5|NCP\d{1,2}")


def is_library(string: str) -> bool:
    """Return whether this names one of CASTEP's libraries."""
    return _LIBRARY.fullmatch(string) is not None


def refusal(string: str) -> str | None:
    """Return why a string is none for an atom without a hole, or None."""
    if "{" in string:
        return "a configuration in braces is the hole's, and written by htxas"
    if _STRING.fullmatch(string) or is_library(string):
        return None
    return "is no on-the-fly string (2|1.4|10|12|13|20:21(qc=7)) and no library of CASTEP's (C9)"


def holds_1s(string: str) -> bool:
    """Return whether 1s is a valence state of a pseudopotential: then there is no core level to excite."""
    projectors = string.split("(")[0].split("[")[0].rsplit("|", 1)[-1]
    return any(p.startswith("10") for p in projectors.split(":"))


def hole_string(string: str) -> str:
    """Return the string with a full hole in 1s."""
    return string + _HOLE


def site_label(element: str) -> str:
    """Return the name of the absorber's species."""
    return f"{element}:{LABEL}"
