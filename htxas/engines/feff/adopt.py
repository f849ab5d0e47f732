"""Run folders of FEFF that exist: structure, site and parameters from ``feff.inp``, the spectrum from ``xmu.dat``.

The structure is, in this order, a POSCAR beside or above the folder, the crystal in the header that pymatgen writes, or
the cluster itself. It is only believed if cutting it as htxas would gives the very atoms of the deck.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from htxas.domain.calculation import Calculation, Kind
from htxas.domain.elements import SYMBOLS
from htxas.domain.result import Provenance
from htxas.domain.structure import Structure
from htxas.domain.units import BOHR_A, HARTREE_EV
from htxas.engines.adoption import Adopted, NotAdopted, Why
from htxas.engines.feff.cluster import Cluster, cut
from htxas.engines.feff.deck import Card, Deck, DeckError, parse_deck
from htxas.engines.feff.parameters import EDGES, EXCHANGE, MANAGED, FeffParameters, Sphere, Xanes
from htxas.engines.feff.read import FeffRun, read_run, result_of
from htxas.engines.feff.write import MOVED_A, Layout, lay_out, reach_A
from htxas.engines.feff.xmu import Xmu
from htxas.errors import Cause, EngineFailure, StructureError

__all__ = ["ADOPTER", "FeffAdopter", "parameters_of"]

_TAKEN = frozenset("TITL END CONT PRIN EDGE HOLE S02 CORE NOHO EXCH SCF FMS XANE EGRI LDOS RPAT REAL".split())
"""Cards with a parameter of their own, or none at all."""
_ELSEWHERE = frozenset("EXTP EXPO MPSE PLAS CONF OVER SIG3".split())  # what they say is in other files
_BY_POTENTIAL = frozenset("FOLP ION NUMD".split())
_HOLE_WORDS = {"none": "NO core-hole", "rpa": "screened core-hole", "fsr": "core-hole"}
_EXCHANGE_WORDS = ("H-L exch", "D-H exch", "Gd state", "DH - HL", "DH + HL", "val=s+d")
_LEAST_S02 = 0.1  # below it FEFF estimates the factor
_HEADER_ROUNDING = 1e-3
_GRID_SHARE = 0.1  # the last point may lie a step before or beyond the end of the grid
_K2_EV_A2 = HARTREE_EV * BOHR_A**2 / 2  # (hbar k)^2 / 2m = 3.81 eV A^2 k^2
_LONGEST_NAME = 200
_THICK_A = 1.5  # a shell so thick is empty in no crystal
_SAME_A = 2e-3  # between a deck's rounded positions and the structure's
_INDEX = re.compile(r"^0*(\d+)_[A-Z][a-z]?$")
_HEADER_ATOM = re.compile(r"^\*\s+\d+\s+([A-Z][a-z]?)\S*\s+(-?[\d.]+)\s+(-?[\d.]+)\s+(-?[\d.]+)\s*$")
_WHY = {
    Cause.SCF_UNCONVERGED: Why.UNCONVERGED,
    Cause.ENGINE_CRASH: Why.DEAD,
    Cause.BAD_INPUT: Why.DEAD,
    Cause.BAD_OUTPUT: Why.DAMAGED,
}
_TIME = re.compile(r"^### feff (start|end)s at (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """A structure that explains a deck, and the canonical atom that absorbs."""

    structure: Structure
    order: tuple[int, ...]
    atom: int
    radius_A: float | None
    cluster: Cluster
    name: str
    origin: Mapping[str, Any]


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
        _refuse_what_has_no_name(deck)
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
        edge = _edge(deck)
        parameters = parameters_of(deck, run.xmu)
        left_out = run.dos_doubt
        if left_out is not None:
            run = replace(run, dos=None, dos_doubt=None)
        if run.dos is None:  # nobody kept them, or they are wrong; the spectrum does not depend on them
            parameters = parameters.model_copy(update={"ldos": None})
        _of_one_run(deck, edge, parameters, run.xmu)
        spheres = (parameters.scf, parameters.fms)  # by radius, as in the deck
        found = _structure(folder, root, deck, parameters)
        parameters = _settled(parameters, deck, found)
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


def _edge(deck: Deck) -> str:
    card, hole = deck.card("EDGE"), deck.numbers("HOLE")
    if card is not None and card.words:
        edge = card.words[0].upper()
    elif hole:
        edge = EDGES[int(hole[0]) - 1] if 1 <= hole[0] <= len(EDGES) else str(hole[0])
    else:
        edge = "K"
    if edge not in EDGES:
        raise NotAdopted(Why.UNSUPPORTED, f"edge {edge}")
    return edge


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


def parameters_of(deck: Deck, xmu: Xmu) -> FeffParameters:
    """Return the parameters a deck was run with, its radii as they are.

    Raises
    ------
    NotAdopted
        Something that cannot be said in htxas's own terms.
    """
    _refuse_what_has_no_name(deck)
    scf, fms = deck.numbers("SCF"), deck.numbers("FMS")
    values = {
        "version": int(xmu.version.split(".")[0]),
        "hole": _hole(deck),
        "s02": _s02(deck),
        **_exchange(deck),
        "scf": _sphere(scf),
        "fms": _sphere(fms),
        "scf_extra": scf[5:],
        "fms_extra": fms[2:],
        "xanes": _xanes(deck),
        "ldos": _ldos(deck),
        "rpath_A": max((*deck.numbers("RPAT"), -1.0)[0], -1.0) or -1.0,
        "cards": _other_cards(deck),
    }
    try:
        return FeffParameters.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(p) for p in first["loc"])
        raise NotAdopted(Why.UNSUPPORTED, f"{name}: {first['msg'].removeprefix('Value error, ')}") from None


def _refuse_what_has_no_name(deck: Deck) -> None:
    """Refuse all that changes the answer and has no place in the parameters."""
    if deck.card("XANE") is None:
        raise NotAdopted(Why.UNSUPPORTED, "it is no XANES")
    for card in deck.cards:
        if card.name in _ELSEWHERE or card.name in MANAGED - _TAKEN:
            raise NotAdopted(Why.UNSUPPORTED, f"it has a card {card.name}, which htxas does not say")
    if 0 in deck.numbers("CONT"):
        raise NotAdopted(Why.UNSUPPORTED, "a part of it is of another run (CONTROL 0)")
    debye = deck.numbers("DEBY")
    if len(debye) > 2 and debye[2] > 1:
        raise NotAdopted(Why.UNSUPPORTED, "its Debye-Waller factors are in another file")
    others = [p.number for i, p in deck.potentials.items() if i > 0]
    if len(set(others)) != len(others):
        raise NotAdopted(Why.UNSUPPORTED, "an element has several potentials")
    if any(p.lmax_scf >= 0 or p.lmax_fms >= 0 for p in deck.potentials.values()):
        raise NotAdopted(Why.UNSUPPORTED, "a potential has angular momenta of its own")
    if any(p.spin for p in deck.potentials.values()):
        raise NotAdopted(Why.UNSUPPORTED, "a potential has a spin")
    counts = [p.stoichiometry for p in deck.potentials.values()]
    if None in counts and any(c is not None for c in counts):
        raise NotAdopted(Why.UNSUPPORTED, "some potentials have a stoichiometry, and some have none")


def _is_usual_screening(card: Card, deck: Deck) -> bool:
    """Whether a card says of the screening what htxas would: of molecules, the sphere of full multiple scattering."""
    fms = deck.numbers("FMS")
    if card.name != "SCRE" or card.words[:1] != ("rfms",) or len(fms) < 2 or fms[1] <= 0:
        return False
    try:
        return abs(float(card.words[1]) - fms[0]) < _HEADER_ROUNDING
    except (IndexError, ValueError):
        return False


def _other_cards(deck: Deck) -> tuple[str, ...]:
    """Return further cards as lines; those that name a potential by htxas's own numbers, the last of each counts."""
    numbers = sorted({p.number for i, p in deck.potentials.items() if i > 0})
    ours = {str(i): str(numbers.index(p.number) + 1) if i else "0" for i, p in deck.potentials.items()}
    lines: dict[tuple[str, ...], str] = {}
    for card in deck.cards:
        if card.name in MANAGED or _is_usual_screening(card, deck):
            continue
        words = card.words
        if card.name in _BY_POTENTIAL:
            if not words or words[0] not in ours:
                raise NotAdopted(Why.UNSUPPORTED, f"card {card.name} names no potential of the deck")
            words = (ours[words[0]], *words[1:])
        about = (card.name, words[0]) if card.name in _BY_POTENTIAL | {"SCRE"} and words else (card.name,)
        lines[about] = " ".join((card.name, *words))
    return tuple(sorted(lines.values()))


