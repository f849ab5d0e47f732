"""``feff.inp`` as FEFF reads it: cards, potentials and atoms, from text and to text.

FEFF matches a card by its first four letters, reads numbers in free format, takes a line that begins with one of ``*``,
``;``, ``%`` and ``#`` for a comment, and stops at ``END`` (``rdline.f90``, ``itoken.f90`` and ``rdinp.f90`` of FEFF10,
which in this agree with FEFF9). ``pymatgen.io.feff`` reads only decks with its own header and loses the lines below
``EGRID``, so decks are read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Card", "Deck", "DeckError", "Potential", "parse_deck"]

FloatArray = npt.NDArray[np.float64]

_COMMENT = ("*", ";", "%", "#")
_LISTS = {"ATOM": "ATOMS", "POTE": "POTENTIALS"}
_BELOW = {"EGRI": "EGRID", "ELNE": "ELNES", "EXEL": "EXELFS", "OVER": "OVERLAP", "LATT": "LATTICE"}
"""Cards with lines of their own below them."""
_ALIAS = {"RMAX": "RPAT"}
_NOT_A_CARD = re.compile(r"(?i)(?:e_grid|k_grid|exp_grid|user_grid)\b")
_MOST_SHOWN = 60


class DeckError(ValueError):
    """A deck that FEFF would refuse; the message names the line."""


@dataclass(frozen=True, slots=True)
class Card:
    """One card: its four letters in capitals, its words, and the lines below it, split into words."""

    name: str
    words: tuple[str, ...] = ()
    below: tuple[tuple[str, ...], ...] = ()

    def numbers(self) -> tuple[float, ...]:
        """Return the words that are numbers, up to the first that is none."""
        found = []
        for word in self.words:
            try:
                found.append(float(word.lower().replace("d", "e")))
            except ValueError:
                break
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Potential:
    """One unique potential.

    Attributes
    ----------
    index
        0 is the absorber's.
    number
        Atomic number.
    tag
        At most six characters, or empty.
    lmax_scf, lmax_fms
        Angular momenta of self-consistency and of full multiple scattering; -1 leaves them to FEFF.
    stoichiometry
        Atoms of it in the unit cell or the molecule; None where the deck does not say.
    spin
        Its spin amplitude.
    """

    index: int
    number: int
    tag: str = ""
    lmax_scf: int = -1
    lmax_fms: int = -1
    stoichiometry: float | None = None
    spin: float = 0.0


@dataclass(frozen=True, eq=False)
class Deck:
    """An input of FEFF.

    Attributes
    ----------
    titles
        Text of the ``TITLE`` cards, in order.
    cards
        All other cards, in order.
    potentials
        By index.
    positions_A
        Atoms in Angstrom, shape (n, 3).
    atom_potentials
        Unique potential of each atom, shape (n,).
    comments
        Comment lines before the first atom, as they are: pymatgen puts the crystal there.
    """

    titles: tuple[str, ...]
    cards: tuple[Card, ...]
    potentials: Mapping[int, Potential]
    positions_A: FloatArray
    atom_potentials: npt.NDArray[np.int64]
    comments: tuple[str, ...] = field(default=())

    def card(self, name: str) -> Card | None:
        """Return the last card of that name, as FEFF does: its first four letters count, and ``RMAX`` is ``RPATH``."""
        wanted = _ALIAS.get(name[:4].upper(), name[:4].upper())
        found = None
        for card in self.cards:
            if card.name == wanted:
                found = card
        return found

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return the numbers of a card, empty if it is not there."""
        card = self.card(name)
        return () if card is None else card.numbers()


