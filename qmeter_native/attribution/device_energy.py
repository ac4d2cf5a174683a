"""From a device's windows and kernels to the estimator's problem, and its answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.capture_plan import CapturePlan
from qmeter_native.attribution.class_work import ClassWork
from qmeter_native.attribution.column_times import ColumnTimes
from qmeter_native.attribution.energy_fit import fit_energy
from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.attribution.energy_split import EnergySplit, split_energy
from qmeter_native.attribution.energy_windows import EnergyWindows
from qmeter_native.attribution.memory_power import MemoryPower, memory_shift
from qmeter_native.attribution.power_samples import choose_windows
from qmeter_native.attribution.window_conditions import WindowConditions, mean_temperature
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import DeviceInfo
from qmeter_native.model.power_model import PowerModel
from qmeter_native.units import NS_PER_S, mw_to_w

__all__ = ["DeviceLoad", "device_energy", "merged"]

_Array = NDArray[Any]

_UNTRACED_ERROR: Final = 0.25
"""Relative error of taking the untraced part of a window to draw what the traced part does."""
_CLOCK_RANGE: Final = (0.1, 2.0)
"""Of the SM clock over the reference: readings beyond it are no clocks under load."""


@dataclass(frozen=True, slots=True)
class DeviceLoad:
    """What a device did in each part of an energy window (V).

    Attributes:
        columns: Kernels, by the estimator's columns.
        conditions: Clocks and temperature.
        busy_ns: int64, union of all kernels, as far as they were traced.
        traced_ns: int64, how much was traced. The rest takes its part of the energy with it, by time.
        seen_ns: float64, ``busy_ns`` as the energy sensor weighs time; None if it sees all alike.
    """

    columns: ColumnTimes
    conditions: WindowConditions
    busy_ns: _Array
    traced_ns: _Array
    seen_ns: _Array | None = None


def device_energy(
    plan: CapturePlan, device: DeviceInfo, windows: EnergyWindows, load: DeviceLoad, model: PowerModel
) -> EnergySplit | None:
    """Split the energy that the sensor of ``device`` saw in ``windows``; None without a source."""
    if windows.energy_j is None:
        return None
    work = ClassWork.of(plan, device, load.columns.classes, model.features)
    fine = _problem(plan.capture, device, windows, load, work, model)
    whole = merged(fine, windows.parts.parent)
    if whole is not fine:
        whole = replace(whole, error_j=_errors(windows.cuts_ns, windows.error_j, whole.energy_j, whole.length_s))
    is_finer = whole is not fine and choose_windows(whole, fine, windows.parts.parent, model).is_finer
    memory = MemoryPower.of(plan.capture, device.index, windows.cuts_ns, whole)
    shift_j = None if memory is None else memory_shift(memory, whole)
    fit = fit_energy(fine if is_finer else whole, model, shift_j)
    return split_energy(windows, windows.energy_j, whole, fit, is_finer)


def merged(parts: EnergyProblem, parent: _Array) -> EnergyProblem:
    """The problem of whole windows (W) from that of their parts (V).

    Errors are as if those of parts were independent. ``parent`` is int64 (V,), the window of each part, increasing;
    each window has one at least.
    """
    first = np.flatnonzero(np.diff(parent, prepend=-1))
    if len(first) == len(parent):
        return parts

    def total(values: _Array) -> _Array:
        return np.asarray(np.add.reduceat(values, first))

    def mean(values: _Array, weights: _Array) -> _Array:
        weight = total(weights)
        plain = total(values) / total(np.ones(len(values)))
        return np.where(weight > 0, total(values * weights) / np.where(weight > 0, weight, 1.0), plain)

    return replace(
        parts,
        length_s=total(parts.length_s),
        energy_j=total(parts.energy_j),
        error_j=np.sqrt(total(parts.error_j**2)),
        idle_w=mean(parts.idle_w, parts.length_s),
        busy_s=total(parts.busy_s),
        clock=mean(parts.clock, parts.busy_s),
        cap_w=np.maximum.reduceat(parts.cap_w, first),
        units=total(parts.units),
        time_s=total(parts.time_s),
        is_fitted=np.logical_and.reduceat(parts.is_fitted, first),
        seen_units=None if parts.seen_units is None else total(parts.seen_units),
        seen_busy_s=None if parts.seen_busy_s is None else total(parts.seen_busy_s),
    )


def _problem(
    capture: Capture,
    device: DeviceInfo,
    windows: EnergyWindows,
    load: DeviceLoad,
    work: ClassWork,
    model: PowerModel,
) -> EnergyProblem:
    """Of the windows' parts."""
    parts = windows.parts
    length_s, traced_s = np.diff(parts.cuts_ns) / NS_PER_S, load.traced_ns / NS_PER_S
    energy_j = parts.energy_j * np.divide(traced_s, length_s, out=np.zeros_like(length_s), where=length_s > 0)
    mean_w = np.divide(energy_j, traced_s, out=np.zeros_like(energy_j), where=traced_s > 0)
    units, unit_s = load.columns.units()
    clock = _clock(load.conditions, model, len(length_s))
    busy_clock = float(np.average(clock, weights=load.busy_ns)) if load.busy_ns.any() else 1.0
    limit_w = mw_to_w(device.properties.get("power_limit_mw") or 0)
    return EnergyProblem(
        length_s=traced_s,
        energy_j=energy_j,
        error_j=_errors(parts.cuts_ns, parts.error_j, energy_j, traced_s),
        idle_w=np.minimum(_idle_power(capture, device, windows, load.conditions, model), mean_w),
        busy_s=load.busy_ns / NS_PER_S,
        clock=clock,
        cap_w=np.where(load.conditions.is_capped, limit_w, 0.0),
        units=units,
        time_s=load.columns.time_s,
        features=model.features,
        work=work.of_units(load.columns.is_launch, unit_s, busy_clock, model.features),
        modes=work.modes,
        is_fitted=~windows.is_part_metered & (traced_s > 0),
        seen_units=None if load.seen_ns is None else load.columns.seen_units(),
        seen_busy_s=None if load.seen_ns is None else load.seen_ns / NS_PER_S,
    )


def _errors(cuts_ns: _Array, sensor_j: _Array, energy_j: _Array, traced_s: _Array) -> _Array:
    """Standard errors of traced time's energy: the sensor's, and that the untraced rest may draw something else."""
    length_s = np.diff(cuts_ns) / NS_PER_S
    share = np.divide(traced_s, length_s, out=np.zeros_like(length_s), where=length_s > 0)
    return np.asarray(np.hypot(sensor_j * share, _UNTRACED_ERROR * (1.0 - share) * energy_j))


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
