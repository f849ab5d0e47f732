"""What FEFF says while it runs: which modules came to their end, whether the potentials converged, and its warnings.

Read are ``feff.out`` (what the modules print) or, where nobody kept that, ``log.dat``, ``log1.dat`` to ``log6.dat``,
``logscreen.dat`` and ``logdos.dat``, which hold the same lines module by module. FEFF's exit status says nothing: it is
0 with potentials that did not converge.

What the warnings mean (FEFF10's source; its authors on github.com/times-software/feff10, issues 12 and 24; user's
guide, "known and commonly encountered difficulties"):

``Found bad counts``
    An iteration moved more electrons than an atom can give. It is repeated with another core-valence separation, then
    with a smaller mixing (``scmt.f90``, ``potsub.f90``). If the iterations converge afterwards, the bad one has left
    nothing behind. Repeated too often, ``pot`` ends without potentials.
``negative density``
    In the middle of the iterations "usually harmless precision error" (``istprm.f90``). In the last one, whose density
    the spectrum is made with, it is not: the potential there is made up.
``hard test fails in fovrg``
    The radial equation had no solution: mostly atoms too far apart. Phase shifts of that potential mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from htxas.domain.calculation import Convergence

__all__ = ["LOG_FILES", "MODULES", "FeffLog", "read_log"]

LOG_FILES: tuple[str, ...] = (
    "log.dat",
    "log1.dat",
    "logdos.dat",
    "logscreen.dat",
    "log2.dat",
    "log3.dat",
    "log4.dat",
    "log5.dat",
    "log6.dat",
    "logeels.dat",
)
"""In the order the modules run."""

MODULES: Mapping[str, tuple[str, str]] = {
    "atomic": ("Calculating atomic potentials", "Done with module: atomic potentials"),
    "pot": ("Calculating SCF potentials", "Done with module: potentials"),
    "ldos": ("Calculating LDOS", "Done with module: LDOS"),
    "screen": ("Calculating screened core-hole potential", "Done with module: screened core-hole potential"),
    "xsph": ("Calculating cross-section and phases", "Done with module: cross-section and phases"),
    "fms": ("FMS calculation of full Green's function", "Done with module: FMS"),
    "mkgtr": ("MKGTR: Tracing over Green's function", "Done with module: MKGTR"),
    "path": ("Pathfinder: finding scattering paths", "Done with module: pathfinder"),
    "genfmt": ("Calculating EXAFS parameters", "Done with module: EXAFS parameters"),
    "ff2x": ("Calculating XAS spectra", "Done with module: XAS spectra"),
    "eels": ("Calculating EELS", "Done with module: EELS"),
}
"""Module -> how it says that it begins, and that it is done."""

_ALWAYS = ("atomic", "pot", "xsph", "fms", "mkgtr", "path", "genfmt", "ff2x")  # what every run goes through
_REACHED = "Convergence reached in"
_NOT_REACHED = "Convergence not reached"
_GIVEN_UP = "Bad counts found repeatedly"
_ITERATION = "SCF ITERATION NUMBER"
_NEGATIVE = "negative density"
_BAD_COUNTS = "Found bad counts"
_FOVRG = "hard test fails in fovrg"
_LOST_CHARGE = "Could not integrate enough charge"
_NO_ATOMS = "No atoms or overlap cards for unique pot"
_VERSION = re.compile(r"FEFF version FEFF (\S+)")
_FERMI = re.compile(r"New Fermi level:\s+mu=\s*(-?[\d.]+) eV")
_REACHED_IN = re.compile(r"Convergence reached in\s+(\d+)")
_CHARGE = re.compile(r"^\s+(\d+)\s+(-?\d+\.\d+)\s*$", re.MULTILINE)
_SCF_SPHERE = re.compile(r"FMS for a cluster of\s+(\d+) atoms around atom type\s+(\d+)")
_FMS_SPHERE = re.compile(r"^FMS for a cluster of\s+(\d+) atoms\s*$", re.MULTILINE)
_COMPLAINT = re.compile(r"E[Rr][Rr]O|[Ee]rror|Fatal|STOP|forrtl|SIGSEGV|Cannot calculate")
_ERROR = re.compile(
    r"^.*(?:\bERROR\b|\bError\b|Fatal|STOP|forrtl|SIGSEGV|Cannot calculate potentials).*$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class FeffLog:
    """What a log tells.

    Attributes
    ----------
    versions
        ``9.9.1``, ``10.0.0``: those whose modules wrote it; empty if it does not say.
    done, begun
        Modules that ended, and those that only began.
    scf
        Of the potentials; UNKNOWN where the log says neither.
    iterations
        Of the last self-consistency loop; None without one.
    fermi_eV
        Last Fermi level, eV, on FEFF's own scale; None without self-consistency.
    charges
        Charge transfer by unique potential, as printed at the end of self-consistency.
    scf_atoms
        Atoms in the last sphere of self-consistency by the unique potential it is drawn around; none where the sphere
        had one atom.
    fms_atoms
        Atoms in that of full multiple scattering, or None.
    warnings
        Counts by name: ``bad_counts``, ``negative_density``.
    doubts
        What makes the numbers doubtful, in words; empty for a sound run.
    errors
        Lines in which FEFF, or the system under it, complains.
    """

    versions: tuple[str, ...]
    done: tuple[str, ...]
    begun: tuple[str, ...]
    scf: Convergence
    iterations: int | None
    fermi_eV: float | None
    charges: Mapping[int, float] = field(default_factory=dict)
    scf_atoms: Mapping[int, int] = field(default_factory=dict)
    fms_atoms: int | None = None
    warnings: Mapping[str, int] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def stuck_in(self) -> str | None:
        """The first module that began and did not end."""
        return self.begun[0] if self.begun else None

    @property
    def stood_in(self) -> str:
        """The module a run that came to no end stood in: what it had printed last may have been lost with it."""
        if self.begun or not self.done:
            return self.begun[0] if self.begun else "rdinp"
        rest = _ALWAYS[_ALWAYS.index(self.done[-1]) + 1 :] if self.done[-1] in _ALWAYS else ()
        return rest[0] if rest else self.done[-1]


def read_log(text: str) -> FeffLog:
    """Return what the log of a run, or of the modules that ran, tells."""
    done, begun = [], []
    for module, (start, end) in MODULES.items():
        if end in text:
            done.append(module)
        elif start in text:
            begun.append(module)
    scf, iterations = _convergence(text)
    warnings = {
        name: count
        for name, words in (("bad_counts", _BAD_COUNTS), ("negative_density", _NEGATIVE))
        if (count := text.count(words))
    }
    fermi = None
    last_fermi = text.rfind("New Fermi level")
    if last_fermi >= 0 and (match := _FERMI.match(text, last_fermi)):
        fermi = float(match[1])
    return FeffLog(
        versions=tuple(dict.fromkeys(_VERSION.findall(text))),
        done=tuple(done),
        begun=tuple(begun),
        scf=scf,
        iterations=iterations,
        fermi_eV=fermi,
        charges=_charges(text),
        scf_atoms={int(m[2]): int(m[1]) for m in _SCF_SPHERE.finditer(text, 0, _end_of_pot(text))},
        fms_atoms=int(sphere[1]) if (sphere := _FMS_SPHERE.search(text)) else None,
        warnings=warnings,
        doubts=tuple(_doubts(text)),
        errors=tuple(m.group().strip() for m in _ERROR.finditer(text))[:5] if _COMPLAINT.search(text) else (),
    )


def _end_of_pot(text: str) -> int:
    end = text.find(MODULES["pot"][1])
    return end if end >= 0 else len(text)


def _convergence(text: str) -> tuple[Convergence, int | None]:
    reached, not_reached = text.rfind(_REACHED), text.rfind(_NOT_REACHED)
    if _GIVEN_UP in text or not_reached > reached:
        return Convergence.UNCONVERGED, None
    if reached >= 0:
        match = _REACHED_IN.match(text, reached)
        return Convergence.CONVERGED, int(match[1]) if match else None
    return Convergence.UNKNOWN, None


def _charges(text: str) -> dict[int, float]:
    start = text.rfind("Charge transfer:  type  charge")
    if start < 0:
        return {}
    end = text.find("Convergence", start)
    return {int(m[1]): float(m[2]) for m in _CHARGE.finditer(text, start, end if end > 0 else len(text))}


def _doubts(text: str) -> list[str]:
    doubts = []
    last = text.rfind(_ITERATION)
    if last >= 0:
        if count := text.count(_NEGATIVE, last):
            doubts.append(f"the density is negative in the last iteration ({count} lines)")
        if text.find(_BAD_COUNTS, last) >= 0:
            doubts.append("the last iteration moved more electrons than there are (bad counts)")
    if _FOVRG in text:
        doubts.append("the radial equation has no solution (hard test fails in fovrg)")
    if _LOST_CHARGE in text[max(last, 0) :]:
        doubts.append("an atom does not hold its charge (FRNRM)")
    if _NO_ATOMS in text:
        doubts.append("a unique potential has no atoms")
    return doubts