def parse_deck(text: str) -> Deck:
    """Return a deck.

    Raises
    ------
    DeckError
        A number that is none, an atom of a potential that is not listed, no atoms, or no absorber. Files that the deck
        includes are not followed: such a deck is refused, too.
    """
    titles: list[str] = []
    cards: list[Card] = []
    comments: list[str] = []
    potentials: dict[int, Potential] = {}
    atoms: list[Sequence[str]] = []
    mode = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line:
            continue
        if line[0] in _COMMENT:
            if not atoms:
                comments.append(line)
            continue
        first = line[0]
        if first.isalpha() and not (mode == "EGRI" and _NOT_A_CARD.match(line)):
            name, mode = _card_name(line), ""
            if name == "END":
                break
            if name == "TITL":
                titles.append(line[5:].strip())
            elif name in _LISTS:
                mode = name
            elif name in ("INCL", "LOAD"):
                raise DeckError(f"line {number} includes another file: {line[:_MOST_SHOWN]}")
            else:
                words = tuple(_split(line)[1:])
                cards.append(Card(name, words))
                mode = name if name in _BELOW else ""
        elif mode == "ATOM":
            atoms.append((line.replace(",", " ") if "," in line else line).split(None, 4))
        elif mode == "POTE":
            potential = _potential(_split(line), number)
            potentials[potential.index] = potential
        elif mode in _BELOW:
            last = cards[-1]
            cards[-1] = Card(last.name, last.words, (*last.below, tuple(_split(line))))
        else:
            raise DeckError(f"line {number} belongs to no card: {line[:_MOST_SHOWN]}")
    positions, kinds = _atoms(atoms)
    _check(potentials, kinds)
    return Deck(tuple(titles), tuple(cards), potentials, positions, kinds, tuple(comments))


def _split(line: str) -> list[str]:
    """Return the words of a line: blanks, tabs, commas and ``=`` are between them, a comment ends it."""
    for mark in _COMMENT[:1]:
        line = line.split(mark, 1)[0] if f" {mark}" in line else line
    return line.replace(",", " ").replace("=", " ").split()


def _card_name(line: str) -> str:
    name = _split(line)[0][:4].upper()
    return _ALIAS.get(name, name)


def _potential(words: list[str], number: int) -> Potential:
    try:
        return Potential(
            index=int(words[0]),
            number=int(words[1]),
            tag=words[2] if len(words) > 2 else "",
            lmax_scf=int(words[3]) if len(words) > 3 else -1,
            lmax_fms=int(words[4]) if len(words) > 4 else -1,
            stoichiometry=float(words[5]) if len(words) > 5 else None,
            spin=float(words[6]) if len(words) > 6 else 0.0,
        )
    except (ValueError, IndexError):
        raise DeckError(f"line {number} is no potential: {' '.join(words)[:_MOST_SHOWN]}") from None


def _atoms(rows: Sequence[Sequence[str]]) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    if not rows:
        raise DeckError("there are no atoms in it")
    try:
        positions = np.array([row[:3] for row in rows], dtype=np.float64)
        kinds = np.array([row[3] for row in rows]).astype(np.int64)
    except (ValueError, IndexError):
        raise DeckError(f"an atom needs x, y, z and a potential: {_first_bad(rows)}") from None
    if not np.isfinite(positions).all():
        raise DeckError(f"an atom has no finite position: {_first_bad(rows)}")
    return positions, kinds


def _first_bad(rows: Iterable[Sequence[str]]) -> str:
    for row in rows:
        try:
            finite = bool(np.isfinite([float(w) for w in row[:3]]).all())
            int(row[3])
        except (ValueError, IndexError):
            finite = False
        if not finite:
            return " ".join(row)[:_MOST_SHOWN]
    return "lines of different length"


def _check(potentials: Mapping[int, Potential], kinds: npt.NDArray[np.int64]) -> None:
    unknown = sorted(set(kinds.tolist()) - potentials.keys())
    if unknown:
        raise DeckError(f"an atom has potential {unknown[0]}, which is not in POTENTIALS")
    absorbers = int((kinds == 0).sum())
    if absorbers != 1:
        raise DeckError(f"{absorbers} atoms have potential 0; one absorbs")
