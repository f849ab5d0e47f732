from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from htxas.domain.units import HARTREE_EV
from htxas.engines.cp2k.log import read_log
from htxas.engines.cp2k.tables import TableError, read_pdos, read_spectrum

SPECTRUM = "half-97d8e8f30973-xas_at5_st1.spectrum"


def spectrum(runs: Path) -> str:
    return (runs / "methane" / SPECTRUM).read_text()


def test_a_spectrum(runs: Path) -> None:
    table = read_spectrum(spectrum(runs))
    assert (table.atom, table.hole, table.first, len(table.distances_eV)) == (4, 0, 5, 67)
    assert table.distances_eV[0] == pytest.approx(288.39215989)
    assert table.dipoles_a0[3] == pytest.approx(
        np.array([-2.59112759, -2.59108893, -2.59110429]) / (289.92137116 / HARTREE_EV) ** 2, rel=1e-5
    )
    # The three components of a t2 level share what they have, whatever their axes are.
    assert (table.dipoles_a0[1:4] ** 2).sum(axis=0) == pytest.approx([0.001563] * 3, rel=1e-3)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t[: len(t) // 2], "cut short|columns"),
        (lambda t: t.rsplit("\n", 3)[0], "it has 65 lines and says it has 67"),
        (lambda t: t.replace("    10  ", "    11  "), "a level is missing"),
        (lambda t: t + t, "no numbers"),  # CP2K appends to a file that is there
        (lambda t: t.replace("-2.59108893", "-4.59108893"), "sum of the squares"),
        (lambda t: t.replace("288.39215989", "-89.10044279"), "below the hole"),
        (lambda t: t.replace("0.17743155", "       NaN"), "not finite"),
        (lambda t: "", "does not begin"),
        (lambda t: t.replace("Absorption", "Emission"), "does not begin"),
    ],
)
def test_a_spectrum_that_is_none(runs: Path, edit: Callable[[str], str], message: str) -> None:
    with pytest.raises(TableError, match=message):
        read_spectrum(edit(spectrum(runs)))


def test_projected_levels(runs: Path) -> None:
    text = (runs / "methane-ground" / "ground-29db20de2e74-list5-1.pdos").read_text()
    table = read_pdos(text)
    assert table.of == "5"
    assert table.occupations.tolist() == [2.0] * 5 + [0.0] * 29
    assert table.weights[0] == pytest.approx([0.996, 0, 0], abs=1e-3)
    kind = read_pdos((runs / "methane" / "half-97d8e8f30973-xasat5_ALPHA_k2-1.pdos").read_text())
    assert (kind.of, kind.occupations[0]) == ("HOLE", 0.5)
    for edit, message in (
        (lambda t: t.replace(" p ", " f "), "columns s f d"),
        (lambda t: "\n".join(t.splitlines()[:-4] + t.splitlines()[-1:]), "not counted from 1"),
        (lambda t: t[:-30], "cut short|columns"),
        (lambda t: "\n".join(t.splitlines()[1:]), "does not begin"),
    ):
        with pytest.raises(TableError, match=message):
            read_pdos(edit(text))


def test_a_log(runs: Path) -> None:
    log = read_log((runs / "methane" / "ion.out").read_text())
    assert (log.version, log.project) == ("2023.1", "ion-97d8e8f30973")
    assert log.ended
    assert log.abort is None
    assert log.cycles[0] == 1
    assert len(log.energies_Ha) == 2
    assert log.electrons == pytest.approx((10, 9), abs=1e-4)
    assert log.core_Ha == pytest.approx(-11.0787, abs=1e-3)
    assert log.last_cycle == log.cycles[1]
    ground = read_log((runs / "methane-ground" / "ground.out").read_text())
    assert ground.dipole_D == pytest.approx((0, 0, 0), abs=1e-4)
    assert (ground.core_Ha, ground.begun) == (None, True)


def test_an_abort_is_read_beside_its_drawing(runs: Path) -> None:
    log = read_log((runs / "refused" / "base.out").read_text())
    assert log.abort is not None
    assert log.abort.startswith("found an unknown keyword CUT_OFF in section MGRID")
    assert not log.begun
