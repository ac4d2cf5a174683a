"""A capture whose devices' time and energy are shared out: what the report and the roofline are read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from qmeter_native.attribution.capture_plan import CapturePlan
from qmeter_native.attribution.energy_pool import EnergyPool
from qmeter_native.attribution.intervals import Intervals
from qmeter_native.attribution.kernel_names import KernelNames
from qmeter_native.attribution.placed_work import PlacedWork
from qmeter_native.attribution.profiles import carried_profiles
from qmeter_native.attribution.shares import Rides
from qmeter_native.attribution.steps import kernel_steps, step_spans, traced_steps
from qmeter_native.attribution.traced_time import traced_time
from qmeter_native.attribution.usage import DeviceUsage, device_usage
from qmeter_native.attribution.validity import energy_caveat
from qmeter_native.model.capture import Capture
from qmeter_native.model.device_profile import DeviceProfile
from qmeter_native.model.static_policy import StaticPolicy

__all__ = ["AttributedCapture"]


@dataclass(frozen=True, slots=True)
class AttributedCapture:
    """Who used what.

    Attributes:
        plan: The capture, its kernels in their steps and places.
        traced: Traced time by DeviceInfo.index.
        is_counted: Mask of the steps that count, that of `traced_steps`.
        usages: Time and energy of each device.
        pool: Energy of all devices that ran kernels.
    """

    plan: CapturePlan
    traced: dict[int, Intervals]
    is_counted: NDArray[Any]
    usages: list[DeviceUsage]
    pool: EnergyPool

    @classmethod
    def of(
        cls,
        capture: Capture,
        profiles: Mapping[int, DeviceProfile] | None = None,
        static_policy: StaticPolicy = StaticPolicy.SEPARATE,
        tdp_w: float | None = None,
    ) -> AttributedCapture:
        """Share out a capture; see `qmeter_native.attribution.report.attribute` for the arguments."""
        manifest = capture.manifest
        names = KernelNames.of(capture.kernel_classes)
        spans = step_spans(capture)
        rides = Rides.of(capture.steps, capture.step_requests, capture.requests)
        step_of_kernel = kernel_steps(capture, spans)
        traced = {device.index: traced_time(capture, device.index) for device in manifest.devices}
        counted = traced_steps(capture, spans, traced)
        placed = PlacedWork.of(capture, step_of_kernel, counted)
        plan = CapturePlan(capture, names, spans, step_of_kernel, rides, placed, static_policy, tdp_w)
        known = {**carried_profiles(manifest), **(profiles or {})}
        usages = [
            device_usage(plan, device, known.get(device.index), traced[device.index]) for device in manifest.devices
        ]
        pool = EnergyPool.of(usages, static_policy, energy_caveat(manifest.engine))
        return cls(plan, traced, counted, usages, pool)
