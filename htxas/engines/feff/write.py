"""From a job to ``feff.inp``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from htxas.domain.structure import Structure
from htxas.engines.feff.cluster import Cluster, cut, radius_of
from htxas.engines.feff.corrections import DEFAULTS
from htxas.engines.feff.deck import Card, Potential
from htxas.engines.feff.parameters import EXCHANGE, FeffParameters, Sphere

__all__ = ["AXES", "MOVED_A", "Layout", "deck_texts", "lay_out", "reach_A", "screening_A"]

AXES: Mapping[str, tuple[str, str, str]] = {
    "x": ("1.0", "0.0", "0.0"),
    "y": ("0.0", "1.0", "0.0"),
    "z": ("0.0", "0.0", "1.0"),
}
"""Folder of a polarised run -> its direction."""

MOVED_A = 1.5
"""How much larger than a whole molecule a sphere must be to hold it: for the potentials FEFF lengthens the bonds of
hydrogen, by up to 0.7 A (``moveh.f90``)."""

_SCREEN_A = 4.0
_HOLES = {"rpa": "RPA", "fsr": "FSR", "none": "none"}
_ALL = ("1", "1", "1", "1", "1", "1")
_WITHOUT_POTENTIALS = ("0", "1", "1", "1", "1", "1")


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The atoms and radii of an input.

    Attributes
    ----------
    cluster
        The atoms.
    scf_A, fms_A
        Radii of the spheres; None without.
    """

    cluster: Cluster
    scf_A: float | None
    fms_A: float | None


def lay_out(structure: Structure, atom: int, parameters: FeffParameters) -> Layout:
    """Return atoms and radii for an absorber.

    Where the parameters do not say how many atoms FEFF is told of, they are those of both spheres, the spheres of
    self-consistency drawn around the nearest atom of each kind.

    Raises
    ------
    ValueError
        A sphere that cannot be cut, or a crystal without any radius.
    """
    scf = _radius(structure, atom, parameters.scf)
    fms = _radius(structure, atom, parameters.fms)
    if not structure.is_periodic:
        return Layout(cut(structure, atom, parameters.cluster_radius_A), scf, fms)
    if parameters.cluster_radius_A is not None:
        return Layout(cut(structure, atom, parameters.cluster_radius_A), scf, fms)
    radius = max(scf or 0.0, fms or 0.0)
    if radius == 0.0:
        raise ValueError("a crystal needs a radius: scf, fms or cluster_radius_A")
    each = parameters.scf is not None and parameters.scf.center == "each"
    while True:
        cluster = cut(structure, atom, radius)
        wanted = reach_A(cluster, scf, fms, each=each)
        if wanted <= radius:
            return Layout(cluster, scf, fms)
        radius = wanted


def reach_A(cluster: Cluster, scf_A: float | None, fms_A: float | None, *, each: bool) -> float:
    """Return how far both spheres reach; of ``each`` kind, self-consistency has one around the nearest atom."""
    if scf_A is None or not each:
        return max(scf_A or 0.0, fms_A or 0.0)
    _, first = np.unique(cluster.kinds(), return_index=True)
    return max(scf_A + float(cluster.distances_A[first].max()), fms_A or 0.0)


def _radius(structure: Structure, atom: int, sphere: Sphere | None) -> float | None:
    if sphere is None:
        return None
    if sphere.radius_A is not None:
        return sphere.radius_A
    if sphere.atoms is not None:
        return radius_of(structure, atom, sphere.atoms)
    if structure.is_periodic:
        raise ValueError("only a molecule is taken whole: say radius_A or atoms")
    delta = structure.positions_A[:, None] - structure.positions_A[None]
    return float(np.sqrt((delta**2).sum(axis=-1)).max()) + MOVED_A


def deck_texts(
    title: str,
    edge: str,
    structure: Structure,
    atom: int,
    parameters: FeffParameters,
    numerics: Mapping[str, Any],
) -> dict[str, str]:
    """Return the text of ``feff.inp`` by folder: ``""`` for the one of an isotropic run, else ``x``, ``y`` and ``z``.

    Raises
    ------
    ValueError
        As :func:`lay_out`.
    """
    layout = lay_out(structure, atom, parameters)
    potentials = _potentials(layout.cluster, structure, parameters)
    if parameters.polarization == "isotropic":
        cards = [Card("CONTROL", _ALL), *_cards(edge, layout, parameters, numerics)]
        return {"": _render(title, cards, potentials, layout.cluster)}
    texts: dict[str, str] = {}
    for axis, direction in AXES.items():
        # The potentials do not depend on it: those of the first direction serve all.
        control = Card("CONTROL", _ALL if not texts else _WITHOUT_POTENTIALS)
        cards = [control, *_cards(edge, layout, parameters, numerics), Card("POLARIZATION", direction)]
        texts[axis] = _render(f"{title} {axis}", cards, potentials, layout.cluster)
    return texts


