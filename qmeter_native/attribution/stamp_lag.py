"""Whether hardware counters and kernels are stamped alike: the shift at which the one fits the other best."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.counter_samples import CounterSamples
from qmeter_native.attribution.kernel_overlap import KernelOverlap
from qmeter_native.attribution.student_t import t_quantile_975
from qmeter_native.model.capture import Capture
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.tables import KernelTable
from qmeter_native.units import NS_PER_S

__all__ = ["stamp_lag_ns"]

_Array = NDArray[Any]

_REACH_NS: Final = 200_000
"""Searched to both sides, and at least 4 sample intervals."""
_COARSE: Final = 8
"""Steps of the first search in an interval."""
_COARSE_SAMPLES: Final = 4_000
"""Samples that the first search looks at."""
_MAX_STEPS: Final = 20
_CLOSE_NS: Final = 2.0
_GROUPS: Final = 16
"""Stretches of time whose own deviations give the interval."""
_MIN_SAMPLES: Final = 400
_MAX_CLASSES: Final = 24
"""Classes with a rate of their own, those that ran longest; all others share one."""
_MIN_EDGE: Final = 1e-6
"""Least mean square of the edges in samples, over that of the rates."""


def stamp_lag_ns(capture: Capture, device: int) -> Estimate:
    """By how many nanoseconds samples are stamped later than the kernels whose work they hold.

    SM-active cycles of a sample are the sum over classes of the time they ran in it times a rate of the class, once the
    kernels are moved by the lag: least squares over rates and lag, by Gauss and Newton's method from the best of a
    first search. Activity that rises after a kernel's beginning and falls as long before its end moves nothing. The
    95 % interval comes from 16 stretches of the samples. Kernels of one rate that run without a gap have no edge to be
    found by; and of long kernels, whose last blocks end one by one, the lag is that of the middle of the fall.
    """
    table = capture.counters
    is_active = (table.device == device) & (table.quantity == CounterQuantity.SM_ACTIVE_CYCLES)
    samples = CounterSamples.of(_with_counters(capture, is_active), device)
    if samples is None or len(samples) < _MIN_SAMPLES:
        return Estimate.missing(f"{0 if samples is None else len(samples)} samples of SM activity are too few")
    kernels = capture.kernels.take(np.flatnonzero(capture.kernels.device == device))
    found = _search(kernels, samples) if len(kernels) else None
    if found is None:
        return Estimate.missing("no kernels, or none with gaps or rates that samples could be matched to")
    lag_ns, half_ns = found
    return Estimate(lag_ns, lag_ns - half_ns, lag_ns + half_ns, "attributed: SM activity matched with kernels")


def _with_counters(capture: Capture, rows: _Array) -> Capture:
    return replace(capture, counters=capture.counters.take(rows))


def _search(kernels: KernelTable, samples: CounterSamples) -> tuple[float, float] | None:
    """The lag and the half-width of its interval; None if nothing tells of it."""
    interval_ns = float(np.median(samples.end_ns - samples.start_ns))
    lag_ns = _rough_lag(_Match.of(kernels, samples, _COARSE_SAMPLES), interval_ns)
    match = _Match.of(kernels, samples, len(samples))
    half_ns = 0.0
    for _ in range(_MAX_STEPS):
        step = match.step(lag_ns)
        if step is None:
            return None
        step_ns, half_ns = step
        lag_ns += float(np.clip(step_ns, -interval_ns / 4, interval_ns / 4))
        if abs(step_ns) < _CLOSE_NS:
            break
    return lag_ns, half_ns


def _rough_lag(match: _Match, interval_ns: float) -> float:
    reach = round(_COARSE * max(4.0, _REACH_NS / interval_ns))
    lags_ns = (np.arange(-reach, reach + 1) * interval_ns / _COARSE).round()
    squares = [float(np.square(match.fit(float(lag_ns))[2]).sum()) for lag_ns in lags_ns]
    return float(lags_ns[int(np.argmin(squares))])


@dataclass(frozen=True, slots=True)
class _Match:
    """Kernels (N) of ``num_columns`` columns, and what samples (S) counted."""

    start_ns: _Array
    end_ns: _Array
    column: _Array
    num_columns: int
    sample_start_ns: _Array
    sample_end_ns: _Array
    value: _Array

    @classmethod
    def of(cls, kernels: KernelTable, samples: CounterSamples, most: int) -> _Match:
        """With at most ``most`` samples, the first ones."""
        time_ns = np.bincount(kernels.class_id, kernels.end_ns - kernels.start_ns)
        longest = np.argsort(-time_ns, kind="stable")[:_MAX_CLASSES]
        column = np.full(len(time_ns), len(longest))
        column[longest] = np.arange(len(longest))
        return cls(
            start_ns=kernels.start_ns,
            end_ns=kernels.end_ns,
            column=column[kernels.class_id],
            num_columns=len(longest) + 1,
            sample_start_ns=samples.start_ns[:most],
            sample_end_ns=samples.end_ns[:most],
            value=samples.value[:most, 0],
        )

    def fit(self, lag_ns: float) -> tuple[_Array, _Array, _Array]:
        """Seconds of each column in each sample, the last column's without a kernel; counts a second; residuals."""
        lag = round(lag_ns)
        overlap = KernelOverlap((self.start_ns + lag, self.end_ns + lag), (self.sample_start_ns, self.sample_end_ns))
        seconds = overlap.block(self.column, self.num_columns, 0, len(self.value))
        rate = _solved(seconds, self.value)
        return seconds, rate, self.value - seconds @ rate

    def step(self, lag_ns: float) -> tuple[float, float] | None:
        """By how much the lag should be larger, in nanoseconds, and the half-width of its interval.

        A sample holds, for each nanosecond by which the lag grows, the rate at its start less the rate at its end more.
        What of this goes with other rates of the columns tells nothing.
        """
        seconds, rate, excess = self.fit(lag_ns)
        edge = (
            self._rate(rate, self.sample_start_ns - lag_ns) - self._rate(rate, self.sample_end_ns - lag_ns)
        ) / NS_PER_S
        edge = edge - seconds @ _solved(seconds, edge)
        squares = float(edge @ edge)
        if squares <= _MIN_EDGE * len(edge) * (float(np.abs(rate).max()) / NS_PER_S) ** 2:
            return None
        step_ns = float(edge @ excess) / squares
        groups = np.array_split(edge * (excess - step_ns * edge), _GROUPS)
        scores = np.array([group.sum() for group in groups])
        error_ns = float(np.sqrt(np.square(scores).sum() * _GROUPS / (_GROUPS - 1))) / squares
        return step_ns, t_quantile_975(_GROUPS - 1) * error_ns

    def _rate(self, rate: _Array, time_ns: _Array) -> _Array:
        """Counts a second at each time, on the clock of kernels: the sum of what runs, else the background."""
        own = rate[self.column]
        event_ns = np.concatenate([self.start_ns, self.end_ns])
        order = np.argsort(event_ns, kind="stable")
        running = np.cumsum(np.repeat([1, -1], len(own))[order])
        after = np.where(running == 0, rate[-1], np.cumsum(np.concatenate([own, -own])[order]))
        index = np.searchsorted(event_ns[order], time_ns, "right") - 1
        return np.where(index >= 0, after[np.maximum(index, 0)], rate[-1])


def _solved(seconds: _Array, value: _Array) -> _Array:
    """Least squares; columns that no sample has any of are 0."""
    gram = seconds.T @ seconds
    solution: _Array = np.linalg.lstsq(gram, seconds.T @ value, rcond=1e-12)[0]
    return solution
