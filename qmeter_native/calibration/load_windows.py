"""From a capture of loads to the energy problem of its windows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.counter_work import counter_work
from qmeter_native.attribution.energy_curve import EnergyCurve
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.attribution.kernel_counters import kernel_counters
from qmeter_native.attribution.timeline import BusyTime
from qmeter_native.attribution.window_conditions import WindowConditions
from qmeter_native.calibration.load_kernels import LoadCheck, class_key
from qmeter_native.calibration.load_problem import LoadProblem
from qmeter_native.calibration.load_window import LoadWindow, WindowRole
from qmeter_native.devices.gpu_database import ChipInfo
from qmeter_native.errors import CaptureError
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import DeviceInfo
from qmeter_native.model.power_model import EnergyMode, PowerFeature
from qmeter_native.units import NS_PER_S, mw_to_w

__all__ = ["load_problem", "workload_of"]

_Array = NDArray[Any]

_MIN_INSIDE: Final = 0.8
"""Part of a window that must remain where its bounds are moved inward to counter edges."""
_MIN_WARMTH_K: Final = 3.0
"""Spread of the idle brackets' temperature from which leakage can be told from drift in time."""
_MAX_LEAKAGE: Final = 1.0
"""Watts a kelvin; more is not leakage."""
_FEATURES: Final = tuple(PowerFeature)


def workload_of(checks: list[LoadCheck]) -> dict[str, Any]:
    """What a session's manifest says of its loads (`Session.describe`), so that `load_problem` knows them again."""
    kinds = {
        check.kernel.name: {
            "class": check.class_key,
            "quantized": check.kernel.is_quantized,
            "shape": check.kernel.shape,
            "family": check.kernel.family.value,
            "work": {feature.value: float(amount) for feature, amount in check.kernel.work.items()},
        }
        for check in checks
    }
    return {"name": "loads", "kinds": kinds}


def load_problem(
    capture: Capture, device: int, chip: ChipInfo | None, reference_mhz: float | None = None
) -> LoadProblem:
    """Every window of load but idle and soak, with what it cost and what ran in it.

    Work of kinds is what hardware counters say if the capture has a counter phase, else their arithmetic.

    Args:
        capture: Of a session that `workload_of` described and `run_loads` ran in.
        device: ``DeviceInfo.index``.
        chip: Its datasheet; None if unknown, and then counters are not used.
        reference_mhz: SM clock that clocks are divided by; by default the chip's boost clock, else the highest seen.

    Raises:
        CaptureError: The capture has no such windows, no idle bracket or no energy of the device.
    """
    info = next(info for info in capture.manifest.devices if info.index == device)
    curve = EnergyCurve.of(capture, device)
    if curve is None:
        raise CaptureError(
            f"the capture has no energy of device {device}", "`qmeter-native doctor` says what is missing."
        )
    named = [(LoadWindow.of_range(str(name)), row) for row, name in enumerate(capture.ranges.name)]
    found = sorted(
        ((window, row) for window, row in named if window is not None),
        key=lambda pair: capture.ranges.start_ns[pair[1]],
    )
    rows = np.array([row for _, row in found], np.int64)
    bounds_ns = _on_edges(np.column_stack([capture.ranges.start_ns[rows], capture.ranges.end_ns[rows]]), curve.edge_ns)
    windows = [window for window, _ in found]
    is_loaded = np.array([w.role not in (WindowRole.IDLE, WindowRole.SOAK) for w in windows], bool)
    is_idle = np.array([window.role is WindowRole.IDLE for window in windows], bool)
    if not is_loaded.any() or not is_idle.any():
        raise CaptureError("the capture has no windows of load between idle brackets", "Run the loads again.")
    kinds: dict[str, dict[str, Any]] = capture.manifest.workload["kinds"]
    return _problem(capture, info, curve, bounds_ns, windows, is_loaded, is_idle, kinds, chip, reference_mhz)


