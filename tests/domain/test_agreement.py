"""Measured beside computed: the shift, the correlation and the strength that were put in come out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from htxas.domain.agreement import agreement

FloatArray = npt.NDArray[np.float64]
RANGE = (284.0, 300.0)


def peaks(energies: FloatArray) -> FloatArray:
    return sum(
        (a * np.exp(-((energies - e) ** 2) / 2 / w**2) for e, a, w in ((287, 1, 0.5), (289, 0.6, 0.7), (294, 0.8, 2))),
        np.zeros(len(energies)),
    )  # fmt: skip


def spectra(
    shift: float, factor: float
) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
    computed = np.arange(280.0, 320.0, 0.05)
    measured = np.arange(278.0, 320.0, 0.1)
    return (measured, factor * peaks(measured - shift)), (computed, peaks(computed))


@pytest.mark.parametrize("shift", [0.63, -1.2, 0.0])
def test_what_was_put_in_comes_out(shift: float) -> None:
    found = agreement(*spectra(shift, 0.93), RANGE)
    assert found.shift_eV == pytest.approx(shift, abs=0.011)
    assert found.correlation > 0.999
    assert found.unshifted <= found.correlation
    assert found.strength == pytest.approx(0.93, abs=0.005)
    assert (found.low_eV, found.high_eV) == RANGE
    assert found.searched_eV == 3.0


def test_a_shift_that_is_given_is_not_searched() -> None:
    found = agreement(*spectra(0.63, 2.0), RANGE, shift_eV=0.2)
    assert found.shift_eV == 0.2
    assert found.searched_eV is None
    assert found.unshifted < found.correlation < 0.99


def test_only_what_both_cover_at_every_shift_is_compared() -> None:
    (energies, intensity), computed = spectra(0.5, 1.0)
    kept = energies > 285.0
    found = agreement((energies[kept], intensity[kept]), computed, RANGE, within_eV=1.0)
    assert found.low_eV == pytest.approx(286.0, abs=0.06)
    assert found.shift_eV == pytest.approx(0.5, abs=0.011)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e, i: (e[e > 296], i[e > 296]), "less than 5 eV of the computed 284.0 to 300.0 eV are left"),
        (lambda e, i: (e, np.ones(len(e))), "the measured spectrum is flat"),
        (lambda e, i: (e + 3.3, i), "still grows"),
        (lambda e, i: (e, i - 5), "no area above zero"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: object, words: str) -> None:
    measured, computed = spectra(0.0, 1.0)
    with pytest.raises(ValueError, match=words):
        agreement(change(*measured), computed, RANGE)  # type: ignore[operator]


def test_a_flat_computed_spectrum_is_refused() -> None:
    measured, (energies, intensity) = spectra(0.0, 1.0)
    with pytest.raises(ValueError, match="the computed spectrum is flat"):
        agreement(measured, (energies, 0 * intensity), RANGE)
