from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htxas.cluster.quantities import clock, memory_MB, parse_clock, parse_walltime_s


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("24:00:00", 86400),
        ("1-00:00:00", 86400),
        ("2-12", 216000),
        ("1-06:30", 109800),
        (90, 90),
        ("0:01:05", 65),
    ],
)
def test_walltimes(written: str | int, seconds: int) -> None:
    assert parse_walltime_s(written) == seconds


@pytest.mark.parametrize("written", ["1:30", "90", "", "24h", "00:00:00", 0, -5, True, "1:2:3:4", "24:00:61"])
def test_what_schedulers_read_differently_is_refused(written: str | int) -> None:
    with pytest.raises(ValueError, match="hours:minutes:seconds"):
        parse_walltime_s(written)


@given(st.integers(1, 10_000_000))
def test_a_clock_reads_as_it_was_written(seconds: int) -> None:
    assert parse_clock(clock(seconds)) == seconds


def test_memory() -> None:
    assert memory_MB(256) == 256_000
