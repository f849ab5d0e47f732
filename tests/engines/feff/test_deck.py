from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from htxas.engines.feff.deck import DeckError, parse_deck

DECK = """
* a comment
TITLE  of  two words
EDGE L3
scf 4.5 0 30 0.2 1
Egrid
  e_grid -10 10 0.1
  k_grid last 5 0.05
FOLP 1 0.8
FOLP 2 0.9
POTENTIALS
  0 29 Cu -1 -1 0.01
  1 29
  2 8 O_long 2 3 1.0
ATOMS
  0.0 0.0 0.0  0  Cu  0.0
  1.9, 0.0, 0.0 2 O 1.9
  0.0 3.6 0.0 1
END
ATOMS that nobody reads
"""


def test_cards_are_read_as_feff_does() -> None:
    deck = parse_deck(DECK)
    assert deck.titles == ("of  two words",)
    assert deck.numbers("SCF") == (4.5, 0, 30, 0.2, 1)
    assert deck.numbers("FOLP") == (2, 0.9)  # the last one counts
    grid = deck.card("EGRID")
    assert grid is not None
    assert grid.below == (("e_grid", "-10", "10", "0.1"), ("k_grid", "last", "5", "0.05"))
    assert deck.positions_A.shape == (3, 3)
    assert deck.atom_potentials.tolist() == [0, 2, 1]
    assert (deck.potentials[1].number, deck.potentials[1].stoichiometry) == (29, None)
    assert (deck.potentials[2].tag, deck.potentials[2].lmax_fms) == ("O_long", 3)
    assert deck.comments == ("* a comment",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("0.0 3.6 0.0 1", "0.0 3.6 0.0 7"), "potential 7, which is not in POTENTIALS"),
        (("0.0 3.6 0.0 1", "0.0 3.6 0.0 0"), "2 atoms have potential 0"),
        (("0.0 3.6 0.0 1", "0.0 three 0.0 1"), "0.0 three 0.0 1"),
        (("0.0 3.6 0.0 1", "0.0 nan 0.0 1"), "no finite position"),
        (("  2 8 O_long 2 3 1.0", "  2 oxygen"), "line 14 is no potential: 2 oxygen"),
        (("EDGE L3", "include other.inp"), "line 4 includes another file"),
        (("TITLE  of  two words", "1 2 3"), "line 3 belongs to no card: 1 2 3"),
    ],
)
def test_what_feff_would_refuse_is_refused(change: tuple[str, str], message: str) -> None:
    with pytest.raises(DeckError, match=message):
        parse_deck(DECK.replace(*change))


def test_a_deck_without_atoms_is_none() -> None:
    with pytest.raises(DeckError, match="no atoms"):
        parse_deck(DECK.partition("ATOMS")[0])


def test_our_own_decks_are_read_back(runs: Path) -> None:
    deck = parse_deck((runs / "mgo/feff.inp").read_text())
    distances = np.sqrt((deck.positions_A**2).sum(axis=1))
    assert (np.diff(distances) >= -1e-9).all()
    assert [p.tag for p in deck.potentials.values()] == ["O", "O", "Mg"]
    assert deck.potentials[0].stoichiometry == 0.01
