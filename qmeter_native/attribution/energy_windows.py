"""What the sensor saw: a device's energy, window by window, over exactly the measured window.

The counter is read best where it changes: between two edges the energy is known to the millijoule, and only the edges'
times are uncertain, by the brackets in which they were seen. At the two ends of the measured window, which fall
between edges, the counter is interpolated along the power readings if there are any, else along a straight line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.model.capture import Capture
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.manifest import DeviceInfo
from qmeter_native.units import NS_PER_S, UJ_PER_J, mw_to_w

__all__ = ["EnergyWindows", "energy_windows"]

_Array = NDArray[Any]

_COUNTERS: Final = {EnergySource.NVML_TOTAL_ENERGY: "NVML energy counter", EnergySource.RAPL: "RAPL energy counter"}
_POWERS: Final = {
    EnergySource.NVML_POWER_SAMPLES: "integral of the driver's power samples",
    EnergySource.NVML_POWER_INSTANT: "integral of instantaneous power readings",
}
_BOARD_GAIN: Final = 0.05
"""NVML's sensors differ by up to 5 % from board to board (Yang, Adámek, Armour, SC'24)."""
_POWER_WINDOW_NS: Final = NS_PER_S
"""Windows of integrated power: long against the 20 to 27 ms by which samples lag and the 25 to 100 ms they average."""
_MIN_COVERAGE: Final = 0.5
"""Part of the measured window that readings must span; below it a figure would be an extrapolation."""


@dataclass(frozen=True, slots=True)
class EnergyWindows:
    """Energy of one device.

    Attributes:
        cuts_ns: int64, bounds of the windows, from the start to the end of the measured window.
        slack_ns: float64, by how much each bound's time is uncertain.
        energy_j: float64, energy of each window; None if there is no source.
        source: What was read, in words.
        reason: Why ``energy_j`` is None, or what weakens it.
        systematic: Relative error that does not shrink with repeats; None if not known.
    """

    cuts_ns: _Array
    slack_ns: _Array
    energy_j: _Array | None
    source: str
    reason: str | None = None
    systematic: float | None = None


@dataclass(frozen=True, slots=True)
class _Curve:
    """Cumulative joules at some times, with the slack of each time."""

    time_ns: _Array
    energy_j: _Array
    slack_ns: _Array


def energy_windows(capture: Capture, device: DeviceInfo) -> EnergyWindows:
    """The energy of ``device`` in the measured window: by its counter, else by its power readings, else missing."""
    start_ns, end_ns = capture.manifest.measure_start_ns, capture.manifest.measure_end_ns
    powers = {source: _power_curve(capture, device.index, source) for source in _POWERS}
    shape = next((curve for curve in powers.values() if curve is not None), None)
    for source, name in _COUNTERS.items():
        counter = _counter_curve(capture, device.index, source)
        if counter is not None and _coverage(counter, start_ns, end_ns) >= _MIN_COVERAGE:
            systematic = _BOARD_GAIN if source is EnergySource.NVML_TOTAL_ENERGY else None
            return _windows_of_counter(counter, shape, start_ns, end_ns, name, systematic)
    for source, name in _POWERS.items():
        curve = powers[source]
        if curve is not None and _coverage(curve, start_ns, end_ns) >= _MIN_COVERAGE:
            return _windows_of_power(curve, start_ns, end_ns, name)
    return EnergyWindows(
        cuts_ns=np.array([start_ns, end_ns]),
        slack_ns=np.zeros(2),
        energy_j=None,
        source="none",
        reason=device.energy_absent_reason or "no energy or power reading covers the measured window",
    )


def _counter_curve(capture: Capture, device: int, source: EnergySource) -> _Curve | None:
    """Edges in the middle of their brackets, in order; an edge that would run time or energy backwards is left out."""
    table = capture.energy
    rows = np.flatnonzero((table.device == device) & (table.source == source))
    rows = rows[np.argsort(table.high_ns[rows], kind="stable")]
    low_ns, high_ns = table.low_ns[rows], table.high_ns[rows]
    time_ns, energy_uj = low_ns + (high_ns - low_ns) // 2, table.energy_uj[rows]
    is_forward = np.ones(len(rows), bool)
    is_forward[1:] = (time_ns[1:] > np.maximum.accumulate(time_ns)[:-1]) & (
        energy_uj[1:] >= np.maximum.accumulate(energy_uj)[:-1]
    )
    if is_forward.sum() < 2:
        return None
    slack_ns = (high_ns - low_ns) / 2
    return _Curve(time_ns[is_forward], energy_uj[is_forward] / UJ_PER_J, slack_ns[is_forward])


def _power_curve(capture: Capture, device: int, source: EnergySource) -> _Curve | None:
    """Integral of the readings by the trapezoid rule; the slack is the time between two readings."""
    table = capture.power
    rows = np.flatnonzero((table.device == device) & (table.source == source))
    time_ns, first = np.unique(table.time_ns[rows], return_index=True)
    if len(time_ns) < 2:
        return None
    power_w = table.power_mw[rows[first]] * mw_to_w(1)
    pieces_j = (power_w[1:] + power_w[:-1]) / 2 * np.diff(time_ns) / NS_PER_S
    slack_ns = np.full(len(time_ns), float(np.median(np.diff(time_ns))))
    return _Curve(time_ns, np.concatenate([[0.0], np.cumsum(pieces_j)]), slack_ns)


def _coverage(curve: _Curve, start_ns: int, end_ns: int) -> float:
    covered = min(int(curve.time_ns[-1]), end_ns) - max(int(curve.time_ns[0]), start_ns)
    return covered / max(end_ns - start_ns, 1)


def _at(curve: _Curve, time_ns: _Array) -> _Array:
    """Cumulative joules at any time; outside the curve the first and last slope go on."""
    origin = int(curve.time_ns[0])
    times, wanted = (curve.time_ns - origin).astype(float), (time_ns - origin).astype(float)
    slope = np.diff(curve.energy_j) / np.diff(times)
    inside = np.interp(wanted, times, curve.energy_j)
    beyond = np.maximum(wanted - times[-1], 0) * slope[-1] + np.minimum(wanted - times[0], 0) * slope[0]
    return np.asarray(inside + beyond)


def _windows_of_counter(
    counter: _Curve, shape: _Curve | None, start_ns: int, end_ns: int, name: str, systematic: float | None
) -> EnergyWindows:
    is_inner = (counter.time_ns > start_ns) & (counter.time_ns < end_ns)
    ends = np.array([start_ns, end_ns])
    ends_j = _at(counter, ends) if shape is None else _along(counter, shape, ends)
    distance = np.abs(counter.time_ns[:, None] - ends).min(axis=0)
    ends_slack = distance if shape is None else np.minimum(distance, shape.slack_ns[0])
    energy_j = np.concatenate([ends_j[:1], counter.energy_j[is_inner], ends_j[1:]])
    return EnergyWindows(
        cuts_ns=np.concatenate([ends[:1], counter.time_ns[is_inner], ends[1:]]),
        slack_ns=np.concatenate([ends_slack[:1], counter.slack_ns[is_inner], ends_slack[1:]]),
        energy_j=np.maximum(np.diff(energy_j), 0.0),
        source=name,
        systematic=systematic,
    )


def _along(counter: _Curve, shape: _Curve, time_ns: _Array) -> _Array:
    """The counter between its edges, shaped by power readings: their integral is scaled to meet each edge."""
    shape_j = _at(shape, counter.time_ns)
    wanted_j = _at(shape, time_ns)
    if np.any(np.diff(shape_j) <= 0):
        return _at(counter, time_ns)
    inside = np.interp(wanted_j, shape_j, counter.energy_j)
    beyond = np.maximum(wanted_j - shape_j[-1], 0) + np.minimum(wanted_j - shape_j[0], 0)
    return np.asarray(inside + beyond)


def _windows_of_power(curve: _Curve, start_ns: int, end_ns: int, name: str) -> EnergyWindows:
    count = max(1, (end_ns - start_ns) // _POWER_WINDOW_NS)
    cuts_ns = np.linspace(0, end_ns - start_ns, count + 1).round().astype(np.int64) + start_ns
    coverage = _coverage(curve, start_ns, end_ns)
    return EnergyWindows(
        cuts_ns=cuts_ns,
        slack_ns=np.full(len(cuts_ns), curve.slack_ns[0]),
        energy_j=np.maximum(np.diff(_at(curve, cuts_ns)), 0.0),
        source=name,
        reason=None if coverage > 0.95 else f"the readings span {coverage:.0%} of the measured window",
        systematic=_BOARD_GAIN,
    )
