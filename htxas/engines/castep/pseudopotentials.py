"""On-the-fly pseudopotentials: strings that CASTEP makes them of, and how a core hole is said in one.

``local l | core radii | cutoffs | projectors (options)``; a configuration in braces replaces the reference atom's, so
``{1s1}`` is an atom with a full hole in 1s and nothing else changed. CASTEP says in its log which strings it used, and
the readers compare.

There is no list of CASTEP's own libraries to be had without CASTEP. Those here are the ones found in genuine outputs
and in published inputs; any other element's is the user's to give (it is in the first ``.castep`` of a run without
``SPECIES_POT``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["KNOWN", "LABEL", "holds_1s", "hole_string", "refusal", "site_label"]

KNOWN: Mapping[str, str] = MappingProxyType(
    {
        "H": "1|0.6|13|15|17|10(qc=8)",
        "C": "2|1.4|10|12|13|20:21(qc=7)",
        "N": "2|1.1|14|16|18|20:21(qc=7)",
        "O": "2|1.1|15|18|20|20:21(qc=7)",
        "Na": "2|1.3|14|16|18|20U:30:21(qc=7)",
        "Si": "3|1.8|5|6|7|30:31:32",
        "Ge": "3|1.5|13|15|17|30U:31U:32:40:41(qc=6)",
    }
)
"""Element -> string."""

LABEL = "ex"
"""What the absorber is called after its element: ``C:ex``, as in the published campaign."""

_HOLE = "{1s1}"
_STRING = re.compile(
    r"[0-4](?:\|[0-9]+(?:\.[0-9]+)?){4,6}"  # local l, radii, cutoffs
    r"\|[0-9]{2}[A-Z]*(?:[+=\-0-9.]*)(?::[0-9]{2}[A-Z]*(?:[+=\-0-9.]*))*"  # projectors nl
    r"(?:\([^(){}\s]*\))?(?:\[[^\[\]{}\s]*\])?"
)


def refusal(string: str) -> str | None:
    """Return why a string is none for an atom without a hole, or None."""
    if "{" in string:
        return "a configuration in braces is the hole's, and written by htxas"
    return None if _STRING.fullmatch(string) else "is no on-the-fly string (2|1.4|10|12|13|20:21(qc=7))"


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