def _hole(deck: Deck) -> str:
    nohole = deck.card("NOHO")
    if nohole is not None:
        kind = (*nohole.numbers(), 0.0)[0]
        if kind not in (0, 2):
            raise NotAdopted(Why.UNSUPPORTED, f"NOHOLE {kind:g}")
        return "rpa" if kind == 2 else "none"
    card = deck.card("CORE")
    return {"RPA": "rpa", "NONE": "none"}.get(card.words[0].upper() if card and card.words else "", "fsr")


def _s02(deck: Deck) -> float:
    """Return the amplitude factor as FEFF10 reads it: HOLE's if S02 says nothing or 1; EDGE's word is not read."""
    s02, hole = (*deck.numbers("S02"), 1.0)[0], (*deck.numbers("HOLE")[1:], 1.0)[0]
    return hole if s02 == 1.0 else s02


def _exchange(deck: Deck) -> dict[str, Any]:
    numbers = deck.numbers("EXCH")
    model, shift, width = (*numbers[:3], *(0.0, 0.0, 0.0)[len(numbers[:3]) :])
    background = numbers[3] if len(numbers) > 3 else 2
    names = []
    for number in (model, background):
        index = int(number)
        if not 0 <= index < len(EXCHANGE) or not EXCHANGE[index]:
            raise NotAdopted(Why.UNSUPPORTED, f"EXCHANGE {number:g}")
        names.append(EXCHANGE[index])
    return {
        "exchange": names[0],
        "background": names[1],
        "shift_eV": float(shift),
        "broadening_eV": float(width),
    }


