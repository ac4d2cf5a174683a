"""Cumulative joules of a device, as its sensor saw them: what lies between any two moments, and how surely.

A counter is read best where it changes: between two edges the energy is known to the counter's quantum, and only the
edges' times are uncertain, by the brackets in which they were seen, or less where it ticks like a clock. Between edges
the counter is interpolated along the power readings if there are any, else along a straight line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.counter_ticks import CounterTicks
from qmeter_native.model.capture import Capture
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.units import NS_PER_S, UJ_PER_J, mw_to_w

__all__ = ["EnergyCurve", "memory_energy"]

_Array = NDArray[Any]

_COUNTERS: Final = {EnergySource.NVML_TOTAL_ENERGY: "NVML energy counter", EnergySource.RAPL: "RAPL energy counter"}
_POWERS: Final = {
    EnergySource.NVML_POWER_SAMPLES: "integral of the driver's power samples",
    EnergySource.NVML_POWER_INSTANT: "integral of instantaneous power readings",
}
_QUANTUM_J: Final = {EnergySource.NVML_TOTAL_ENERGY: 1e-3, EnergySource.RAPL: 61e-6}
"""Least difference of two counter values: NVML counts millijoules, RAPL 2^-14 J on most processors."""
_BOARD_GAIN: Final = 0.05
"""NVML's sensors differ by up to 5 % from board to board (Yang, Adámek, Armour, SC'24)."""
_POWER_BLUR_NS: Final = 50e6
"""Power samples lag by 20 to 27 ms and average over 25 to 100 ms, half of which blurs each bound of an integral."""
_MEMORY_MEAN_NS: Final = NS_PER_S
_MIN_MEMORY_COVERAGE: Final = 0.9
_MIN_COVERAGE: Final = 0.5
"""Part of the measured window that readings must span; below it a figure would be an extrapolation."""


@dataclass(frozen=True, slots=True)
class _Points:
    """Cumulative joules at some times, increasing, with the slack of each time in nanoseconds."""

    time_ns: _Array
    energy_j: _Array
    slack_ns: _Array

    def at(self, time_ns: _Array) -> _Array:
        """Cumulative joules at any time; outside the points the first and last slope go on."""
        origin = int(self.time_ns[0])
        times, wanted = (self.time_ns - origin).astype(float), (time_ns - origin).astype(float)
        slope = np.diff(self.energy_j) / np.diff(times)
        inside = np.interp(wanted, times, self.energy_j)
        beyond = np.maximum(wanted - times[-1], 0) * slope[-1] + np.minimum(wanted - times[0], 0) * slope[0]
        return np.asarray(inside + beyond)

    def coverage(self, start_ns: int, end_ns: int) -> float:
        covered = min(int(self.time_ns[-1]), end_ns) - max(int(self.time_ns[0]), start_ns)
        return covered / max(end_ns - start_ns, 1)


@dataclass(frozen=True, slots=True)
class EnergyCurve:
    """Cumulative joules of a device.

    Attributes:
        source: What was read, in words.
        systematic: Relative error that does not shrink with repeats; None if not known.
        coverage: Part of the measured window that the readings span.
        edge_ns: int64, times at which a counter was seen to change; empty for integrated power.
    """

    source: str
    systematic: float | None
    coverage: float
    edge_ns: _Array
    _points: _Points
    _shape: _Points | None
    _quantum_j: float

    @classmethod
    def of(cls, capture: Capture, device: int, ticks: CounterTicks | None = None) -> EnergyCurve | None:
        """By the device's counter, else by its power readings; None if neither spans half of the measured window.

        ``ticks`` of its NVML counter tell when that changed more closely than the brackets of single edges.
        """
        start_ns, end_ns = capture.manifest.measure_start_ns, capture.manifest.measure_end_ns
        powers = {source: _power_points(capture, device, source) for source in _POWERS}
        shape = next((points for points in powers.values() if points is not None), None)
        for source, name in _COUNTERS.items():
            known = ticks if source is EnergySource.NVML_TOTAL_ENERGY else None
            counter = _counter_points(capture, device, source, known)
            if counter is not None and (coverage := counter.coverage(start_ns, end_ns)) >= _MIN_COVERAGE:
                gain = _BOARD_GAIN if source is EnergySource.NVML_TOTAL_ENERGY else None
                return cls(name, gain, coverage, counter.time_ns, counter, shape, _QUANTUM_J[source])
        for source, name in _POWERS.items():
            points = powers[source]
            if points is not None and (coverage := points.coverage(start_ns, end_ns)) >= _MIN_COVERAGE:
                return cls(name, _BOARD_GAIN, coverage, np.empty(0, np.int64), points, None, 0.0)
        return None

    def between(self, cuts_ns: _Array) -> tuple[_Array, _Array]:
        """Energy of the windows between cuts, and its standard error.

        Args:
            cuts_ns: int64 ``(n + 1,)``, increasing.

        Returns:
            Joules and the sensor's standard error in joules, float64 ``(n,)`` each. A bound whose time is uncertain by
            a slack errs by ``slack / sqrt(3)`` times the power there, as if uniformly distributed.
        """
        energy_j = np.maximum(np.diff(self._at(cuts_ns)), 0.0)
        bound_j = self.slack_ns(cuts_ns) / NS_PER_S / math.sqrt(3) * self._power_w(cuts_ns)
        quantisation = self._quantum_j**2 / 6  # of a difference of two values, each within half a quantum
        return energy_j, np.sqrt(bound_j[:-1] ** 2 + bound_j[1:] ** 2 + quantisation)

    def slack_ns(self, time_ns: _Array) -> _Array:
        """float64, by how much the time at which the curve has its value is uncertain."""
        times = self._points.time_ns
        if len(self.edge_ns) == 0:
            return np.full(len(time_ns), max(float(self._points.slack_ns[0]), _POWER_BLUR_NS))
        after = np.clip(np.searchsorted(times, time_ns), 1, len(times) - 1)
        nearest = np.where(time_ns - times[after - 1] <= times[after] - time_ns, after - 1, after)
        distance = np.abs(time_ns - times[nearest]).astype(float)
        if self._shape is not None:
            distance = np.minimum(distance, self._shape.slack_ns[0])
        return np.asarray(np.where(distance == 0, self._points.slack_ns[nearest], distance))

    def _at(self, time_ns: _Array) -> _Array:
        """Cumulative joules. Between edges the power readings' integral is scaled to meet each edge."""
        if self._shape is None:
            return self._points.at(time_ns)
        shape_j, wanted_j = self._shape.at(self._points.time_ns), self._shape.at(time_ns)
        if np.any(np.diff(shape_j) <= 0):
            return self._points.at(time_ns)
        inside = np.interp(wanted_j, shape_j, self._points.energy_j)
        beyond = np.maximum(wanted_j - shape_j[-1], 0) + np.minimum(wanted_j - shape_j[0], 0)
        return np.asarray(inside + beyond)

    def _power_w(self, time_ns: _Array) -> _Array:
        """Mean power from one typical distance of readings before each time to one after."""
        reach_ns = max(1, int(np.median(np.diff(self._points.time_ns))))
        gained_j = self._points.at(time_ns + reach_ns) - self._points.at(time_ns - reach_ns)
        return np.asarray(np.maximum(gained_j, 0.0) / (2 * reach_ns / NS_PER_S))


