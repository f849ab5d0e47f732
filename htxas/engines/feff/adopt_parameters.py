"""From the cards of a FEFF deck which exists to parameters of htxas's own: the identity it would have had here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from htxas.engines.adoption import NotAdopted, Why
from htxas.engines.feff.adopt_structure import Found
from htxas.engines.feff.cluster import Cluster
from htxas.engines.feff.deck import Card, Deck
from htxas.engines.feff.parameters import EDGES, EXCHANGE, MANAGED, FeffParameters, Sphere
from htxas.engines.feff.write import MOVED_A, lay_out, reach_A
from htxas.engines.feff.xmu import Xmu

__all__ = ["edge_of", "parameters_of", "refuse_what_has_no_name", "settled"]

_TAKEN = frozenset("TITL END CONT PRIN EDGE HOLE S02 CORE NOHO EXCH SCF FMS XANE EGRI LDOS RPAT REAL".split())
"""Cards with a parameter of their own, or none at all."""
_ELSEWHERE = frozenset("EXTP EXPO MPSE PLAS CONF OVER SIG3".split())  # what they say is in other files
_BY_POTENTIAL = frozenset("FOLP ION NUMD".split())
_THICK_A = 1.5  # a shell so thick is empty in no crystal
_ROUNDING_A = 1e-3


def edge_of(deck: Deck) -> str:
    """Return the edge of a deck.

    Raises
    ------
    NotAdopted
        UNSUPPORTED: none of :data:`~htxas.engines.feff.parameters.EDGES`.
    """
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


def parameters_of(deck: Deck, xmu: Xmu) -> FeffParameters:
    """Return the parameters a deck was run with, its radii as they are.

    Raises
    ------
    NotAdopted
        Something that cannot be said in htxas's own terms.
    """
    refuse_what_has_no_name(deck)
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


def refuse_what_has_no_name(deck: Deck) -> None:
    """Refuse all that changes the answer and has no place in the parameters.

    Raises
    ------
    NotAdopted
        UNSUPPORTED, with the first of it.
    """
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
        return abs(float(card.words[1]) - fms[0]) < _ROUNDING_A
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


def settled(parameters: FeffParameters, deck: Deck, found: Found) -> FeffParameters:
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


def _is_usual(parameters: FeffParameters, found: Found) -> bool:
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