def _sphere(numbers: tuple[float, ...]) -> dict[str, Any] | None:
    if not numbers:
        return None
    center = "absorber" if len(numbers) > 1 and numbers[1] > 0 else "each"
    return {"radius_A": float(numbers[0]), "center": center}


def _xanes(deck: Deck) -> dict[str, Any]:
    numbers = deck.numbers("XANE")
    values = dict(zip(("k_max_invA", "k_step_invA", "e_step_eV"), numbers, strict=False))
    defaults = {"k_max_invA": 20.0, "k_step_invA": 0.07, "e_step_eV": 0.0}  # of rdinp; the guide says 8
    grid = deck.card("EGRI")
    lines = () if grid is None else grid.below
    if any(len(line) != 4 for line in lines):
        raise NotAdopted(Why.UNSUPPORTED, "EGRID of single energies")
    try:
        rows = [
            (n.lower(), a.lower() if a[:1].isalpha() else float(a), float(b), float(c))
            for n, a, b, c in lines
        ]
    except ValueError:
        raise NotAdopted(Why.UNSUPPORTED, "EGRID that is no grid") from None
    return {**defaults, **values, "grid": tuple(rows)}


def _ldos(deck: Deck) -> dict[str, Any] | None:
    numbers = deck.numbers("LDOS")
    if len(numbers) < 3:
        return None
    if len(numbers) > 4 and numbers[4]:
        raise NotAdopted(Why.UNSUPPORTED, f"LDOS of type {numbers[4]:g}")
    points = {"points": int(numbers[3])} if len(numbers) > 3 else {}
    return {"from_eV": numbers[0], "to_eV": numbers[1], "broadening_eV": numbers[2], **points}


def _settled(parameters: FeffParameters, deck: Deck, found: _Found) -> FeffParameters:
    """Return the parameters as htxas would have said them: what depends on the structure is known now."""
    structure, cluster = found.structure, found.cluster
    values: dict[str, Any] = {"cluster_radius_A": found.radius_A}
    if not structure.is_periodic:
        values |= {
            "scf": _whole(parameters.scf, cluster, MOVED_A / 2 if (cluster.numbers == 1).any() else 0.0),
            "fms": _whole(parameters.fms, cluster, 0.0),
        }
    elif _is_usual(parameters, found):
        values["cluster_radius_A"] = None
    given = {p.number: p.stoichiometry for i, p in deck.potentials.items() if i > 0}
    ours = {p.number: p.stoichiometry for p in cluster.potentials(structure) if p.index > 0}
    absorber = deck.potentials[0].stoichiometry
    if any(x is None for x in (absorber, *given.values())):
        values["stoichiometry"] = "deck"
    elif not _same_stoichiometry(absorber, given, ours, structure.is_periodic):
        values["stoichiometry"] = (float(absorber or 0.0), *(float(given[n] or 0.0) for n in ours))
    return parameters.model_copy(update=values)


