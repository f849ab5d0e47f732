"""From a folder FEFF has run in to a result, or to the one cause why there is none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from htxas.domain.calculation import Convergence
from htxas.domain.dos import LocalDos
from htxas.domain.result import CurveResult, Provenance
from htxas.domain.spectrum import Curve
from htxas.engines.feff.eels import with_eels
from htxas.engines.feff.ldos import combine_ldos
from htxas.engines.feff.log import LOG_FILES, FeffLog, read_log
from htxas.engines.feff.write import MOVED_A, Layout
from htxas.engines.feff.xmu import Xmu, XmuError, read_xmu
from htxas.errors import Cause, EngineFailure

__all__ = ["FeffRun", "log_text", "read_run", "result_of", "sphere_doubts", "unfinished"]

OUTPUT = "feff.out"
_TAIL_LINES = 12
_LINE_BYTES = 400
_NORMALISED_AT_eV = 50.0
_SAME_FERMI_eV = 0.01
_EDGE_OF_SPHERE_A = 2e-3  # an atom so close to it may fall to either side: FEFF reckons in single precision
_BEGUN = re.compile(r"Starting FEFF\d* module (\w+)\.")


@dataclass(frozen=True, slots=True, eq=False)
class FeffRun:
    """What one run of FEFF left.

    Attributes
    ----------
    log
        Its log.
    xmu
        Its spectrum, of absorption or of energy loss.
    normalisation
        What 1 stands for, in words.
    dos
        Densities of states, if there are any.
    dos_doubt
        What is wrong with them.
    """

    log: FeffLog
    xmu: Xmu
    normalisation: str
    dos: LocalDos | None
    dos_doubt: str | None = None


def log_text(folder: Path) -> str:
    """Return what FEFF printed, or what its modules noted where nobody kept that."""
    output = folder / OUTPUT
    if output.is_file():
        return output.read_text(errors="replace")
    return "\n".join((folder / n).read_text(errors="replace") for n in LOG_FILES if (folder / n).is_file())


def read_run(folder: Path, *, tags: Mapping[int, str], with_dos: bool, elnes: bool = False) -> FeffRun:
    """Return what one run left.

    Parameters
    ----------
    folder
        Where it ran.
    tags
        Element of each unique potential, for the densities of states.
    with_dos
        Whether there must be some; what lies there without having been asked for is of another run.
    elnes
        Whether the spectrum is one of energy loss.

    Raises
    ------
    EngineFailure
        SCF_UNCONVERGED, ENGINE_CRASH (killed in a module), BAD_INPUT (FEFF refused it) or BAD_OUTPUT, with the last
        lines of the log.
    """
    text = log_text(folder)
    log = read_log(text)
    name = "xmu10.dat" if elnes else "xmu.dat"
    failure = _failure(folder, text, log, [name, "eels.dat"] if elnes else [name])
    if failure is not None:
        raise failure
    try:
        xmu, normalisation = _spectrum(folder, name, elnes=elnes)
        dos, dos_doubt = _dos(folder, tags, xmu) if with_dos else (None, None)
    except XmuError as error:
        raise _bad(Cause.BAD_OUTPUT, str(error), folder, text) from None
    if with_dos and dos is None:
        raise _bad(
            Cause.BAD_OUTPUT,
            "there is no ldos00.dat, though densities of states were asked for",
            folder,
            text,
        )
    if any(version != xmu.version for version in log.versions):
        told = " and ".join(sorted({*log.versions, xmu.version}))
        raise _bad(Cause.BAD_OUTPUT, f"log and spectrum are of different versions: FEFF {told}", folder, text)
    return FeffRun(log, xmu, normalisation, dos, dos_doubt)


def _dos(folder: Path, tags: Mapping[int, str], xmu: Xmu) -> tuple[LocalDos | None, str | None]:
    texts = {p.name: p.read_text(errors="replace") for p in sorted(folder.glob("ldos[0-9][0-9].dat"))}
    found = combine_ldos(texts, tags)
    if found is None:
        return None, None
    dos, fermi_eV, doubt = found
    if abs(fermi_eV - xmu.fermi_eV) > _SAME_FERMI_eV:
        raise XmuError(
            f"ldos00.dat: its Fermi level {fermi_eV:.3f} eV is not the spectrum's, {xmu.fermi_eV:.3f} eV"
        )
    return dos, doubt


def _spectrum(folder: Path, name: str, *, elnes: bool) -> tuple[Xmu, str]:
    try:
        xmu = read_xmu((folder / name).read_text(errors="replace"))
    except XmuError as error:
        raise XmuError(f"{name}: {error}") from None
    if elnes:
        return with_eels(xmu, (folder / "eels.dat").read_text(errors="replace"))
    reach = float(xmu.energies_eV[-1]) - xmu.edge_eV
    far = "" if reach >= _NORMALISED_AT_eV else f", extrapolated by FEFF from {reach:.0f} eV"
    return xmu, f"atomic cross-section 50 eV above the edge{far} (xsedge+50 = {xmu.normalisation:.4e})"


def _failure(folder: Path, text: str, log: FeffLog, files: Sequence[str]) -> EngineFailure | None:
    """Return why there can be no spectrum, or None."""
    if log.scf is Convergence.UNCONVERGED:
        message = "the potentials did not converge"
        if "Bad counts found repeatedly" in text:
            message += ": every iteration moved more electrons than there are (bad counts)"
        return _bad(Cause.SCF_UNCONVERGED, message, folder, text)
    crashed, complaint = _complaint(folder)
    if crashed == "rdinp" or (complaint and not log.done):
        return _bad(Cause.BAD_INPUT, f"FEFF refuses the input: {_refusal(text) or complaint}", folder, text)
    if crashed is not None:
        return _bad(Cause.ENGINE_CRASH, f"FEFF's module {crashed} crashed", folder, text)
    if log.stuck_in is not None:
        return _bad(Cause.ENGINE_CRASH, f"FEFF ended in {log.stuck_in}, before its end", folder, text)
    if complaint:
        return _bad(Cause.ENGINE_CRASH, f"FEFF complains: {complaint}", folder, text)
    lacking = next((name for name in files if not (folder / name).is_file()), None)
    if lacking is not None:
        cause = Cause.ENGINE_CRASH if log.done or not text.strip() else Cause.BAD_INPUT
        return _bad(cause, f"FEFF ended in {log.stood_in}: there is no {lacking}", folder, text)
    if "ff2x" not in log.done and text.strip():
        return _bad(Cause.ENGINE_CRASH, "FEFF never said that its spectrum is done", folder, text)
    return None


def unfinished(folder: Path) -> EngineFailure:
    """Return the failure of a run whose process is gone: where FEFF stood."""
    text = log_text(folder)
    where = read_log(text).stood_in
    return _bad(Cause.ENGINE_CRASH, f"FEFF's process ended in {where}, without a word", folder, text)


def _complaint(folder: Path) -> tuple[str | None, str]:
    """Return the module that crashed, and what is complained of, by ``.feff.error``.

    Each module writes its name there when it begins, and wipes it when it ends.
    """
    path = folder / ".feff.error"
    text = " ".join(path.read_text(errors="replace").split()) if path.is_file() else ""
    begun = _BEGUN.search(text)
    return (begun[1] if begun else None), ("" if begun else text[:_LINE_BYTES])


def _refusal(text: str) -> str:
    """Return what ``rdinp`` says of an input it does not take."""
    lines = [line.strip() for line in text.splitlines()]
    said = [line for line in lines if line and not line.startswith(("RDINP", "Launching FEFF", "STOP"))]
    return " ".join(said[-3:])[:_LINE_BYTES]


def _bad(cause: Cause, message: str, folder: Path, text: str) -> EngineFailure:
    tail = [line[:_LINE_BYTES] for line in text.splitlines() if line.strip()][-_TAIL_LINES:]
    return EngineFailure(cause, message, evidence={"log_tail": tail}, where=str(folder))


def sphere_doubts(log: FeffLog, layout: Layout) -> tuple[str, ...]:
    """Return in which spheres FEFF had other atoms than the input asks for: it goes on without a word.

    For the potentials FEFF moves hydrogens outwards, so that with them self-consistency may have other atoms; only that
    a whole molecule was whole is looked at then.
    """
    doubts = []
    for what, radius_A, found in (
        ("self-consistency", layout.scf_A, log.scf_atoms.get(0, 1)),
        ("full multiple scattering", layout.fms_A, log.fms_atoms or 1),
    ):
        if radius_A is None:
            continue
        inside = layout.cluster.within(radius_A)
        with_hydrogen = bool((layout.cluster.numbers == 1).any())
        whole = radius_A >= layout.cluster.distances_A[-1] + MOVED_A / 2
        if what == "self-consistency" and with_hydrogen and not whole:
            continue
        least = len(layout.cluster.within(radius_A - _EDGE_OF_SPHERE_A))
        most = len(layout.cluster.within(radius_A + _EDGE_OF_SPHERE_A))
        if not least <= found <= most:
            doubts.append(
                f"the sphere of {what} had {found} atoms, not the {len(inside)} within {radius_A:g} A"
            )
    return tuple(doubts)


def result_of(
    runs: Mapping[str, FeffRun],
    *,
    layout: Layout,
    self_consistent: bool,
    provenance: Provenance,
    where: str,
) -> CurveResult:
    """Return the result of an isotropic run (``{"": run}``) or of three polarised ones (``x``, ``y``, ``z``).

    Raises
    ------
    EngineFailure
        BAD_OUTPUT: the three do not belong together.
    """
    first, *others = runs.values()
    for other in others:
        if not np.array_equal(first.xmu.energies_eV, other.xmu.energies_eV):
            raise EngineFailure(
                Cause.BAD_OUTPUT, "the three polarisations have different energies", where=where
            )
    columns = [run.xmu.mu for run in runs.values()]
    intensity = np.column_stack(columns if len(columns) == 3 else columns * 3)
    x = first.xmu
    return CurveResult(
        # The potentials are made once, for all polarisations; without self-consistency nothing has to converge.
        convergence=first.log.scf if self_consistent else Convergence.CONVERGED,
        curve=Curve(x.energies_eV, intensity),
        background=np.mean([run.xmu.mu0 for run in runs.values()], axis=0),
        edge_eV=x.edge_eV,
        fermi_eV=x.fermi_eV,
        lifetime_eV=x.lifetime_eV,
        normalisation=first.normalisation,
        scale=_scale(x),
        doubts=tuple(
            dict.fromkeys([*_doubts(runs, layout), *(d for r in runs.values() for d in r.log.doubts)])
        ),
        dos=first.dos,
        provenance=provenance,
    )


def _doubts(runs: Mapping[str, FeffRun], layout: Layout) -> list[str]:
    first, *others = runs.values()
    doubts = list(sphere_doubts(first.log, layout))
    if first.dos_doubt is not None:
        doubts.append(first.dos_doubt)
    without_potentials = Layout(layout.cluster, None, layout.fms_A)  # these are the first one's
    return doubts + [d for run in others for d in sphere_doubts(run.log, without_potentials)]


def _scale(x: Xmu) -> str:
    shift = f", Fermi level moved by {x.shift_eV:g} eV as the input says" if x.shift_eV else ""
    return f"FEFF {x.version}: free-atom Dirac-Fock edge and the Fermi level of its potentials{shift}; not aligned"
