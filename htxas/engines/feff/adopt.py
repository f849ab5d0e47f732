"""Run folders of FEFF that exist: the calculation from ``feff.inp``, the spectrum from ``xmu.dat``, of one run both."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.elements import SYMBOLS
from htxas.domain.result import Provenance
from htxas.domain.units import BOHR_A, HARTREE_EV
from htxas.engines.adoption import Adopted, NotAdopted, Why
from htxas.engines.feff.adopt_parameters import edge_of, parameters_of, refuse_what_has_no_name, settled
from htxas.engines.feff.adopt_structure import Found, structure_of
from htxas.engines.feff.deck import Deck, DeckError, parse_deck
from htxas.engines.feff.parameters import EXCHANGE, FeffParameters, Xanes
from htxas.engines.feff.read import FeffRun, read_run, result_of
from htxas.engines.feff.write import Layout
from htxas.engines.feff.xmu import Xmu
from htxas.errors import Cause, EngineFailure

__all__ = ["ADOPTER", "FeffAdopter"]

_HOLE_WORDS = {"none": "NO core-hole", "rpa": "screened core-hole", "fsr": "core-hole"}
_EXCHANGE_WORDS = ("H-L exch", "D-H exch", "Gd state", "DH - HL", "DH + HL", "val=s+d")
_LEAST_S02 = 0.1  # below it FEFF estimates the factor
_HEADER_ROUNDING = 1e-3
_GRID_SHARE = 0.1  # the last point may lie a step before or beyond the end of the grid
_K2_EV_A2 = HARTREE_EV * BOHR_A**2 / 2  # (hbar k)^2 / 2m = 3.81 eV A^2 k^2
_WHY = {
    Cause.SCF_UNCONVERGED: Why.UNCONVERGED,
    Cause.ENGINE_CRASH: Why.DEAD,
    Cause.BAD_INPUT: Why.DEAD,
    Cause.BAD_OUTPUT: Why.DAMAGED,
}
_TIME = re.compile(r"^### feff (start|end)s at (.+)$", re.MULTILINE)


class FeffAdopter:
    """Adopts folders with a ``feff.inp``."""

    @property
    def markers(self) -> tuple[str, ...]:
        """``feff.inp`` makes it FEFF's; ``xmu.dat`` alone is a result nobody can place."""
        return ("feff.inp", "xmu.dat")

    def adopt(self, folder: Path, root: Path) -> Adopted:
        """See :class:`htxas.engines.adoption.Adopter`."""
        text = _read(folder / "feff.inp")
        try:
            deck = parse_deck(text)
        except DeckError as error:
            raise NotAdopted(Why.UNSUPPORTED, f"feff.inp: {error}") from None
        refuse_what_has_no_name(deck)
        tags = {i: SYMBOLS[p.number] for i, p in deck.potentials.items()}
        try:
            with_dos = deck.card("LDOS") is not None and (folder / "ldos00.dat").is_file()
            run = read_run(folder, tags=tags, with_dos=with_dos)
        except EngineFailure as error:
            raise NotAdopted(_WHY.get(error.cause, Why.DAMAGED), error.message) from None
        if not run.log.done and not run.log.versions:
            raise NotAdopted(
                Why.NO_INPUT, "there is no log (feff.out or log1.dat): nobody knows whether it converged"
            )
        edge = edge_of(deck)
        parameters = parameters_of(deck, run.xmu)
        left_out = run.dos_doubt
        if left_out is not None:
            run = replace(run, dos=None, dos_doubt=None)
        if run.dos is None:  # nobody kept them, or they are wrong; the spectrum does not depend on them
            parameters = parameters.model_copy(update={"ldos": None})
        _of_one_run(deck, edge, parameters, run.xmu)
        spheres = (parameters.scf, parameters.fms)  # by radius, as in the deck
        found = structure_of(folder, root, deck, parameters)
        parameters = settled(parameters, deck, found)
        calculation = Calculation(
            Kind.SITE,
            found.structure.key,
            "feff",
            parameters.to_dict(),
            found.structure.symbols[found.atom],
            edge,
            found.atom,
        )
        provenance = _provenance(folder, text, run, found, left_out)
        layout = Layout(found.cluster, *(s.radius_A if s else None for s in spheres))
        result = result_of(
            {"": run},
            layout=layout,
            self_consistent=parameters.scf is not None,
            provenance=provenance,
            where=str(folder),
        )
        return Adopted(calculation, found.structure, found.order, found.name, found.origin, result)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        raise NotAdopted(Why.NO_INPUT, f"there is no {path.name}") from None
    except OSError as error:
        raise NotAdopted(Why.DAMAGED, f"{path.name} cannot be read: {error.strerror}") from None