def _whole(sphere: Sphere | None, cluster: Cluster, room_A: float) -> Sphere | None:
    """Return a sphere that has all atoms of a molecule in it, with so much room, as just that."""
    if sphere is None or sphere.radius_A is None:
        return sphere
    farthest = float(cluster.distances_A[-1])
    if sphere.center == "each":
        delta = cluster.positions_A[:, None] - cluster.positions_A[None]
        farthest = float(np.sqrt((delta**2).sum(axis=-1)).max())
    return Sphere(whole=True, center=sphere.center) if farthest + room_A <= sphere.radius_A else sphere


def _is_usual(parameters: FeffParameters, found: _Found) -> bool:
    """Whether the deck has just the atoms that htxas puts there by itself."""
    scf, fms = (s.radius_A if s is not None else None for s in (parameters.scf, parameters.fms))
    each = parameters.scf is not None and parameters.scf.center == "each"
    assert found.radius_A is not None
    if reach_A(found.cluster, scf, fms, each=each) > found.radius_A + _THICK_A:
        return False
    try:
        usual = lay_out(found.structure, found.atom, parameters).cluster
    except ValueError:
        return False
    return len(usual) == len(found.cluster)  # both are spheres around the same atom


def _same_stoichiometry(
    absorber: float | None,
    given: Mapping[int, float | None],
    ours: Mapping[int, float | None],
    periodic: bool,
) -> bool:
    """Whether FEFF takes two stoichiometries for the same: of an absorber at 0.01 or less it makes 0.01."""
    assert absorber is not None
    if given.keys() != ours.keys():
        return False
    ratios = [float(given[n] or 0.0) / float(ours[n] or 1.0) for n in ours]
    if periodic:  # FEFF divides by the absorber's: the others count by themselves
        return absorber <= 0.01 and all(abs(r - 1.0) < 1e-6 for r in ratios)
    return all(abs(r / absorber - 1.0) < 1e-6 for r in ratios)


def _structure(folder: Path, root: Path, deck: Deck, parameters: FeffParameters) -> _Found:
    numbers = np.array([deck.potentials[k].number for k in deck.atom_potentials.tolist()])
    wanted = _sorted(deck.positions_A - deck.positions_A[deck.atom_potentials == 0], numbers)
    for look in (partial(_poscar, folder, root), partial(_header, folder, root, deck)):
        candidate = look()
        if candidate is None:
            continue
        structure, order, name, origin = candidate
        found = _absorber(folder, structure, order, wanted, parameters, exact=origin["structure"] == "POSCAR")
        if found is not None:
            atom, radius, cluster = found
            return _Found(structure, order, atom, radius, cluster, name, origin)
    return _as_it_is(folder, root, wanted)


def _sorted(delta: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any]) -> Cluster:
    distance = np.sqrt((delta**2).sum(axis=1))
    order = np.argsort(distance, kind="stable")
    return Cluster(delta[order], numbers[order], distance[order])


def _poscar(folder: Path, root: Path) -> tuple[Structure, tuple[int, ...], str, Mapping[str, Any]] | None:
    here = folder
    while True:
        for name in ("POSCAR", "CONTCAR"):
            path = here / name
            if path.is_file():
                found = _read_poscar(path, path.stat().st_mtime_ns)
                return None if found is None else (*found[:2], _name(here, root), found[2])
        if here in (root, here.parent):
            return None
        here = here.parent


def _name(folder: Path, root: Path) -> str:
    """Return a folder's path below what the user named, as a structure's name: two of them never share it."""
    parts = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
    return ".".join(parts)[-_LONGEST_NAME:] or folder.name


@lru_cache(maxsize=64)
def _read_poscar(path: Path, _mtime_ns: int) -> tuple[Structure, tuple[int, ...], Mapping[str, Any]] | None:
    from ase.io import read

    try:
        atoms: Any = read(path, format="vasp")
        structure, order = Structure.from_atoms(
            atoms.get_chemical_symbols(), atoms.get_positions(), atoms.get_cell()[:], where=str(path)
        )
    except (StructureError, ValueError, LookupError, TypeError, RuntimeError, OSError):  # as many as ASE has
        return None
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    origin = {"structure": "POSCAR", "file": str(path), "file_sha256": checksum}
    return structure, order, origin


