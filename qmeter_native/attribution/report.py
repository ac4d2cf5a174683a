"""A capture's whole answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.attributed import AttributedCapture
from qmeter_native.attribution.balances import energy_balance, request_balance, time_balance
from qmeter_native.attribution.components import component_rows
from qmeter_native.attribution.coverage import coverage
from qmeter_native.attribution.explanation import explain_requests
from qmeter_native.attribution.kernel_choice import kernel_choice
from qmeter_native.attribution.kernel_names import KernelNames
from qmeter_native.attribution.latency import request_latencies, sent_inside
from qmeter_native.attribution.processes import process_rows
from qmeter_native.attribution.requests import latency_parts, requests_of_run
from qmeter_native.attribution.ridden_time import KernelTimes
from qmeter_native.attribution.rows import kernel_rows, phase_rows, request_rows
from qmeter_native.attribution.shares import Rides, ShareRule
from qmeter_native.attribution.totals import totals
from qmeter_native.attribution.usage import DeviceUsage
from qmeter_native.attribution.validity import found_limits
from qmeter_native.attribution.work_summary import work_summary
from qmeter_native.model.capture import Capture
from qmeter_native.model.device_profile import DeviceProfile
from qmeter_native.model.report import AttributionReport, Balance, LatencyParts
from qmeter_native.model.static_policy import StaticPolicy

__all__ = ["attribute"]

_Array = NDArray[Any]


def attribute(
    capture: Capture,
    name: str,
    explained: Iterable[int] = (),
    profiles: Mapping[int, DeviceProfile] | None = None,
    static_policy: StaticPolicy = StaticPolicy.SEPARATE,
    tdp_w: float | None = None,
) -> AttributionReport:
    """Attribute time and energy of a capture to kernels, phases and requests.

    Args:
        capture: The capture; only its measured window counts.
        name: What to call it in the report.
        explained: Numbers of the requests to explain; if there are none, the median and the 99th percentile of
            end-to-end time.
        profiles: By DeviceInfo.index, what is known of a device's power. By default what the capture carries, else
            what the device's datasheet lets expect.
        static_policy: Who gets the idle and active power of busy time.
        tdp_w: Power to assume of devices whose energy nothing measured, while kernels run. Without it their energy
            is missing.
    """
    manifest = capture.manifest
    attributed = AttributedCapture.of(capture, profiles, static_policy, tdp_w)
    plan, usages, pool = attributed.plan, attributed.usages, attributed.pool
    names, spans, rides = plan.names, plan.spans, plan.rides
    ride_ns, ride_j = _ridden(rides, usages)
    latencies = request_latencies(capture.requests)
    parts = latency_parts(capture.steps, spans, rides, capture.requests)
    is_of_run = requests_of_run(manifest, spans, rides, capture.requests, ride_ns, ride_j)
    kernels = kernel_rows(names, usages, pool)
    choice = kernel_choice(manifest.engine, kernels)
    e2e_s = np.where(sent_inside(manifest, capture.requests), latencies.e2e_s, np.nan)
    times = KernelTimes(capture, names, attributed.traced)
    return AttributionReport(
        name=name,
        devices=manifest.devices,
        engine=manifest.engine,
        balance=_balance(capture, names, usages, rides, parts, is_of_run),
        totals=totals(capture, names, usages, spans, latencies, pool),
        kernels=kernels,
        phases=phase_rows(capture, rides, attributed.is_counted, ride_ns, ride_j, usages, pool),
        requests=request_rows(capture, rides, is_of_run, ride_ns, ride_j, latencies, parts, pool),
        loss=manifest.loss,
        validity=(*manifest.validity, *found_limits(capture, usages, spans, choice)),
        software=dict(manifest.software),
        coverage=tuple(coverage(usage) for usage in usages),
        kernel_choice=choice,
        explanations=explain_requests(capture, spans, rides, times, parts, e2e_s, explained),
        processes=process_rows(capture),
        work=work_summary(capture, names, usages, plan.placed, pool),
        components=component_rows(pool),
        static_policy=static_policy,
    )


def _ridden(rides: Rides, usages: Sequence[DeviceUsage]) -> tuple[_Array, _Array]:
    """Time, int64, and energy, float64, that each ride used on all devices."""
    given = [usage.energy.step_j for usage in usages if usage.energy is not None]
    step_j = sum(given, np.zeros((rides.num_steps, len(ShareRule))))
    ride_ns = sum((rides.share_ns(usage.step_ns) for usage in usages), np.zeros(len(rides.step_row), np.int64))
    return ride_ns, rides.share_j(step_j)


def _balance(
    capture: Capture,
    names: KernelNames,
    usages: Sequence[DeviceUsage],
    rides: Rides,
    parts: Sequence[LatencyParts | None],
    is_of_run: _Array,
) -> Balance:
    """``is_of_run`` is a mask over ``rides.requests``."""
    return Balance(
        time=tuple(time_balance(usage, rides) for usage in usages),
        energy=tuple(energy_balance(usage, names) for usage in usages),
        requests=request_balance(parts, np.isin(capture.requests.request, rides.requests[is_of_run])),
    )
