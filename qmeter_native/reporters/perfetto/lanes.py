"""Slices on one Perfetto track must nest; those that overlap otherwise need another lane."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["pack_lanes"]

_Array = NDArray[Any]


def pack_lanes(start_ns: _Array, end_ns: _Array, *, may_nest: bool = False) -> _Array:
    """The lane of each slice, int32 from 0, so that no two slices of a lane overlap (or nest, if they may).

    Args:
        start_ns: int64, sorted.
        end_ns: int64.
        may_nest: Whether a slice may lie wholly inside another of its lane.
    """
    lanes = np.zeros(len(start_ns), np.int32)
    if len(start_ns) < 2:
        return lanes
    latest_end = np.maximum.accumulate(end_ns)
    overlaps = start_ns[1:] < latest_end[:-1]
    if not overlaps.any():
        return lanes  # the usual case: a stream runs one kernel at a time
    starts, ends = start_ns.tolist(), end_ns.tolist()
    open_ends: list[list[int]] = []  # of each lane, the ends of the slices that are open, the innermost last
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        lane = next((lane for lane, stack in enumerate(open_ends) if _has_room(stack, start, end, may_nest)), None)
        if lane is None:
            lane = len(open_ends)
            open_ends.append([])
        open_ends[lane].append(end)
        lanes[row] = lane
    return lanes


def _has_room(stack: list[int], start: int, end: int, may_nest: bool) -> bool:
    while stack and stack[-1] <= start:
        stack.pop()
    return not stack or (may_nest and end <= stack[-1])
