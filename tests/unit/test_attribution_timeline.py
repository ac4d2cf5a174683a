"""Sharing of device time: exact against a count of every nanosecond, for any set of kernels."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.attribution import timeline
from qmeter_native.attribution.timeline import BusyTime, SharedTime, share_time, union_of

Intervals = list[tuple[int, int]]
WINDOW = (10, 90)

intervals = st.lists(
    st.tuples(st.integers(0, 100), st.integers(0, 30)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=12
).map(sorted)
cuts = st.sets(st.integers(11, 89), max_size=5).map(lambda inner: [WINDOW[0], *sorted(inner), WINDOW[1]])


def arrays(kernels: Intervals) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(kernels, np.int64).reshape(-1, 2)
    return table[:, 0].copy(), table[:, 1].copy()


def shared_by_counting(kernels: Intervals, at_cuts: list[int]) -> dict[tuple[int, int], int]:
    """The definition, nanosecond by nanosecond: ``{(row, window): shared}``."""
    events = sorted({*at_cuts, *(time for start, end in kernels if start < end for time in (start, end))})
    shared: dict[tuple[int, int], int] = {}
    for low, high in pairwise(events):
        running = [row for row, (start, end) in enumerate(kernels) if start <= low and high <= end]
        window = sum(cut <= low for cut in at_cuts) - 1
        if not running or not at_cuts[0] <= low < at_cuts[-1]:
            continue
        for position, row in enumerate(running):
            extra = (high - low) % len(running) if position == 0 else 0
            shared[row, window] = shared.get((row, window), 0) + (high - low) // len(running) + extra
    return {key: value for key, value in shared.items() if value}


def totals(parts: Iterable[SharedTime]) -> dict[tuple[int, int], int]:
    sums: dict[tuple[int, int], int] = {}
    for part in parts:
        for row, window, shared in zip(part.row.tolist(), part.window.tolist(), part.shared_ns.tolist(), strict=True):
            sums[row, window] = sums.get((row, window), 0) + shared
    return {key: value for key, value in sums.items() if value}


@settings(max_examples=300, deadline=None)
@given(kernels=intervals, at_cuts=cuts, chunk=st.sampled_from([1, 2, 3, 5, 1000]))
def test_every_nanosecond_is_shared_as_defined(kernels: Intervals, at_cuts: list[int], chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "_CHUNK_ROWS", chunk)
        parts = list(share_time(*arrays(kernels), np.array(at_cuts)))
    found = totals(parts)
    if chunk == 1000:
        assert found == shared_by_counting(kernels, at_cuts)
    covered = {time for start, end in kernels for time in range(start, end) if WINDOW[0] <= time < WINDOW[1]}
    assert sum(found.values()) == len(covered)
    counts = [sum(start <= time < end for start, end in kernels) for time in covered]
    assert sum(part.doubled_ns for part in parts) == sum(count > 1 for count in counts)
    assert sum(int(part.overlapped_ns.sum()) for part in parts) == sum(count for count in counts if count > 1)


@settings(max_examples=200, deadline=None)
@given(kernels=intervals, times=st.lists(st.integers(-5, 140), max_size=8))
def test_busy_time_before_a_moment_is_the_union_before_it(kernels: Intervals, times: list[int]) -> None:
    covered = {time for start, end in kernels for time in range(start, end)}
    before = BusyTime(*arrays(kernels)).before(np.array(times, np.int64))
    assert before.tolist() == [sum(second < time for second in covered) for time in times]


def test_kernels_one_after_another_keep_their_whole_time() -> None:
    parts = list(share_time(*arrays([(10, 20), (20, 25), (30, 40)]), np.array([0, 100])))
    assert parts[0].shared_ns.tolist() == [10, 5, 10]
    assert parts[0].doubled_ns == 0


def test_the_remainder_goes_to_the_earliest_start() -> None:
    parts = list(share_time(*arrays([(0, 11), (1, 11), (1, 11)]), np.array([0, 100])))
    assert parts[0].shared_ns.tolist() == [1 + 4, 3, 3]
    assert parts[0].overlapped_ns.tolist() == [10, 10, 10]


def test_a_kernel_without_length_gets_nothing_and_takes_nothing() -> None:
    parts = list(share_time(*arrays([(0, 10), (5, 5), (10, 10)]), np.array([0, 100])))
    assert totals(parts) == {(0, 0): 10}


def test_only_the_inside_of_a_straddling_kernel_counts() -> None:
    assert totals(share_time(*arrays([(0, 30), (95, 130), (200, 210)]), np.array([10, 50, 100]))) == {
        (0, 0): 20,
        (1, 1): 5,
    }


def test_nothing_ran() -> None:
    assert list(share_time(*arrays([]), np.array([0, 100]))) == []
    assert BusyTime(*arrays([])).between(np.array([0]), np.array([9])).tolist() == [0]


def test_a_union_joins_what_touches() -> None:
    start, end = union_of(*arrays([(0, 5), (3, 4), (5, 8), (9, 9), (10, 12)]))
    assert list(zip(start.tolist(), end.tolist(), strict=True)) == [(0, 8), (10, 12)]


def test_busy_time_can_be_weighed() -> None:
    busy = BusyTime(np.array([0, 10, 12]), np.array([4, 14, 20]))
    start, end = np.array([0, 2, 11]), np.array([20, 11, 13])
    assert busy.weighed(start, end, lambda time: 3.0 * time).tolist() == [42.0, 9.0, 6.0]
    assert busy.weighed(start, end, lambda time: np.minimum(time, 12.0)).tolist() == [6.0, 3.0, 1.0]
    nothing = np.empty(0, np.int64)
    assert BusyTime(nothing, nothing).weighed(start, end, lambda time: time).tolist() == [0.0, 0.0, 0.0]