def _problem(
    capture: Capture,
    info: DeviceInfo,
    curve: EnergyCurve,
    bounds_ns: _Array,
    windows: list[LoadWindow],
    is_loaded: _Array,
    is_idle: _Array,
    kinds: Mapping[str, Mapping[str, Any]],
    chip: ChipInfo | None,
    reference_mhz: float | None,
) -> LoadProblem:
    cuts_ns = bounds_ns.ravel()
    kernels = capture.kernels.take(np.flatnonzero(capture.kernels.device == info.index))
    busy = BusyTime(kernels.start_ns, kernels.end_ns)
    energy_j, error_j = (values[::2] for values in curve.between(cuts_ns))
    length_s = np.diff(bounds_ns, axis=1)[:, 0] / NS_PER_S
    conditions = WindowConditions.of(capture, info, cuts_ns, busy)
    unread = np.full(len(windows), np.nan)
    warmth = unread if conditions.temperature_c is None else conditions.temperature_c[::2]
    middle_s = bounds_ns.mean(axis=1) / NS_PER_S
    idle_w = _idle_w(middle_s, warmth, np.where(is_idle, energy_j / length_s, np.nan))
    clock = np.ones(len(windows)) if conditions.clock_mhz is None else conditions.clock_mhz[::2]
    if conditions.clock_mhz is not None:
        clock = clock / (reference_mhz or (chip.boost_mhz if chip else float(clock.max())))
    limit_w = mw_to_w(info.properties["power_limit_mw"]) if "power_limit_mw" in info.properties else None
    cap_w = limit_w or (chip.tdp_w if chip else float((energy_j / length_s).max()))
    units, time_s = _units(kernels, bounds_ns, _kinds_of_classes(capture, kinds), len(kinds))
    work, modes = _work(capture, info.index, kinds, chip, _mean(time_s, units), clock)
    keep = np.flatnonzero(is_loaded & ~_is_counted(capture, info.index, bounds_ns))
    problem = EnergyProblem(
        length_s=length_s[keep],
        energy_j=energy_j[keep],
        error_j=error_j[keep],
        idle_w=idle_w[keep],
        busy_s=busy.between(bounds_ns[:, 0], bounds_ns[:, 1])[keep] / NS_PER_S,
        clock=clock[keep],
        cap_w=np.where(conditions.is_capped[::2], cap_w, 0.0)[keep],
        units=units[keep],
        time_s=time_s[keep],
        features=_FEATURES,
        work=work,
        modes=modes,
        is_fitted=np.ones(len(keep), bool),
    )
    return LoadProblem(
        problem=problem,
        windows=tuple(windows[row] for row in keep),
        kinds=tuple(kinds),
        quantized=frozenset(name for name, kind in kinds.items() if kind["quantized"]),
        temperature_c=warmth[keep],
        throttled=_throttled(capture, info.index, bounds_ns)[keep],
        start_s=(bounds_ns[keep, 0] - bounds_ns[0, 0]) / NS_PER_S,
        run=np.zeros(len(keep), np.int64),
    )


def _on_edges(bounds_ns: _Array, edge_ns: _Array) -> _Array:
    """Bounds moved inward to counter edges, where the energy is known best; windows that this would cut short stay."""
    if len(edge_ns) < 2:
        return bounds_ns
    first = np.minimum(np.searchsorted(edge_ns, bounds_ns[:, 0]), len(edge_ns) - 1)
    last = np.maximum(np.searchsorted(edge_ns, bounds_ns[:, 1], "right") - 1, 0)
    inside = np.column_stack([edge_ns[first], edge_ns[last]])
    is_long = np.diff(inside, axis=1) >= _MIN_INSIDE * np.diff(bounds_ns, axis=1)
    return np.where(is_long, inside, bounds_ns)


def _idle_w(middle_s: _Array, warmth: _Array, bracket_w: _Array) -> _Array:
    """Idle power by the brackets around each window: in time, and with temperature where that varies enough.

    ``bracket_w`` is NaN where a window is no bracket.
    """
    is_bracket = ~np.isnan(bracket_w)
    leakage = 0.0
    if not np.isnan(warmth).any() and np.ptp(warmth[is_bracket]) >= _MIN_WARMTH_K:
        leakage = float(np.clip(np.polyfit(warmth[is_bracket], bracket_w[is_bracket], 1)[0], 0.0, _MAX_LEAKAGE))
    correction = leakage * np.nan_to_num(warmth - warmth[is_bracket].mean())
    cold_w = bracket_w - correction
    return np.asarray(np.interp(middle_s, middle_s[is_bracket], cold_w[is_bracket]) + correction)


