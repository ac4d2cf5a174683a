"""How a GPU's energy sensor sees its power, from a capture in which square waves of load ran."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.counter_ticks import CounterTicks
from qmeter_native.attribution.intervals import Intervals
from qmeter_native.calibration.counter_looks import CounterIncrements, CounterLooks, fit_counter_looks
from qmeter_native.calibration.power_window import PowerWindow, fit_power_window
from qmeter_native.calibration.repeats import median_estimate
from qmeter_native.calibration.sensor_load import SensorWave
from qmeter_native.model.capture import Capture
from qmeter_native.model.device_profile import SensorModel
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.estimate import Estimate
from qmeter_native.units import NS_PER_S, UJ_PER_J, mw_to_w, ns_to_s

__all__ = ["sensor_model"]

_Array = NDArray[Any]

_FINEST_SHARE: Final = 1.5
"""Edges nearer to each other than this many of the shortest distances are one tick apart."""

_WINDOW_TICKS: Final = 12
"""1.2 s: a whole number of waves of 400 and of 150 ms."""

_DEFAULT_WINDOW_ERROR: Final = 0.01
_SETTLE_S: Final = 0.2
"""Of each wave: the first readings are of what was before."""

_Z: Final = 1.96


@dataclass(frozen=True, slots=True)
class _Ticks:
    """Edges of the counter on the grid of its ticks: number of each, its cumulative joules, and the grid."""

    number: _Array
    energy_j: _Array
    time_ns: _Array
    tick_s: float
    error_s: float


def sensor_model(capture: Capture, device: int) -> SensorModel:
    """What the sensor of ``device`` is like; figures that the capture does not tell are missing, with the reason."""
    waves = _waves(capture)
    ticks = _ticks(capture, device)
    window = _power_window(capture, device, waves)
    looks, rest = _counter_looks(capture, device, ticks, waves)
    return SensorModel(
        tick_s=_tick_estimate(ticks),
        power_sample_s=_power_sample(capture, device),
        window_s=window.window_s,
        lag_s=window.lag_s,
        counter_call_s=_counter_call(capture, device),
        phase_error=_phase_error([_mean_power(ticks, start, end) for wave, start, end in waves if wave.is_pulses]),
        window_error=_window_error(ticks, waves),
        counter_look_s=looks.look_s,
        counter_time_constant_s=looks.time_constant_s,
        counter_lag_s=looks.lag_s,
        phase_error_seen=_phase_error(rest),
    )


def _waves(capture: Capture) -> list[tuple[SensorWave, int, int]]:
    """Each wave with the start and end of its range."""
    table = capture.ranges
    named = zip(table.name, table.start_ns, table.end_ns, strict=True)
    found = [(SensorWave.of_range(str(name)), int(start), int(end)) for name, start, end in named]
    return [(wave, start, end) for wave, start, end in found if wave is not None]


def _ticks(capture: Capture, device: int) -> _Ticks | None:
    """The counter's edges, numbered; None if there are too few."""
    table = capture.energy
    rows = np.flatnonzero((table.device == device) & (table.source == EnergySource.NVML_TOTAL_ENERGY))
    rows = rows[np.argsort(table.high_ns[rows], kind="stable")]
    if len(rows) < 4:
        return None
    time_ns = table.low_ns[rows] + (table.high_ns[rows] - table.low_ns[rows]) // 2
    time_s = (time_ns - time_ns[0]) / NS_PER_S
    steps = np.diff(time_s)
    tick_s = float(np.median(steps[steps < _FINEST_SHARE * np.percentile(steps, 5)]))
    number = np.concatenate([[0.0], np.cumsum(np.round(steps / tick_s))])
    tick_s, error_s = _slope(number, time_s)
    return _Ticks(number.astype(np.int64), table.energy_uj[rows] / UJ_PER_J, time_ns, tick_s, error_s)


def _slope(x: _Array, y: _Array) -> tuple[float, float]:
    """Least squares of ``y`` on ``x``, and the slope's standard error."""
    centred = x - x.mean()
    square = max(float(centred @ centred), 1e-12)
    slope = float(centred @ y) / square
    rest = y - y.mean() - slope * centred
    return slope, math.sqrt(float(rest @ rest) / max(len(x) - 2, 1) / square)


def _tick_estimate(ticks: _Ticks | None) -> Estimate:
    if ticks is None:
        return Estimate.missing("fewer than four changes of the energy counter were seen")
    half = _Z * ticks.error_s
    return Estimate(ticks.tick_s, ticks.tick_s - half, ticks.tick_s + half, "measured: counter edges")


def _power_rows(capture: Capture, device: int) -> _Array:
    table = capture.power
    return np.flatnonzero((table.device == device) & (table.source == EnergySource.NVML_POWER_SAMPLES))


def _power_sample(capture: Capture, device: int) -> Estimate:
    stamps = np.unique(capture.power.time_ns[_power_rows(capture, device)])
    if len(stamps) < 2:
        return Estimate.missing("the driver gives no power samples of its own")
    return median_estimate((np.diff(stamps) / NS_PER_S).tolist(), "measured: the driver's stamps")


def _power_window(capture: Capture, device: int, waves: list[tuple[SensorWave, int, int]]) -> PowerWindow:
    """From the waves that are longer than a tick: pulses at the ticks' own pace say little about a window."""
    rows = _power_rows(capture, device)
    time_ns, power_w = capture.power.time_ns[rows], capture.power.power_mw[rows] * mw_to_w(1)
    settle_ns = int(_SETTLE_S * NS_PER_S)
    squares = [(start + settle_ns, end) for wave, start, end in waves if wave.is_square]
    inside = np.zeros(len(time_ns), bool)
    for start_ns, end_ns in squares:
        inside |= (time_ns >= start_ns) & (time_ns < end_ns)
    return fit_power_window(time_ns[inside], power_w[inside], _busy(capture, device))


