"""From a device's windows and kernels to the estimator's problem, and its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.capture_plan import CapturePlan
from qmeter_native.attribution.class_work import ClassWork
from qmeter_native.attribution.column_times import ColumnTimes
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.attribution.energy_split import EnergySplit, split_energy
from qmeter_native.attribution.energy_windows import EnergyWindows
from qmeter_native.attribution.window_conditions import WindowConditions, mean_temperature
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import DeviceInfo
from qmeter_native.model.power_model import PowerModel
from qmeter_native.units import NS_PER_S, mw_to_w

__all__ = ["DeviceLoad", "device_energy"]

_Array = NDArray[Any]

_UNTRACED_ERROR: Final = 0.25
"""Relative error of taking the untraced part of a window to draw what the traced part does."""
_CLOCK_RANGE: Final = (0.1, 2.0)
"""Of the SM clock over the reference: readings beyond it are no clocks under load."""


@dataclass(frozen=True, slots=True)
class DeviceLoad:
    """What a device did in each energy window (W).

    Attributes:
        columns: Kernels, by the estimator's columns.
        conditions: Clocks and temperature.
        busy_ns: int64, union of all kernels, as far as they were traced.
        traced_ns: int64, how much was traced. The rest takes its part of the energy with it, by time.
    """

    columns: ColumnTimes
    conditions: WindowConditions
    busy_ns: _Array
    traced_ns: _Array


def device_energy(
    plan: CapturePlan, device: DeviceInfo, windows: EnergyWindows, load: DeviceLoad, model: PowerModel
) -> EnergySplit | None:
    """Split the energy that the sensor of ``device`` saw in ``windows``; None without a source."""
    if windows.energy_j is None:
        return None
    work = ClassWork.of(plan, device, load.columns.classes, model.features)
    problem = _problem(plan.capture, device, windows, windows.energy_j, load, work, model)
    return split_energy(windows, windows.energy_j, problem, model)


def _problem(
    capture: Capture,
    device: DeviceInfo,
    windows: EnergyWindows,
    measured_j: _Array,
    load: DeviceLoad,
    work: ClassWork,
    model: PowerModel,
) -> EnergyProblem:
    length_s, traced_s = np.diff(windows.cuts_ns) / NS_PER_S, load.traced_ns / NS_PER_S
    traced_share = np.divide(traced_s, length_s, out=np.zeros_like(length_s), where=length_s > 0)
    energy_j = measured_j * traced_share
    mean_w = np.divide(energy_j, traced_s, out=np.zeros_like(energy_j), where=traced_s > 0)
    units, unit_s = load.columns.units()
    clock = _clock(load.conditions, model, len(length_s))
    busy_clock = float(np.average(clock, weights=load.busy_ns)) if load.busy_ns.any() else 1.0
    limit_w = mw_to_w(device.properties.get("power_limit_mw") or 0)
    return EnergyProblem(
        length_s=traced_s,
        energy_j=energy_j,
        error_j=np.hypot(windows.error_j * traced_share, _UNTRACED_ERROR * (1.0 - traced_share) * energy_j),
        idle_w=np.minimum(_idle_power(capture, device, windows, load.conditions, model), mean_w),
        busy_s=load.busy_ns / NS_PER_S,
        clock=clock,
        cap_w=np.where(load.conditions.is_capped, limit_w, 0.0),
        units=units,
        time_s=load.columns.time_s,
        features=model.features,
        work=work.of_units(load.columns.is_launch, unit_s, busy_clock, model.features),
        modes=work.modes,
        is_fitted=~windows.is_metered & (traced_s > 0),
    )


def _idle_power(
    capture: Capture, device: DeviceInfo, windows: EnergyWindows, conditions: WindowConditions, model: PowerModel
) -> _Array:
    """float64 (W,): measured before the run, or the model's, at each window's temperature; 0 of a declared power."""
    count, warm = len(conditions.is_capped), conditions.temperature_c
    if windows.is_declared:
        return np.zeros(count)
    if device.idle_power_w is None:
        return np.full(count, model.idle_w) if warm is None else model.idle_at(warm)
    manifest = capture.manifest
    before = mean_temperature(capture, device, manifest.start_ns, manifest.measure_start_ns)
    if warm is None or before is None:
        return np.full(count, device.idle_power_w)
    return np.asarray(np.maximum(device.idle_power_w + model.idle_w_per_k * (warm - before), 0.0))


def _clock(conditions: WindowConditions, model: PowerModel, count: int) -> _Array:
    if conditions.clock_mhz is None:
        return np.ones(count)
    return np.asarray(np.clip(conditions.clock_mhz / model.reference_mhz, *_CLOCK_RANGE))
