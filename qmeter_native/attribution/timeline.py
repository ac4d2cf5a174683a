"""Who had the device when: every nanosecond of a device shared among the kernels that ran in it, in exact integers.

A nanosecond in which n kernels run gives each 1/n. To stay in integers, a stretch of L ns between two events (a kernel
starts or ends, or a cut) gives each of its n kernels ``L // n``, and the remainder to the one that started earliest
(of equal starts, the lowest row). So the shares add up to the union of the intervals, to the nanosecond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BusyTime", "SharedTime", "share_time", "union_of"]

_Array = NDArray[Any]

_CHUNK_ROWS: Final = 1 << 19
"""Kernels shared at a time: bounds the memory of the sweep to about 100 MiB, and stays faster than larger chunks."""


@dataclass(frozen=True, slots=True)
class SharedTime:
    """Parts of kernels with the time that each was given. A kernel across a cut or a chunk has several parts.

    Attributes:
        row: int64, row of the kernel among those given to `share_time`.
        window: int64, number of the window (between cuts) in which the part lies.
        length_ns: int64, length of the part.
        shared_ns: int64, time given to the part; 0 for a part that others wholly outnumber.
        overlapped_ns: int64, time of the part in which others ran too.
        doubled_ns: Time in which two or more ran, counted once.
    """

    row: _Array
    window: _Array
    length_ns: _Array
    shared_ns: _Array
    overlapped_ns: _Array
    doubled_ns: int


def share_time(
    start_ns: _Array, end_ns: _Array, cuts_ns: _Array, is_counted: _Array | None = None
) -> Iterator[SharedTime]:
    """Share the time of one device among its kernels.

    Args:
        start_ns: int64, sorted.
        end_ns: int64, each at least the start.
        cuts_ns: int64, increasing, at least two. Only time between the first and the last counts; window ``w`` lies
            between cuts ``w`` and ``w + 1``.
        is_counted: Mask of the windows that count; all if None.

    Yields:
        The parts, chunk by chunk, in order of time. Kernels without length, or without any in a window that counts,
        have none.
    """
    carried = np.empty(0, np.int64)
    for first in range(0, len(start_ns), _CHUNK_ROWS):
        if start_ns[first] >= cuts_ns[-1]:
            return
        last = min(first + _CHUNK_ROWS, len(start_ns))
        row = np.concatenate([carried, np.arange(first, last)])
        from_ns = max(int(start_ns[first]), int(cuts_ns[0])) if first else int(cuts_ns[0])
        until_ns = min(int(start_ns[last]), int(cuts_ns[-1])) if last < len(start_ns) else int(cuts_ns[-1])
        start = np.maximum(start_ns[row], from_ns)
        end = np.minimum(end_ns[row], until_ns)
        carried = row[end_ns[row] > until_ns]
        is_inside = end > start
        if not is_inside.all():
            row, start, end = row[is_inside], start[is_inside], end[is_inside]
        if len(row):
            yield _share_chunk(row, start, end, cuts_ns, is_counted)


def _share_chunk(row: _Array, start: _Array, end: _Array, cuts_ns: _Array, is_counted: _Array | None) -> SharedTime:
    row, start, end, window = _cut(row, start, end, cuts_ns)
    if is_counted is not None:
        kept = is_counted[window]
        row, start, end, window = row[kept], start[kept], end[kept], window[kept]
    length = end - start
    shared, doubled = length, 0
    overlapped = np.zeros(len(row), np.int64)
    crowd = _crowd(start, end)
    if len(crowd):
        shared = length.copy()
        shared[crowd], overlapped[crowd], doubled = _sweep(start[crowd], end[crowd])
    return SharedTime(row, window, length, shared, overlapped, doubled)


def _cut(row: _Array, start: _Array, end: _Array, cuts_ns: _Array) -> tuple[_Array, _Array, _Array, _Array]:
    """Split what lies across a cut, keeping order of start; returns rows, starts, ends and windows of the parts."""
    window = np.searchsorted(cuts_ns, start, "right") - 1
    extra = np.searchsorted(cuts_ns, end, "left") - 1 - window
    if not extra.any():
        return row, start, end, window
    source = np.repeat(np.arange(len(row)), extra + 1)
    part = np.arange(len(source)) - np.repeat(np.cumsum(extra + 1) - extra - 1, extra + 1)
    window = window[source] + part
    start = np.maximum(start[source], cuts_ns[window])
    end = np.minimum(end[source], cuts_ns[window + 1])
    order = np.argsort(start, kind="stable")
    return row[source[order]], start[order], end[order], window[order]


def _crowd(start: _Array, end: _Array) -> _Array:
    """Positions of the intervals that overlap another one; ``start`` is sorted."""
    latest_end = np.maximum.accumulate(end)
    meets_next = latest_end[:-1] > start[1:]
    in_crowd = np.zeros(len(start), bool)
    in_crowd[1:] = meets_next
    in_crowd[:-1] |= meets_next
    return np.flatnonzero(in_crowd)


def _sweep(start: _Array, end: _Array) -> tuple[_Array, _Array, int]:
    """Shares and overlapped time of intervals sorted by start, and the time in which two or more ran.

    All is a difference of two running sums over the stretches between events: one of ``L // n``, one of L where n > 1.
    Whoever started earliest among those that run at time t is the first whose end is later than t, which is where the
    running maximum of the ends first exceeds t.
    """
    sorted_end = np.sort(end)
    event = np.concatenate([start, sorted_end])
    event.sort(kind="stable")
    length = np.diff(event)
    is_stretch = length > 0
    at, length = event[:-1][is_stretch], length[is_stretch]
    depth = np.searchsorted(start, at, "right") - np.searchsorted(sorted_end, at, "right")
    quotient, remainder = np.divmod(length, np.maximum(depth, 1))
    quotient[depth == 0] = 0
    remainder[depth == 0] = 0
    crowded = np.where(depth > 1, length, 0)

    given = np.concatenate([[0], np.cumsum(quotient)])
    met = np.concatenate([[0], np.cumsum(crowded)])
    first, last = np.searchsorted(at, start), np.searchsorted(at, end)
    shared = given[last] - given[first]
    left = np.flatnonzero(remainder)
    earliest = np.searchsorted(np.maximum.accumulate(end), at[left], "right")
    shared += np.bincount(earliest, remainder[left], len(start)).astype(np.int64)
    return shared, met[last] - met[first], int(met[-1])


def union_of(start_ns: _Array, end_ns: _Array) -> tuple[_Array, _Array]:
    """Starts and ends of the union of intervals sorted by start, without empty ones."""
    if len(start_ns) == 0:
        return start_ns, end_ns
    latest_end = np.maximum.accumulate(end_ns)
    begins = np.concatenate([[True], start_ns[1:] > latest_end[:-1]])
    first = np.flatnonzero(begins)
    last = np.concatenate([first[1:], [len(start_ns)]]) - 1
    start, end = start_ns[first], latest_end[last]
    return start[end > start], end[end > start]


class BusyTime:
    """How long a device was busy before any moment, by the union of its kernels' intervals: independent of shares."""

    def __init__(self, start_ns: _Array, end_ns: _Array) -> None:
        """Of intervals sorted by start."""
        self._start, self._end = union_of(start_ns, end_ns)
        self._before_start = np.cumsum(self._end - self._start) - (self._end - self._start)

    def before(self, time_ns: _Array) -> _Array:
        """Busy nanoseconds before each of the given times."""
        if len(self._start) == 0:
            return np.zeros(len(time_ns), np.int64)
        index = np.searchsorted(self._start, time_ns, "right") - 1
        at = np.maximum(index, 0)
        inside = np.minimum(time_ns, self._end[at]) - self._start[at]
        return np.where(index >= 0, self._before_start[at] + inside, 0)

    def between(self, start_ns: _Array, end_ns: _Array) -> _Array:
        """Busy nanoseconds inside each of the given intervals."""
        return self.before(end_ns) - self.before(start_ns)

    def weighed(self, start_ns: _Array, end_ns: _Array, weigh: Callable[[_Array], _Array]) -> _Array:
        """The same, float64, where time counts by ``weigh``, a monotone map of times such as `SensorView.seen_ns`."""
        if len(start_ns) == 0:
            return np.zeros(0)
        first = max(int(np.searchsorted(self._start, start_ns.min(), "right")) - 1, 0)
        last = int(np.searchsorted(self._start, end_ns.max()))
        start, end = self._start[first:last], self._end[first:last]  # weighing is slow: only what is asked for
        if len(start) == 0:
            return np.zeros(len(start_ns))
        weights = weigh(end) - weigh(start)
        before = np.cumsum(weights) - weights

        def until(time_ns: _Array) -> _Array:
            index = np.searchsorted(start, time_ns, "right") - 1
            at = np.maximum(index, 0)
            inside = weigh(np.minimum(time_ns, end[at])) - weigh(start[at])
            return np.where(index >= 0, before[at] + inside, 0.0)

        return np.asarray(until(end_ns) - until(start_ns))