def _counter_call(capture: Capture, device: int) -> Estimate:
    for info in capture.manifest.devices:
        cost_ns = info.properties.get("readings", {}).get("total_energy", {}).get("call_cost_ns")
        if info.index == device and cost_ns is not None:
            return Estimate(ns_to_s(cost_ns), method="measured: first calls")
    return Estimate.missing("the sampler did not time its calls")


def _counter_looks(
    capture: Capture, device: int, ticks: _Ticks | None, waves: list[tuple[SensorWave, int, int]]
) -> tuple[CounterLooks, list[float | None]]:
    """How the counter samples power, and its mean power of each train of pulses were it of one phase."""
    known = None if ticks is None else CounterTicks.of(capture, device, ticks.tick_s)
    if ticks is None or known is None:
        return CounterLooks.missing("the counter does not tick like a clock"), []
    if not any(wave.is_sweep for wave, _, _ in waves):
        return CounterLooks.missing("no load ran that looks of a counter meet at all phases"), []
    edge_ns = known.time_ns[known.edge_tick]
    kinds = list(dict.fromkeys((wave.period_s, wave.duty) for wave, _, _ in waves))
    inside = [
        (edge_ns[:-1] >= start) & (edge_ns[1:] <= end) & (np.diff(known.edge_tick) > 0) for _, start, end in waves
    ]
    edge = np.concatenate([np.flatnonzero(mask) for mask in inside])
    number = np.repeat(np.arange(len(waves)), [int(mask.sum()) for mask in inside])
    tick = np.column_stack([known.edge_tick[edge], known.edge_tick[edge + 1]])
    power_w = np.diff(ticks.energy_j)[edge] / (np.diff(tick, axis=1)[:, 0] * known.period_s)
    kind = np.array([kinds.index((wave.period_s, wave.duty)) for wave, _, _ in waves], np.int64)
    looks = fit_counter_looks(known, CounterIncrements(tick, power_w, kind[number]), _busy(capture, device))
    if len(looks.rest_w) == 0:
        return looks, []
    pulses = [position for position, (wave, _, _) in enumerate(waves) if wave.is_pulses]
    pulse_w = float(power_w[np.isin(number, pulses)].mean())
    rest_w = [looks.rest_w[number == position] for position in pulses]
    return looks, [pulse_w + float(np.mean(rest[1:])) if len(rest) > 1 else None for rest in rest_w]


def _busy(capture: Capture, device: int) -> Intervals:
    rows = capture.kernels.device == device
    return Intervals.of(capture.kernels.start_ns[rows], capture.kernels.end_ns[rows])


def _phase_error(found: Sequence[float | None]) -> Estimate:
    """Standard deviation over mean of the power of trains of pulses that differ in nothing but their phase."""
    powers = [power for power in found if power is not None]
    if len(powers) < 3:
        return Estimate.missing("fewer than three phases of pulses were seen between edges of the counter")
    spread = float(np.std(powers, ddof=1) / np.mean(powers))
    low, high = (spread / math.sqrt(_chi2_over_degrees(len(powers) - 1, z)) for z in (_Z, -_Z))
    return Estimate(spread, low, high, f"measured: 100-ms pulses at {len(powers)} phases")


def _chi2_over_degrees(degrees: int, z: float) -> float:
    """Quantile of chi-squared over its mean at the normal quantile ``z``: Wilson and Hilferty's cube."""
    scale = 2 / (9 * degrees)
    return max(1 - scale + z * math.sqrt(scale), 0.05) ** 3


def _mean_power(ticks: _Ticks | None, start_ns: int, end_ns: int) -> float | None:
    """Watts between the second edge of a range and its last: the first tick holds what was before."""
    if ticks is None:
        return None
    inside = np.flatnonzero((ticks.time_ns >= start_ns) & (ticks.time_ns < end_ns))[1:]
    if len(inside) < 2:
        return None
    first, last = int(inside[0]), int(inside[-1])
    length_s = float(ticks.number[last] - ticks.number[first]) * ticks.tick_s
    return float(ticks.energy_j[last] - ticks.energy_j[first]) / length_s


def _window_error(ticks: _Ticks | None, waves: list[tuple[SensorWave, int, int]]) -> float:
    """Standard deviation over mean of the energy of windows of 12 ticks in which equal waves ran."""
    if ticks is None:
        return _DEFAULT_WINDOW_ERROR
    deviations: list[float] = []
    for wave, start_ns, end_ns in waves:
        inside = (ticks.time_ns >= start_ns) & (ticks.time_ns < end_ns)
        number, energy_j = ticks.number[inside][1:], ticks.energy_j[inside][1:]
        if not wave.is_square or len(number) == 0:
            continue
        cuts = np.arange(number[0], number[-1] + 1, _WINDOW_TICKS)
        windows = np.diff(energy_j[np.isin(number, cuts)]) if np.isin(cuts, number).all() else np.empty(0)
        if len(windows) >= 2:
            deviations += list((windows / windows.mean() - 1) * math.sqrt(len(windows) / (len(windows) - 1)))
    if len(deviations) < 3:
        return _DEFAULT_WINDOW_ERROR
    return float(np.sqrt(np.mean(np.square(deviations))))
