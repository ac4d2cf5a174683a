"""What PM sampling counted on one device: a matrix of samples by quantities, on the clock of kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.intervals import Intervals
from qmeter_native.attribution.traced_time import traced_time
from qmeter_native.model.capture import Capture
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.units import NS_PER_S

__all__ = ["CounterSamples"]

_Array = NDArray[Any]

_LONGEST_SAMPLE: Final = 8
"""A sample this many times as long as the median one follows a loss: it says little about where its work was done."""


@dataclass(frozen=True, slots=True)
class CounterSamples:
    """Samples (S) in order of time, disjoint, each with all quantities (Q).

    Attributes:
        start_ns, end_ns: int64 (S,), when each sample began and ended.
        quantities: What the columns count.
        value: float64 (S, Q), what the whole device did in each sample.
    """

    start_ns: _Array
    end_ns: _Array
    quantities: tuple[CounterQuantity, ...]
    value: _Array

    def __len__(self) -> int:
        return len(self.start_ns)

    @classmethod
    def of(cls, capture: Capture, device: int) -> CounterSamples | None:
        """The samples of ``device`` that have every quantity and lie where its kernels were recorded; None if none."""
        table = capture.counters
        rows = np.flatnonzero(table.device == device)
        if len(rows) == 0:
            return None
        end_ns, sample, count = np.unique(table.end_ns[rows], return_inverse=True, return_counts=True)
        numbers, column = np.unique(table.quantity[rows], return_inverse=True)
        value = np.zeros((len(end_ns), len(numbers)))
        value[sample, column] = table.value[rows]
        start_ns = np.empty(len(end_ns), np.int64)
        start_ns[sample] = table.start_ns[rows]
        kept = (count == len(numbers)) & _is_plain(start_ns, end_ns) & _is_traced(start_ns, end_ns, capture, device)
        if not kept.any():
            return None
        quantities = tuple(CounterQuantity(int(number)) for number in numbers)
        return cls(start_ns[kept], end_ns[kept], quantities, value[kept])

    @property
    def length_s(self) -> _Array:
        """float64 (S,), length of each sample."""
        length_s: _Array = (self.end_ns - self.start_ns) / NS_PER_S
        return length_s

    def of_quantity(self, quantity: CounterQuantity) -> _Array | None:
        """float64 (S,), the column of a quantity; None if it was not sampled."""
        if quantity not in self.quantities:
            return None
        values: _Array = self.value[:, self.quantities.index(quantity)]
        return values


def _is_plain(start_ns: _Array, end_ns: _Array) -> _Array:
    """Mask of samples that begin no earlier than the one before ended and are not stretched over a loss."""
    length_ns = end_ns - start_ns
    is_plain: _Array = (length_ns > 0) & (length_ns <= _LONGEST_SAMPLE * np.median(length_ns))
    is_plain[1:] &= start_ns[1:] >= end_ns[:-1]
    return is_plain


def _is_traced(start_ns: _Array, end_ns: _Array, capture: Capture, device: int) -> _Array:
    """Mask of the samples that lie in one stretch of traced time and within one counter phase."""
    is_traced = _is_within(traced_time(capture, device), start_ns, end_ns)
    windows = capture.counter_windows
    is_window = windows.device == device
    if is_window.any():
        phases = Intervals.of(windows.enable_ns[is_window], windows.disable_ns[is_window])
        is_traced &= _is_within(phases, start_ns, end_ns)
    return is_traced


def _is_within(intervals: Intervals, start_ns: _Array, end_ns: _Array) -> _Array:
    found = intervals.find(start_ns)
    is_within: _Array = (found >= 0) & (found == intervals.find(end_ns - 1))
    return is_within