def memory_energy(capture: Capture, device: int) -> float | None:
    """Joules in the measured window by the device's memory-scope power; None where it was not read throughout.

    Each reading is a mean over the second before it, so it stands for the middle of that.
    """
    start_ns, end_ns = capture.manifest.measure_start_ns, capture.manifest.measure_end_ns
    points = _power_points(capture, device, EnergySource.NVML_POWER_MEMORY_AVERAGE)
    if points is None or points.coverage(start_ns, end_ns) < _MIN_MEMORY_COVERAGE:
        return None
    bounds = points.at(np.array([start_ns, end_ns]) + _MEMORY_MEAN_NS // 2)
    return float(bounds[1] - bounds[0])


def _counter_points(capture: Capture, device: int, source: EnergySource, ticks: CounterTicks | None) -> _Points | None:
    """Edges at their ticks, or in the middle of their brackets, in order.

    An edge that would run time or energy backwards is left out.
    """
    table = capture.energy
    rows = np.flatnonzero((table.device == device) & (table.source == source))
    rows = rows[np.argsort(table.high_ns[rows], kind="stable")]
    low_ns, high_ns = table.low_ns[rows], table.high_ns[rows]
    energy_uj = table.energy_uj[rows]
    time_ns, slack_ns = low_ns + (high_ns - low_ns) // 2, (high_ns - low_ns) / 2
    if ticks is not None:
        time_ns, slack_ns = _at_ticks(time_ns, slack_ns, ticks)
    is_forward = np.ones(len(rows), bool)
    is_forward[1:] = (time_ns[1:] > np.maximum.accumulate(time_ns)[:-1]) & (
        energy_uj[1:] >= np.maximum.accumulate(energy_uj)[:-1]
    )
    if is_forward.sum() < 2:
        return None
    return _Points(time_ns[is_forward], energy_uj[is_forward] / UJ_PER_J, slack_ns[is_forward])


def _at_ticks(time_ns: _Array, slack_ns: _Array, ticks: CounterTicks) -> tuple[_Array, _Array]:
    """Times of edges and their slack by their ticks, except of those that were seen elsewhere or more closely."""
    tick_ns, tick_slack_ns = ticks.time_ns[ticks.edge_tick], ticks.slack_ns[ticks.edge_tick]
    is_better = (np.abs(tick_ns - time_ns) <= slack_ns + tick_slack_ns) & (tick_slack_ns < slack_ns)
    return np.where(is_better, tick_ns, time_ns), np.where(is_better, tick_slack_ns, slack_ns)


def _power_points(capture: Capture, device: int, source: EnergySource) -> _Points | None:
    """Integral of the readings by the trapezoid rule; the slack is the time between two readings."""
    table = capture.power
    rows = np.flatnonzero((table.device == device) & (table.source == source))
    time_ns, first = np.unique(table.time_ns[rows], return_index=True)
    if len(time_ns) < 2:
        return None
    power_w = table.power_mw[rows[first]] * mw_to_w(1)
    pieces_j = (power_w[1:] + power_w[:-1]) / 2 * np.diff(time_ns) / NS_PER_S
    slack_ns = np.full(len(time_ns), float(np.median(np.diff(time_ns))))
    return _Points(time_ns, np.concatenate([[0.0], np.cumsum(pieces_j)]), slack_ns)