def _potentials(cluster: Cluster, structure: Structure, parameters: FeffParameters) -> tuple[Potential, ...]:
    found = cluster.potentials(structure)
    if parameters.stoichiometry == "structure":
        return found
    if parameters.stoichiometry == "deck":
        return tuple(replace(p, stoichiometry=None) for p in found)
    if len(parameters.stoichiometry) != len(found):
        raise ValueError(
            f"stoichiometry of {len(parameters.stoichiometry)} potentials, there are {len(found)}"
        )
    return tuple(replace(p, stoichiometry=x) for p, x in zip(found, parameters.stoichiometry, strict=True))


def _cards(edge: str, layout: Layout, p: FeffParameters, numerics: Mapping[str, Any]) -> Iterable[Card]:
    settings = {**DEFAULTS, **numerics}
    yield Card("EDGE", (edge,))
    yield Card("S02", (str(p.s02),))
    yield Card("COREHOLE", (_HOLES[p.hole],))
    model, background = EXCHANGE.index(p.exchange), EXCHANGE.index(p.background)
    yield Card("EXCHANGE", (str(model), str(p.shift_eV), str(p.broadening_eV), str(background)))
    if layout.scf_A is not None and p.scf is not None:
        mixing = (str(settings["iterations"]), str(settings["ca"]), str(settings["nmix"]))
        yield Card("SCF", (f"{layout.scf_A:.4f}", _center(p.scf), *mixing, *_words(p.scf_extra)))
    if layout.fms_A is not None and p.fms is not None:
        yield Card("FMS", (f"{layout.fms_A:.4f}", _center(p.fms), *_words(p.fms_extra)))
    if (screen := screening_A(layout.fms_A, p)) is not None:
        yield Card("SCREEN", ("rfms", f"{screen:.4f}"))
    yield from p.energy_cards()
    if p.ldos is not None:
        dos = (p.ldos.from_eV, p.ldos.to_eV, p.ldos.broadening_eV)
        yield Card("LDOS", (*map(str, dos), str(p.ldos.points)))
    if p.rpath_A != "default":
        yield Card("RPATH", (f"{p.rpath_A:g}",))
    for line in p.cards:
        name, *words = line.split()
        yield Card(name, tuple(words))


def _words(numbers: Iterable[float]) -> tuple[str, ...]:
    """Return numbers as FEFF reads them: it takes no 1.0 for a whole number."""
    return tuple(f"{n:g}" for n in numbers)


def screening_A(fms_A: float | None, parameters: FeffParameters) -> float | None:
    """Return the radius within which the hole is screened, where it is not FEFF's own 4 A.

    Around the absorber of a molecule there must be an atom of every kind, or ``screen`` gives up: its sphere is that of
    full multiple scattering, if that is larger.
    """
    fms = parameters.fms
    if parameters.hole != "rpa" or fms is None or fms_A is None or fms.center == "each":
        return None
    return fms_A if fms_A > _SCREEN_A else None


def _center(sphere: Sphere) -> str:
    return "1" if sphere.center == "absorber" else "0"


def _render(title: str, cards: Iterable[Card], potentials: Iterable[Potential], cluster: Cluster) -> str:
    lines = [f"TITLE {title}"]
    for card in cards:
        lines.append(" ".join((card.name, *card.words)))
        lines += ["  " + " ".join(words) for words in card.below]
    lines += ["", "POTENTIALS", "*  ipot  Z  tag  lmax1 lmax2  xnatph"]
    for p in potentials:
        count = "" if p.stoichiometry is None else f"  {p.stoichiometry:g}"
        lines.append(f"{p.index:5d} {p.number:4d}  {p.tag:<3s} {p.lmax_scf:4d} {p.lmax_fms:4d}{count}")
    lines += ["", "ATOMS", "*        x            y            z    ipot  tag  distance"]
    tags = {p.index: p.tag for p in potentials}
    kinds = cluster.kinds().tolist()
    for position, kind, distance in zip(cluster.positions_A, kinds, cluster.distances_A, strict=True):
        x, y, z = position + 0.0
        lines.append(f"{x:13.6f}{y:13.6f}{z:13.6f} {kind:4d}  {tags[kind]:<3s}{distance:10.4f}")
    return "\n".join([*lines, "END", ""])