def _of_one_run(deck: Deck, edge: str, parameters: FeffParameters, xmu: Xmu) -> None:
    """Refuse a spectrum whose header tells of another input: the deck was edited after the run.

    Raises
    ------
    NotAdopted
        DAMAGED, with the first contradiction.
    """
    told = xmu.told
    scf, fms = parameters.scf, parameters.fms
    wanted: list[tuple[str, Any, Any]] = [
        ("edge", {edge, edge + "1"}, xmu.shell or None),
        ("absorber", SYMBOLS[deck.potentials[0].number], SYMBOLS[xmu.absorber] if xmu.absorber else None),
        ("hole", _HOLE_WORDS[parameters.hole], told.get("hole")),
        ("exchange", _EXCHANGE_WORDS[EXCHANGE.index(parameters.exchange)], told.get("exchange")),
        ("shift_eV", parameters.shift_eV, xmu.shift_eV),
        ("broadening_eV", parameters.broadening_eV, xmu.broadening_eV),
        ("s02", parameters.s02, xmu.s02 if parameters.s02 >= _LEAST_S02 else None),
        (
            "potentials",
            {i: p.number for i, p in deck.potentials.items() if i},
            told.get("potentials") or None,
        ),
    ]
    if (end := _end_eV(parameters.xanes)) is not None:
        above = float(xmu.from_edge_eV[-1])
        wanted.append(
            ("last energy above the edge", end, above if abs(end - above) > _GRID_SHARE * end else end)
        )
    if "scf_A" in told:
        wanted.append(("scf", None if scf is None else scf.radius_A, told["scf_A"]))
    if scf is not None and told.get("scf_A") is not None:
        wanted.append(("scf center", int(scf.center == "absorber"), told.get("scf_mode")))
    if fms is not None:
        wanted.append(("fms", fms.radius_A, told.get("fms_A")))
    for name, mine, theirs in wanted:
        if name == "scf" and (mine is None) != (theirs is None):
            raise NotAdopted(
                Why.DAMAGED, f"feff.inp has scf {mine}, xmu.dat {theirs}: they are not of one run"
            )
        if theirs is not None and not _same(mine, theirs):
            mine = edge if name == "edge" else mine
            raise NotAdopted(
                Why.DAMAGED, f"feff.inp has {name} {mine}, xmu.dat {theirs}: they are not of one run"
            )


def _end_eV(xanes: Xanes) -> float | None:
    """Return where the energies of a deck end, in eV above the edge; None where the deck alone does not say."""
    ends = []
    for kind, _, end, _ in xanes.grid:
        if kind not in ("e_grid", "k_grid"):
            return None
        ends.append(end if kind == "e_grid" else _K2_EV_A2 * end**2)
    return max(ends) if ends else _K2_EV_A2 * xanes.k_max_invA**2


def _same(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, set):
        return bool(theirs in mine)
    if isinstance(mine, float):
        theirs = float(theirs)
        return bool(abs(mine - theirs) <= _HEADER_ROUNDING * max(1.0, abs(mine)))
    return bool(mine == theirs)


def _provenance(folder: Path, deck: str, run: FeffRun, found: Found, dos_left_out: str | None) -> Provenance:
    ended = datetime.fromtimestamp((folder / "xmu.dat").stat().st_mtime, UTC).isoformat()
    output = folder / "feff.out"
    extra: dict[str, Any] = {
        "adopted": True,
        "structure": dict(found.origin),
        "scf_iterations": run.log.iterations,
    }
    if dos_left_out is not None:
        extra["dos_left_out"] = dos_left_out
    if run.log.warnings:
        extra["warnings"] = dict(run.log.warnings)
    if run.log.charges:
        extra["charges"] = {str(k): v for k, v in run.log.charges.items()}
    if output.is_file():
        with output.open("rb") as stream:
            head = stream.read(200)
            stream.seek(max(0, output.stat().st_size - 200))
            text = (head + b"\n" + stream.read()).decode(errors="replace")
        extra |= {f"reported_{what}": when.strip() for what, when in _TIME.findall(text)}
    return Provenance(
        engine_version=run.xmu.version,
        libraries={"feff": run.xmu.version},
        host="",
        started=ended,
        ended=ended,
        wall_s=None,
        cpu_s=None,
        inputs_sha256={"feff.inp": hashlib.sha256(deck.encode()).hexdigest()},
        directory=str(folder),
        extra=extra,
    )


ADOPTER = FeffAdopter()
