"""Sets of time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.attribution.intervals import Intervals

pairs = st.lists(st.tuples(st.integers(0, 60), st.integers(-3, 12)), max_size=6)


def make(entries: list[tuple[int, int]]) -> tuple[Intervals, set[int]]:
    start = np.array([start for start, _ in entries], np.int64)
    end = np.array([start + length for start, length in entries], np.int64)
    return Intervals.of(start, end), {at for start, length in entries for at in range(start, start + length)}


def members(time: Intervals) -> set[int]:
    assert (time.end_ns > time.start_ns).all()
    assert (time.start_ns[1:] > time.end_ns[:-1]).all()
    return {
        at for start, end in zip(time.start_ns.tolist(), time.end_ns.tolist(), strict=True) for at in range(start, end)
    }


@given(first=pairs, second=pairs)
def test_intervals_are_sets_of_nanoseconds(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> None:
    (one, ones), (two, twos) = make(first), make(second)
    assert members(one) == ones
    assert members(one.intersect(two)) == ones & twos
    assert members(one.minus(two)) == ones - twos
    assert members(one.clipped(10, 30)) == ones & set(range(10, 30))
    assert one.total_ns == len(ones)
    times = np.arange(80)
    assert set(times[one.contains(times)].tolist()) == ones