def _kinds_of_classes(capture: Capture, kinds: Mapping[str, Mapping[str, Any]]) -> _Array:
    """Position in ``kinds`` of each kernel class; -1 for others."""
    position = {kind["class"]: number for number, kind in enumerate(kinds.values())}
    classes = capture.kernel_classes
    return np.array([position.get(class_key(classes, row), -1) for row in range(len(classes))], np.int64)


def _units(kernels: Any, bounds_ns: _Array, kind_of_class: _Array, num_kinds: int) -> tuple[_Array, _Array]:
    """Launches and seconds of each kind in each window; kernels that a bound cuts count in part."""
    units, time_s = np.zeros((2, len(bounds_ns), num_kinds))
    latest_ns = np.maximum.accumulate(kernels.end_ns) if len(kernels) else kernels.end_ns
    for number, (start_ns, end_ns) in enumerate(bounds_ns):
        rows = slice(int(np.searchsorted(latest_ns, start_ns, "right")), int(np.searchsorted(kernels.start_ns, end_ns)))
        begin, end = kernels.start_ns[rows], kernels.end_ns[rows]
        inside_ns = np.maximum(np.minimum(end, end_ns) - np.maximum(begin, start_ns), 0)
        kind = kind_of_class[kernels.class_id[rows]]
        known = kind >= 0
        part = inside_ns / np.maximum(end - begin, 1)
        units[number] = np.bincount(kind[known], part[known], num_kinds)
        time_s[number] = np.bincount(kind[known], inside_ns[known], num_kinds) / NS_PER_S
    return units, time_s


def _mean(total: _Array, units: _Array) -> _Array:
    counts = units.sum(axis=0)
    return np.asarray(np.divide(total.sum(axis=0), counts, out=np.zeros(len(counts)), where=counts > 0))


def _work(
    capture: Capture,
    device: int,
    kinds: Mapping[str, Mapping[str, Any]],
    chip: ChipInfo | None,
    mean_s: _Array,
    clock: _Array,
) -> tuple[_Array, tuple[EnergyMode, ...]]:
    """Work of one launch of each kind, float64 (C, K), and how it is known."""
    work = np.array([[kind["work"].get(feature.value, 0.0) for feature in _FEATURES] for kind in kinds.values()], float)
    work[:, _FEATURES.index(PowerFeature.SM_SECONDS)] = mean_s * float(np.mean(clock))
    modes = [EnergyMode.SHAPES if kind["work"] else EnergyMode.TIME for kind in kinds.values()]
    counters = None if chip is None else kernel_counters(capture, device)
    if counters is None or chip is None:
        return work, tuple(modes)
    counted = counter_work(counters, chip, _FEATURES)
    for class_id, kind in enumerate(_kinds_of_classes(capture, kinds)):
        if kind >= 0 and class_id < len(counters.is_measured) and counters.is_measured[class_id]:
            work[kind], modes[kind] = counted[class_id], EnergyMode.COUNTERS
    return work, tuple(modes)


def _is_counted(capture: Capture, device: int, bounds_ns: _Array) -> _Array:
    """Windows that overlap a counter phase, whose sampling draws power itself."""
    phases = capture.counter_windows.take(np.flatnonzero(capture.counter_windows.device == device))
    starts, ends = bounds_ns[:, :1], bounds_ns[:, 1:]
    return np.asarray(((phases.enable_ns < ends) & (phases.disable_ns > starts)).any(axis=1))


def _throttled(capture: Capture, device: int, bounds_ns: _Array) -> _Array:
    """Part of each window in which the power limit held clocks down; 0 where the device does not say."""
    table = capture.throttles
    rows = np.flatnonzero((table.device == device) & (table.power_ns >= 0))
    if len(rows) < 2:
        return np.zeros(len(bounds_ns))
    origin = bounds_ns[0, 0]
    held_ns = np.interp(
        (bounds_ns - origin).astype(float),
        (table.time_ns[rows] - origin).astype(float),
        table.power_ns[rows].astype(float),
    )
    return np.asarray(np.diff(held_ns, axis=1)[:, 0] / np.diff(bounds_ns, axis=1)[:, 0])