def _header(
    folder: Path, root: Path, deck: Deck
) -> tuple[Structure, tuple[int, ...], str, Mapping[str, Any]] | None:
    """Return the crystal of pymatgen's header: cell edges and angles, fractional coordinates to six decimals."""
    facts = dict(t.split(":", 1) for t in deck.titles if ":" in t)
    if "abc" not in facts or "angles" not in facts:
        return None
    from ase.cell import Cell

    try:
        new: Any = Cell.new
        cell = new([float(w) for w in (facts["abc"] + " " + facts["angles"]).split()])[:]
        atoms = [m.groups() for line in deck.comments if (m := _HEADER_ATOM.match(line))]
        fractional = np.array([a[1:] for a in atoms], dtype=np.float64)
        structure, order = Structure.from_atoms([a[0] for a in atoms], fractional @ cell, cell)
    except (StructureError, ValueError, IndexError):
        return None
    return structure, order, _name(folder, root), {"structure": "header"}


def _absorber(
    folder: Path,
    structure: Structure,
    order: tuple[int, ...],
    wanted: Cluster,
    parameters: FeffParameters,
    *,
    exact: bool,
) -> tuple[int, float, Cluster] | None:
    """Return the atom around which the structure has the deck's atoms, the radius they lie within, and the atoms."""
    symbol = SYMBOLS[int(wanted.numbers[0])]
    radius = _radius(wanted, parameters)
    for atom in _guesses(folder, order, structure.indices_of(symbol)):
        cluster = cut(structure, atom, radius)
        if len(cluster) == len(wanted) and _agree(cluster, wanted, exact=exact):
            return atom, radius, cluster
    return None


def _radius(wanted: Cluster, parameters: FeffParameters) -> float:
    """Return the radius of a sphere with the deck's atoms: that of FMS or SCF if the last atom lies just within it."""
    last = float(wanted.distances_A[-1])
    for sphere in (parameters.fms, parameters.scf):
        if sphere is not None and sphere.radius_A is not None and last <= sphere.radius_A < last + 2.0:
            return sphere.radius_A
    return round(last + 0.01, 2)


def _guesses(folder: Path, order: tuple[int, ...], atoms: tuple[int, ...]) -> Iterator[int]:
    """Yield the atoms that may absorb, first the one the folder's name counts (``001_Cu``)."""
    match = _INDEX.match(folder.name)
    first = order.index(int(match[1])) if match and int(match[1]) < len(order) else None
    if first in atoms:
        yield first
    yield from (a for a in atoms if a != first)


def _agree(ours: Cluster, theirs: Cluster, *, exact: bool) -> bool:
    """Whether two clusters of as many atoms are the same; if not ``exact``, theirs may be turned."""
    if np.abs(ours.distances_A - theirs.distances_A).max() > _SAME_A:
        return False
    if not exact:
        shells = [np.lexsort((c.distances_A, c.numbers)) for c in (ours, theirs)]
        same = (ours.numbers[shells[0]] == theirs.numbers[shells[1]]).all()
        apart = np.abs(ours.distances_A[shells[0]] - theirs.distances_A[shells[1]]).max()
        return bool(same and apart <= _SAME_A)
    keys = [np.lexsort((*np.rint(c.positions_A.T / 0.02), c.numbers)) for c in (ours, theirs)]
    delta = ours.positions_A[keys[0]] - theirs.positions_A[keys[1]]
    if (ours.numbers[keys[0]] == theirs.numbers[keys[1]]).all() and np.abs(delta).max() <= _SAME_A:
        return True
    # Rounding may have put a pair in another order: look for each atom's nearest.
    apart = np.abs(ours.positions_A[:, None] - theirs.positions_A[None]).max(axis=-1)
    nearest = apart.argmin(axis=1)
    return bool(
        len(set(nearest.tolist())) == len(ours)
        and apart[np.arange(len(ours)), nearest].max() <= _SAME_A
        and (ours.numbers == theirs.numbers[nearest]).all()
    )


def _as_it_is(folder: Path, root: Path, wanted: Cluster) -> _Found:
    """Return the cluster itself as a molecule."""
    symbols = [SYMBOLS[n] for n in wanted.numbers.tolist()]
    try:
        structure, order = Structure.from_atoms(symbols, wanted.positions_A)
    except StructureError as error:
        raise NotAdopted(
            Why.UNSUPPORTED, f"the atoms of feff.inp are no structure: {error.message}"
        ) from None
    atom = order.index(0)
    return _Found(
        structure,
        order,
        atom,
        None,
        cut(structure, atom, None),
        _name(folder, root),
        {"structure": "cluster"},
    )


def _provenance(folder: Path, deck: str, run: FeffRun, found: _Found, dos_left_out: str | None) -> Provenance:
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
