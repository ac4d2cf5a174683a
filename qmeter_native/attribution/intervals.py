"""Sets of time: disjoint intervals in order, and what remains of them inside or outside each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.timeline import union_of

__all__ = ["Intervals"]

_Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Intervals:
    """A set of nanoseconds.

    Attributes:
        start_ns: int64, increasing.
        end_ns: int64, each above its start and below the next start.
    """

    start_ns: _Array
    end_ns: _Array

    @classmethod
    def of(cls, start_ns: _Array, end_ns: _Array) -> Intervals:
        """Union of any intervals; empty and reversed ones are nothing."""
        is_some = end_ns > start_ns
        start_ns, end_ns = start_ns[is_some], end_ns[is_some]
        order = np.argsort(start_ns, kind="stable")
        return cls(*union_of(start_ns[order], end_ns[order]))

    @classmethod
    def whole(cls, start_ns: int, end_ns: int) -> Intervals:
        """One interval; empty if it has no length."""
        return cls.of(np.array([start_ns], np.int64), np.array([end_ns], np.int64))

    def __len__(self) -> int:
        return len(self.start_ns)

    @property
    def total_ns(self) -> int:
        """Length of all."""
        return int((self.end_ns - self.start_ns).sum())

    def find(self, time_ns: _Array) -> _Array:
        """int64, the interval in which each time lies; -1 for none."""
        if len(self) == 0:
            return np.full(len(time_ns), -1, np.int64)
        index = np.searchsorted(self.start_ns, time_ns, "right") - 1
        return np.where((index >= 0) & (time_ns < self.end_ns[np.maximum(index, 0)]), index, -1)

    def contains(self, time_ns: _Array) -> _Array:
        """Mask of the times that lie inside."""
        return self.find(time_ns) >= 0

    def clipped(self, start_ns: int, end_ns: int) -> Intervals:
        """The part from ``start_ns`` to ``end_ns``."""
        return Intervals.of(np.maximum(self.start_ns, start_ns), np.minimum(self.end_ns, end_ns))

    def intersect(self, other: Intervals) -> Intervals:
        """What lies in both."""
        return self._where(other, is_inside=True)

    def minus(self, other: Intervals) -> Intervals:
        """What lies in this and not in ``other``."""
        return self._where(other, is_inside=False)

    def _where(self, other: Intervals, is_inside: bool) -> Intervals:
        edges = np.unique(np.concatenate([self.start_ns, self.end_ns, other.start_ns, other.end_ns]))
        start, end = edges[:-1], edges[1:]
        kept = self.contains(start) & (other.contains(start) == is_inside)
        return Intervals.of(start[kept], end[kept])
