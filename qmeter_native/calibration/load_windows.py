"""From a capture of loads to the energy problem of its windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.counter_work import counter_work
from qmeter_native.attribution.energy_curve import EnergyCurve
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.attribution.kernel_counters import kernel_counters
from qmeter_native.attribution.sensor_view import SensorView, SensorWindow
from qmeter_native.attribution.timeline import BusyTime
from qmeter_native.attribution.window_conditions import WindowConditions
from qmeter_native.calibration.load_exposure import LoadExposure, on_ticks
from qmeter_native.calibration.load_kernels import LoadCheck, class_key
from qmeter_native.calibration.load_problem import LoadProblem
from qmeter_native.calibration.load_window import PILOT_RANGE, LoadWindow, WindowRole
from qmeter_native.devices.gpu_database import ChipInfo
from qmeter_native.errors import CaptureError
from qmeter_native.model.capture import Capture
from qmeter_native.model.device_profile import SensorModel
from qmeter_native.model.manifest import DeviceInfo
from qmeter_native.model.power_model import EnergyMode, PowerFeature
from qmeter_native.model.tables import KernelTable
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


def workload_of(checks: Sequence[LoadCheck], left_out: Mapping[str, str]) -> dict[str, Any]:
    """What a session's manifest says of its loads (`Session.describe`), so that `load_problem` knows them again.

    ``left_out`` says why loads do not run, by name.
    """
    kinds = {
        check.kernel.name: {
            "class": check.class_key,
            "quantized": check.kernel.is_quantized,
            "shape": check.kernel.shape,
            "data": check.kernel.data,
            "family": check.kernel.family.value,
            "work": {feature.value: float(amount) for feature, amount in check.kernel.work.items()},
        }
        for check in checks
    }
    return {"name": "loads", "kinds": kinds, "left_out": dict(left_out)}


def load_problem(
    capture: Capture,
    device: int,
    chip: ChipInfo | None,
    reference_mhz: float | None = None,
    sensor: SensorModel | None = None,
) -> LoadProblem:
    """Every window of load but idle and soak, with what it cost and what ran in it.

    Work of kinds is what hardware counters say if the capture has a counter phase, else their arithmetic. Bounds are
    ticks of the energy counter, and ``seen_units`` what it saw, if it is known what it looks at.

    Args:
        capture: Of a session that `workload_of` described and `run_loads` ran in.
        device: ``DeviceInfo.index``.
        chip: Its datasheet; None if unknown, and then counters are not used.
        reference_mhz: SM clock that clocks are divided by; by default the chip's boost clock, else the highest seen.
        sensor: The calibrated one, if there is one; else what is known of such parts.

    Raises:
        CaptureError: The capture has no such windows, no idle bracket or no energy of the device.
    """
    info = next(info for info in capture.manifest.devices if info.index == device)
    curve = EnergyCurve.of(capture, device)
    if curve is None:
        raise CaptureError(f"there is no energy of device {device}", "`qmeter-native doctor` says what is missing.")
    windows, edges_ns = _windows(capture, curve)
    looks = SensorWindow.of(info.name, sensor)
    view = None if looks is None else SensorView.of(capture, device, looks)
    bounds_ns = edges_ns if view is None else on_ticks(edges_ns, view)
    kinds: dict[str, dict[str, Any]] = capture.manifest.workload["kinds"]
    kernels = capture.kernels.take(np.flatnonzero(capture.kernels.device == device))
    kind_of_class = _kinds_of_classes(capture, kinds)
    ran = LoadExposure.of(kernels, bounds_ns, kind_of_class, len(kinds), view)
    conditions = _Conditions.of(capture, info, kernels, bounds_ns, curve.between(edges_ns.ravel()))
    clock = conditions.clock(reference_mhz or (chip.boost_mhz if chip else None))
    work, modes = _work(capture, device, kinds, kind_of_class, chip, _seconds(ran.time_s, ran.units, clock))
    is_idle = np.array([window.role is WindowRole.IDLE for window in windows], bool)
    is_loaded = np.array([w.role not in (WindowRole.IDLE, WindowRole.SOAK) for w in windows], bool)
    keep = np.flatnonzero(is_loaded & ~_is_counted(capture, device, bounds_ns))
    limit_w = mw_to_w(info.properties["power_limit_mw"]) if "power_limit_mw" in info.properties else None
    cap_w = limit_w or (chip.tdp_w if chip else float((conditions.energy_j / conditions.length_s).max()))
    problem = EnergyProblem(
        length_s=conditions.length_s[keep],
        energy_j=conditions.energy_j[keep],
        error_j=conditions.error_j[keep],
        idle_w=conditions.idle_w(is_idle)[keep],
        busy_s=conditions.busy_s[keep],
        clock=clock[keep],
        cap_w=np.where(conditions.is_capped, cap_w, 0.0)[keep],
        units=ran.units[keep],
        time_s=ran.time_s[keep],
        features=_FEATURES,
        work=work,
        modes=modes,
        is_fitted=np.ones(len(keep), bool),
        seen_units=None if ran.seen_units is None else ran.seen_units[keep],
        seen_busy_s=None if ran.seen_busy_s is None else ran.seen_busy_s[keep],
    )
    return LoadProblem(
        problem=problem,
        windows=tuple(windows[row] for row in keep),
        kinds=tuple(kinds),
        quantized=frozenset(name for name, kind in kinds.items() if kind["quantized"]),
        temperature_c=conditions.temperature_c[keep],
        throttled=_throttled(capture, device, bounds_ns)[keep],
        start_s=(bounds_ns[keep, 0] - bounds_ns[0, 0]) / NS_PER_S,
        run=np.zeros(len(keep), np.int64),
    )


def _windows(capture: Capture, curve: EnergyCurve) -> tuple[list[LoadWindow], _Array]:
    """The windows in order of time and their bounds, int64 (W, 2)."""
    named = [(LoadWindow.of_range(str(name)), row) for row, name in enumerate(capture.ranges.name)]
    found = [(int(capture.ranges.start_ns[row]), row, window) for window, row in named if window is not None]
    found.sort(key=lambda entry: entry[:2])
    windows = [window for _, _, window in found]
    roles = {window.role for window in windows}
    if WindowRole.IDLE not in roles or not roles - {WindowRole.IDLE, WindowRole.SOAK}:
        raise CaptureError("the capture has no windows of load between idle brackets", "Run the loads again.")
    rows = np.array([row for _, row, _ in found], np.int64)
    bounds_ns = np.column_stack([capture.ranges.start_ns[rows], capture.ranges.end_ns[rows]])
    return windows, _on_edges(bounds_ns, curve.edge_ns)


@dataclass(frozen=True, slots=True)
class _Conditions:
    """What a device was like in each window; one entry a window, ``clock_mhz`` None where it was not read."""

    middle_s: _Array
    length_s: _Array
    energy_j: _Array
    error_j: _Array
    busy_s: _Array
    clock_mhz: _Array | None
    temperature_c: _Array
    is_capped: _Array

    @classmethod
    def of(
        cls,
        capture: Capture,
        info: DeviceInfo,
        kernels: KernelTable,
        bounds_ns: _Array,
        measured: tuple[_Array, _Array],
    ) -> _Conditions:
        """Of windows between bounds that do not overlap; ``measured``: joules, errors of every stretch between two."""
        cuts_ns = bounds_ns.ravel()  # every other stretch is a window
        energy_j, error_j = measured
        busy = BusyTime(kernels.start_ns, kernels.end_ns)
        read = WindowConditions.of(capture, info, cuts_ns, busy)
        unread = np.full(len(bounds_ns), np.nan)
        return cls(
            middle_s=(bounds_ns - bounds_ns[0, 0]).mean(axis=1) / NS_PER_S,
            length_s=np.diff(bounds_ns, axis=1)[:, 0] / NS_PER_S,
            energy_j=energy_j[::2],
            error_j=error_j[::2],
            busy_s=busy.between(bounds_ns[:, 0], bounds_ns[:, 1]) / NS_PER_S,
            clock_mhz=None if read.clock_mhz is None else read.clock_mhz[::2],
            temperature_c=unread if read.temperature_c is None else read.temperature_c[::2],
            is_capped=read.is_capped[::2],
        )

    def clock(self, reference_mhz: float | None) -> _Array:
        """SM clock over the reference, or over the highest seen; 1 where it was not read."""
        if self.clock_mhz is None:
            return np.ones(len(self.length_s))
        return np.asarray(self.clock_mhz / (reference_mhz or float(self.clock_mhz.max())))

    def idle_w(self, is_idle: _Array) -> _Array:
        """Idle power by the brackets around each window: in time, and with temperature where that varies enough."""
        bracket_w, warmth = (self.energy_j / self.length_s)[is_idle], self.temperature_c
        leakage = 0.0
        if not np.isnan(warmth).any() and np.ptp(warmth[is_idle]) >= _MIN_WARMTH_K:
            leakage = float(np.clip(np.polyfit(warmth[is_idle], bracket_w, 1)[0], 0.0, _MAX_LEAKAGE))
        correction = leakage * np.nan_to_num(warmth - warmth[is_idle].mean())
        cold_w = np.interp(self.middle_s, self.middle_s[is_idle], bracket_w - correction[is_idle])
        return np.asarray(cold_w + correction)


def _on_edges(bounds_ns: _Array, edge_ns: _Array) -> _Array:
    """Bounds moved inward to counter edges, where the energy is known best; windows that this would cut short stay."""
    if len(edge_ns) < 2:
        return bounds_ns
    first = np.minimum(np.searchsorted(edge_ns, bounds_ns[:, 0]), len(edge_ns) - 1)
    last = np.maximum(np.searchsorted(edge_ns, bounds_ns[:, 1], "right") - 1, 0)
    inside = np.column_stack([edge_ns[first], edge_ns[last]])
    is_long = np.diff(inside, axis=1) >= _MIN_INSIDE * np.diff(bounds_ns, axis=1)
    return np.where(is_long, inside, bounds_ns)


def _kinds_of_classes(capture: Capture, kinds: Mapping[str, Mapping[str, Any]]) -> _Array:
    """Position in ``kinds`` of each kernel class; -1 for others.

    A library may choose another kernel in a CUDA graph than outside: a kind whose kernel never ran in its pilot takes
    the one that took most time there.
    """
    position = {kind["class"]: number for number, kind in enumerate(kinds.values())}
    classes, kernels, ranges = capture.kernel_classes, capture.kernels, capture.ranges
    kind_of_class = np.array([position.get(class_key(classes, row), -1) for row in range(len(classes))], np.int64)
    pilots = {str(name): row for row, name in enumerate(ranges.name)}
    for number, name in enumerate(kinds):
        row = pilots.get(PILOT_RANGE + name)
        if row is None:
            continue
        first, last = np.searchsorted(kernels.start_ns, [ranges.start_ns[row], ranges.end_ns[row]])
        inside = kernels.slice(int(first), int(last))
        time_ns = np.bincount(inside.class_id, inside.end_ns - inside.start_ns, len(classes))
        if len(inside) and not (time_ns[kind_of_class == number] > 0).any() and kind_of_class[time_ns.argmax()] < 0:
            kind_of_class[time_ns.argmax()] = number
    return kind_of_class


def _seconds(time_s: _Array, units: _Array, clock: _Array) -> _Array:
    """Seconds of one launch of each kind at the reference clock."""
    counts = units.sum(axis=0)
    cycles = clock @ time_s
    return np.asarray(np.divide(cycles, counts, out=np.zeros(len(counts)), where=counts > 0))


def _work(
    capture: Capture,
    device: int,
    kinds: Mapping[str, Mapping[str, Any]],
    kind_of_class: _Array,
    chip: ChipInfo | None,
    seconds: _Array,
) -> tuple[_Array, tuple[EnergyMode, ...]]:
    """Work of one launch of each kind, float64 (C, K), and how it is known."""
    work = np.array([[kind["work"].get(feature.value, 0.0) for feature in _FEATURES] for kind in kinds.values()], float)
    work[:, _FEATURES.index(PowerFeature.SM_SECONDS)] = seconds
    modes = [EnergyMode.SHAPES if kind["work"] else EnergyMode.TIME for kind in kinds.values()]
    counters = None if chip is None else kernel_counters(capture, device)
    if counters is None or chip is None:
        return work, tuple(modes)
    counted = counter_work(counters, chip, _FEATURES)
    for class_id in np.flatnonzero(counters.is_measured & (kind_of_class >= 0)):
        work[kind_of_class[class_id]], modes[kind_of_class[class_id]] = counted[class_id], EnergyMode.COUNTERS
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
