"""A capture's whole answer."""

from __future__ import annotations

import numpy as np

from qmeter_native.attribution.balances import energy_balance, request_balance, time_balance
from qmeter_native.attribution.energy_pool import EnergyPool
from qmeter_native.attribution.latency import request_latencies
from qmeter_native.attribution.requests import latency_parts
from qmeter_native.attribution.rows import kernel_rows, phase_rows, request_rows
from qmeter_native.attribution.shares import Rides, ShareRule
from qmeter_native.attribution.steps import StepSpans, kernel_steps, step_spans
from qmeter_native.attribution.totals import totals
from qmeter_native.attribution.usage import DeviceUsage, KernelNames, device_usage
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import Validity
from qmeter_native.model.report import AttributionReport, Balance

__all__ = ["attribute"]


def attribute(capture: Capture, name: str) -> AttributionReport:
    """Attribute time and energy of a capture to kernels, phases and requests.

    Args:
        capture: The capture; only its measured window counts.
        name: What to call it in the report.
    """
    names = KernelNames.of(capture.kernel_classes)
    spans = step_spans(capture)
    rides = Rides.of(capture.steps, capture.step_requests, capture.requests)
    step_of_kernel = kernel_steps(capture, spans)
    usages = [device_usage(capture, device, names, spans, step_of_kernel, rides) for device in capture.manifest.devices]
    pool = EnergyPool.of(usages)
    step_j = sum((usage.step_j for usage in usages), np.zeros((rides.num_steps, len(ShareRule))))
    ride_j = rides.share_j(step_j)
    ride_ns = sum((rides.share_ns(usage.step_ns) for usage in usages), np.zeros(len(ride_j), np.int64))
    latencies = request_latencies(capture.requests)
    parts = latency_parts(capture.steps, spans, rides, capture.requests)
    return AttributionReport(
        name=name,
        devices=capture.manifest.devices,
        engine=capture.manifest.engine,
        balance=Balance(
            time=tuple(time_balance(usage, rides) for usage in usages),
            energy=tuple(energy_balance(usage, names) for usage in usages),
            requests=request_balance(parts),
        ),
        totals=totals(capture, names, usages, spans, latencies, pool),
        kernels=kernel_rows(names, usages, pool),
        phases=phase_rows(capture, rides, ride_ns, ride_j, usages, pool),
        requests=request_rows(capture, rides, ride_ns, ride_j, latencies, parts, pool),
        loss=capture.manifest.loss,
        validity=(*capture.manifest.validity, *_validity(capture, usages, spans)),
        software=dict(capture.manifest.software),
    )


def _validity(capture: Capture, usages: list[DeviceUsage], spans: StepSpans) -> list[Validity]:
    """What attribution itself found to limit the answer."""
    found = [
        Validity(
            "idle_power_unknown",
            "Idle power was not measured before the run, so idle time and kernels share energy by time alone.",
            f"device {usage.device.index}",
        )
        for usage in usages
        if usage.split is not None and usage.device.idle_power_w is None
    ]
    num_lost = int(spans.has_lost_marker.sum())
    if num_lost:
        message = f"{num_lost} engine steps lost a marker; their kernels are given to no request."
        found.append(Validity("lost_markers", message))
    listed = [device.index for device in capture.manifest.devices]
    num_elsewhere = int((~np.isin(capture.kernels.device, listed)).sum()) if listed else 0
    if num_elsewhere:
        message = f"{num_elsewhere} kernels ran on devices that the capture does not describe; they are left out."
        found.append(Validity("unlisted_device", message))
    return found
