"""Who used a device's time and energy: by kernel class, by place in the model, and by engine step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.capture_plan import CapturePlan
from qmeter_native.attribution.column_times import ColumnTimes
from qmeter_native.attribution.declared_power import declared_model
from qmeter_native.attribution.device_energy import DeviceLoad, device_energy
from qmeter_native.attribution.energy_classes import EnergyClasses
from qmeter_native.attribution.energy_use import EnergyUse
from qmeter_native.attribution.energy_windows import EnergyWindows, energy_windows
from qmeter_native.attribution.intervals import Intervals
from qmeter_native.attribution.profiles import expected_profile
from qmeter_native.attribution.sensor_view import SensorView
from qmeter_native.attribution.time_sums import DeviceKernels, TimeSums
from qmeter_native.attribution.timeline import BusyTime
from qmeter_native.attribution.traced_time import Pieces
from qmeter_native.attribution.window_conditions import WindowConditions
from qmeter_native.model.capture import Capture
from qmeter_native.model.device_profile import DeviceProfile
from qmeter_native.model.manifest import DeviceInfo

__all__ = ["DeviceUsage", "device_usage"]

_Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class DeviceUsage:
    """What ran on one device inside the measured window, as far as it was traced.

    Attributes:
        device: The device.
        profile: What is known of its power.
        traced: The time in which kernels were recorded; all that follows is of this time.
        windows: What its energy sensor saw.
        energy: That, split and given to kernels and steps; None without a source.
        busy_ns, busy_in_steps_ns: Union of all kernels, and the part of it inside the device's steps.
        steps_ns: Union of the device's steps.
        doubled_ns: Time in which two or more kernels ran.
        calls: int64, launches by kernel name that started inside the window.
        name_ns, name_overlapped_ns: int64, time by name; own running time in which others ran too.
        group_name_ns: int64 ``(groups, names)``, time by group and name.
        name_prefill_ns, name_ridden_ns: float64, time by name that prefills caused, and that any request caused.
        step_ns: int64 ``(steps, rules)``, time by step and rule of sharing.
        layer_ns: int64 ``(layers,)``, time of kernels that stand in a layer.
        window_family_ns: int64 ``(traced intervals, families)``, time by family in each traced interval.
        window_busy_ns: int64, union of all kernels in each traced interval.
    """

    device: DeviceInfo
    profile: DeviceProfile
    traced: Intervals
    windows: EnergyWindows
    energy: EnergyUse | None
    busy_ns: int
    busy_in_steps_ns: int
    steps_ns: int
    doubled_ns: int
    calls: _Array
    name_ns: _Array
    name_overlapped_ns: _Array
    group_name_ns: _Array
    name_prefill_ns: _Array
    name_ridden_ns: _Array
    step_ns: _Array
    layer_ns: _Array
    window_family_ns: _Array
    window_busy_ns: _Array

    @property
    def wall_ns(self) -> int:
        """Length of the measured window."""
        return int(self.windows.cuts_ns[-1] - self.windows.cuts_ns[0])

    @property
    def is_complete(self) -> bool:
        """All of the measured window was traced."""
        return self.traced.total_ns == self.wall_ns


@dataclass(frozen=True, slots=True)
class _Busy:
    """Busy time of windows' parts, as it was and as the energy sensor saw it, of the device's steps and of traced
    intervals; and what other sensors read meanwhile.
    """

    by_window_ns: _Array
    seen_ns: _Array | None
    in_steps_ns: int
    by_traced_ns: _Array
    conditions: WindowConditions


def device_usage(
    plan: CapturePlan, device: DeviceInfo, profile: DeviceProfile | None, traced: Intervals
) -> DeviceUsage:
    """Share a device's time and energy among what ran on it.

    Args:
        plan: The capture.
        device: The device.
        profile: What is known of its power; None for what its datasheet lets expect.
        traced: That of `traced_time`.
    """
    capture, names = plan.capture, plan.names
    kernels = _kernels_of(plan, device)
    windows = energy_windows(capture, device, None if profile is None else profile.sensor)
    parts = windows.parts
    pieces = Pieces.of(parts.cuts_ns, parts.parent, traced)
    steps = plan.spans.on_device(capture, device.index).intersect(traced)
    busy = _busy(capture, device, kernels, windows, pieces, steps, traced)
    columns = _columns(plan, kernels, len(parts.parent))
    traced_ns = pieces.by_energy_window(pieces.length_ns, len(parts.parent))
    load = DeviceLoad(columns, busy.conditions, busy.by_window_ns, traced_ns, busy.seen_ns)
    sums = _sums(plan, kernels, pieces, columns, traced, windows.view)
    profile = profile or expected_profile(device, windows.highest_w)
    model = profile.power_model
    if windows.energy_j is None and plan.tdp_w is not None:
        windows, model = windows.declared(load.busy_ns, plan.tdp_w), declared_model(plan.tdp_w)
    split = device_energy(plan, device, windows, load, model)
    group_ns = sums.group_ns
    return DeviceUsage(
        device=device,
        profile=profile,
        traced=traced,
        windows=windows,
        energy=None if split is None else EnergyUse.of(split, plan.policy, names, sums),
        busy_ns=int(busy.by_window_ns.sum()),
        busy_in_steps_ns=busy.in_steps_ns,
        steps_ns=steps.total_ns,
        doubled_ns=sums.doubled_ns,
        calls=names.sums(sums.calls),
        name_ns=names.sums(group_ns.sum(axis=0)),
        name_overlapped_ns=names.sums(sums.overlapped_ns.astype(np.int64)),
        group_name_ns=names.sums(group_ns),
        name_prefill_ns=names.sums(sums.prefill_ns),
        name_ridden_ns=names.sums(sums.ridden_ns),
        step_ns=sums.step_ns,
        layer_ns=sums.layer_ns.sum(axis=1),
        window_family_ns=sums.window_family_ns,
        window_busy_ns=busy.by_traced_ns,
    )


def _sums(
    plan: CapturePlan,
    kernels: DeviceKernels,
    pieces: Pieces,
    columns: ColumnTimes,
    traced: Intervals,
    view: SensorView | None,
) -> TimeSums:
    num_layers = int(plan.placed.places.layer.max(initial=-1)) + 1
    sums = TimeSums(plan.names, plan.rides, pieces, columns, len(traced), plan.placed.groups.count, num_layers, view)
    sums.add_all(kernels, traced)
    return sums


def _kernels_of(plan: CapturePlan, device: DeviceInfo) -> DeviceKernels:
    kernels, placed = plan.capture.kernels, plan.placed
    is_here = kernels.device == device.index
    here = slice(None) if is_here.all() else np.flatnonzero(is_here)
    return DeviceKernels(
        start_ns=kernels.start_ns[here],
        end_ns=kernels.end_ns[here],
        class_id=kernels.class_id[here],
        step_row=plan.step_of_kernel[here],
        group=placed.groups.group[here],
        layer=placed.places.layer[here],
    )


def _busy(
    capture: Capture,
    device: DeviceInfo,
    kernels: DeviceKernels,
    windows: EnergyWindows,
    pieces: Pieces,
    steps: Intervals,
    traced: Intervals,
) -> _Busy:
    """The union that busy times come from is a quarter of all memory at 10^7 kernels, and is let go here."""
    busy = BusyTime(kernels.start_ns, kernels.end_ns)
    by_piece = np.where(pieces.is_traced, busy.between(pieces.cuts_ns[:-1], pieces.cuts_ns[1:]), 0)
    num_parts = len(windows.parts.parent)
    return _Busy(
        by_window_ns=pieces.by_energy_window(by_piece, num_parts),
        seen_ns=None if windows.view is None else _seen(busy, pieces, windows.view, num_parts),
        in_steps_ns=int(busy.between(steps.start_ns, steps.end_ns).sum()),
        by_traced_ns=busy.between(traced.start_ns, traced.end_ns),
        conditions=WindowConditions.of(capture, device, windows.parts.cuts_ns, busy),
    )


def _seen(busy: BusyTime, pieces: Pieces, view: SensorView, num_parts: int) -> _Array:
    """float64, busy time of each part of a window as its sensor weighs it."""
    by_piece = busy.weighed(pieces.cuts_ns[:-1], pieces.cuts_ns[1:], view.seen_ns)
    return np.bincount(pieces.energy_window, np.where(pieces.is_traced, by_piece, 0.0), num_parts)


def _columns(plan: CapturePlan, kernels: DeviceKernels, num_windows: int) -> ColumnTimes:
    names = plan.names
    classes = EnergyClasses.of(
        kernels.class_id,
        kernels.end_ns - kernels.start_ns,
        names.family[names.of_class],
        names.is_meter[names.of_class],
    )
    return ColumnTimes(num_windows, classes)
