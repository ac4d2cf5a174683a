"""How long each kind of kernel ran in each sample, block by block of samples: the design matrix of counters."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.timeline import BusyTime
from qmeter_native.units import NS_PER_S

__all__ = ["KernelOverlap"]

_Array = NDArray[Any]


class KernelOverlap:
    """Kernels of one device against samples. Kernels that run at the same time each count all of it."""

    def __init__(self, kernel_ns: tuple[_Array, _Array], sample_ns: tuple[_Array, _Array]) -> None:
        """Find each kernel's samples.

        Args:
            kernel_ns: int64 (N,) starts, sorted, and ends.
            sample_ns: int64 (S,) starts and ends, disjoint and in order.
        """
        self._kernel_start, self._kernel_end = kernel_ns
        self._start, self._end = sample_ns
        self._first = np.searchsorted(self._end, self._kernel_start, "right")
        self._last = np.searchsorted(self._start, self._kernel_end, "left")
        self._latest = np.maximum.accumulate(self._last)
        self._busy = BusyTime(self._kernel_start, self._kernel_end)

    def block(self, column: _Array, num_columns: int, first: int, last: int) -> _Array:
        """Seconds that columns of kernels ran in samples ``first`` to ``last - 1``.

        Args:
            column: int64 (N,), the column each kernel belongs to, below ``num_columns``.
            num_columns: Columns of kernels.
            first: The first sample.
            last: The sample after the last.

        Returns:
            float64 (last - first, num_columns + 1); the last column is time in which no kernel ran.
        """
        width = num_columns + 1
        kernel, sample = self._parts(first, last)
        overlap = np.minimum(self._kernel_end[kernel], self._end[sample]) - np.maximum(
            self._kernel_start[kernel], self._start[sample]
        )
        cell = (sample - first) * width + column[kernel]
        seconds = np.bincount(cell, overlap / NS_PER_S, (last - first) * width).astype(float).reshape(-1, width)
        start, end = self._start[first:last], self._end[first:last]
        seconds[:, -1] = (end - start - self._busy.between(start, end)) / NS_PER_S
        return seconds

    def _parts(self, first: int, last: int) -> tuple[_Array, _Array]:
        """Pairs of a kernel and a sample between ``first`` and ``last`` that it ran in."""
        rows = np.arange(np.searchsorted(self._latest, first, "right"), np.searchsorted(self._first, last, "left"))
        begin = np.maximum(self._first[rows], first)
        count = np.maximum(np.minimum(self._last[rows], last) - begin, 0)
        ends = np.cumsum(count)
        sample = np.arange(ends[-1] if len(ends) else 0) + np.repeat(begin - (ends - count), count)
        return np.repeat(rows, count), sample
