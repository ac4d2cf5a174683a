"""Whether hardware counters and kernels are stamped alike: the shift at which the one fits the other best."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.counter_samples import CounterSamples
from qmeter_native.attribution.kernel_counters import kernel_counters
from qmeter_native.attribution.student_t import t_quantile_975
from qmeter_native.attribution.timeline import BusyTime
from qmeter_native.model.capture import Capture
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.tables import CounterTable
from qmeter_native.units import NS_PER_S

__all__ = ["stamp_lag_ns"]

_Array = NDArray[Any]

_REACH_NS: Final = 200_000
"""Searched to both sides, and at least 4 sample intervals."""
_COARSE: Final = 8
"""Steps of the first search in an interval."""
_MAX_STEPS: Final = 12
_CLOSE_NS: Final = 5.0
_GROUPS: Final = 16
"""Stretches of time whose own lags give the interval."""
_MIN_SAMPLES: Final = 400


def stamp_lag_ns(capture: Capture, device: int) -> Estimate:
    """By how many nanoseconds samples are stamped later than the kernels whose work they hold.

    A first search takes the shift of the samples that maximises the correlation of SM-active cycles with the time in
    which any kernel ran. Then classes get their own rates, and the shift is moved until what the samples hold beyond
    those rates no longer goes with the rates at their edges. The 95 % interval comes from 16 stretches of the samples.
    Kernels of one rate that run without a gap have no edge to be found by.
    """
    table = capture.counters
    is_active = (table.device == device) & (table.quantity == CounterQuantity.SM_ACTIVE_CYCLES)
    active = replace(capture, counters=table.take(is_active))
    samples = CounterSamples.of(active, device)
    if samples is None or len(samples) < _MIN_SAMPLES:
        return Estimate.missing(f"{0 if samples is None else len(samples)} samples of SM activity are too few")
    found = _search(active, device, _rough_lag(samples, active, device))
    if found is None:
        return Estimate.missing("no kernels, or none with gaps or rates that samples could be matched to")
    lag_ns, half_ns = found
    return Estimate(lag_ns, lag_ns - half_ns, lag_ns + half_ns, "attributed: SM activity matched with kernels")


def _search(active: Capture, device: int, lag_ns: float) -> tuple[float, float] | None:
    """The lag and the half-width of its interval: root of the step by the secant method, from a rough lag."""
    slope, half_ns, before = -1.0, 0.0, None
    for _ in range(_MAX_STEPS):
        steps_ns = _steps(_shifted(active, -round(lag_ns)), device)
        if steps_ns is None:
            return None
        step_ns = float(steps_ns.mean())
        if before is not None and before[0] != lag_ns:
            slope = min(max((step_ns - before[1]) / (lag_ns - before[0]), -2.0), -0.2)
        before = (lag_ns, step_ns)
        lag_ns -= step_ns / slope
        half_ns = t_quantile_975(_GROUPS - 1) * float(steps_ns.std(ddof=1)) / _GROUPS**0.5 / -slope
        if abs(step_ns) < _CLOSE_NS:
            break
    return lag_ns, half_ns


def _shifted(capture: Capture, shift_ns: int) -> Capture:
    columns = {spec.name: getattr(capture.counters, spec.name) for spec in CounterTable.columns()}
    moved = {name: columns[name] + shift_ns for name in ("start_ns", "end_ns")}
    return replace(capture, counters=CounterTable.from_columns(**columns | moved))


def _rough_lag(samples: CounterSamples, active: Capture, device: int) -> float:
    rows = np.flatnonzero(active.kernels.device == device)
    busy = BusyTime(active.kernels.start_ns[rows], active.kernels.end_ns[rows])
    rate = samples.value[:, 0] / samples.length_s
    interval_ns = float(np.median(samples.end_ns - samples.start_ns))
    reach = round(_COARSE * max(4.0, _REACH_NS / interval_ns))
    shifts = (np.arange(-reach, reach + 1) * interval_ns / _COARSE).round()
    likeness = [_likeness(samples, rate - rate.mean(), busy, int(shift)) for shift in shifts]
    return float(shifts[int(np.argmax(likeness))])


def _likeness(samples: CounterSamples, rate: _Array, busy: BusyTime, shift_ns: int) -> float:
    """Covariance over deviation of rate with busy time, the samples taken ``shift_ns`` earlier."""
    load = busy.between(samples.start_ns - shift_ns, samples.end_ns - shift_ns) / samples.length_s
    load = load - load.mean()
    size = float(np.sqrt(np.square(load).sum()))
    return float((load * rate).sum()) / size if size > 0 else 0.0


def _steps(active: Capture, device: int) -> _Array | None:
    """float64 (16,), by how much each stretch of the samples wants the lag to be larger, in nanoseconds.

    A sample that in truth lies earlier by d holds, to first order, d times the rate at its start less the rate at its
    end more than its stamps say.
    """
    counters, samples = kernel_counters(active, device), CounterSamples.of(active, device)
    if counters is None or samples is None or not counters.is_measured.any():
        return None
    kernels = active.kernels
    rows = np.flatnonzero(kernels.device == device)
    rate = counters.per_launch[:, 0] / np.where(counters.mean_s > 0, counters.mean_s, 1.0) / NS_PER_S
    course = _Course.of(
        kernels.start_ns[rows], kernels.end_ns[rows], rate[kernels.class_id[rows]], counters.background[0] / NS_PER_S
    )
    edge = course.rate(samples.start_ns) - course.rate(samples.end_ns)
    excess = samples.value[:, 0] - (course.total(samples.end_ns) - course.total(samples.start_ns))
    groups = np.array_split(np.arange(len(samples)), _GROUPS)
    squares = float(edge @ edge) / _GROUPS
    if squares <= 1e-6 * float(np.square(rate[kernels.class_id[rows]]).mean()) * len(samples) / _GROUPS:
        return None
    return np.array([edge[group] @ excess[group] for group in groups]) / squares


@dataclass(frozen=True, slots=True)
class _Course:
    """The fitted rate of a device as a function of time: steps at ``time_ns``, counts a nanosecond."""

    time_ns: _Array
    rate_after: _Array
    before: _Array
    background: float

    @classmethod
    def of(cls, start_ns: _Array, end_ns: _Array, rate: _Array, background: float) -> _Course:
        """Of kernels and their rates; the background's while none runs."""
        event = np.concatenate([start_ns, end_ns])
        order = np.argsort(event, kind="stable")
        running = np.cumsum(np.repeat([1, -1], len(start_ns))[order])
        rate_after = np.where(running == 0, background, np.cumsum(np.concatenate([rate, -rate])[order]))
        time_ns = event[order]
        counts = np.concatenate([[0.0], np.cumsum(rate_after[:-1] * np.diff(time_ns))])
        return cls(time_ns, rate_after, counts, background)

    def rate(self, time_ns: _Array) -> _Array:
        """Rate at each time."""
        index = np.searchsorted(self.time_ns, time_ns, "right") - 1
        return np.where(index >= 0, self.rate_after[np.maximum(index, 0)], self.background)

    def total(self, time_ns: _Array) -> _Array:
        """Counts from the first step to each time; negative before it."""
        index = np.maximum(np.searchsorted(self.time_ns, time_ns, "right") - 1, 0)
        total: _Array = self.before[index] + (time_ns - self.time_ns[index]) * self.rate(time_ns)
        return total
