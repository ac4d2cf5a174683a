"""The three balances of a capture: time, energy, requests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from qmeter_native.attribution.energy_pool import energy_method, profile_source
from qmeter_native.attribution.kernel_names import KernelNames
from qmeter_native.attribution.shares import Rides
from qmeter_native.attribution.usage import DeviceUsage
from qmeter_native.model.report import EnergyBalance, LatencyParts, RequestBalance, TimeBalance
from qmeter_native.model.static_policy import StaticPolicy

__all__ = ["energy_balance", "request_balance", "time_balance"]


def time_balance(usage: DeviceUsage, rides: Rides) -> TimeBalance:
    """Wall time of a device, all of it. Busy time comes from the union, kernels' and requests' from sharing."""
    wall_ns = usage.wall_ns
    untraced_ns = wall_ns - usage.traced.total_ns
    kernels_ns = int(usage.name_ns.sum())
    idle_in_steps_ns = usage.steps_ns - usage.busy_in_steps_ns
    idle_between_steps_ns = usage.traced.total_ns - usage.busy_ns - idle_in_steps_ns
    assigned_ns = int(rides.share_ns(usage.step_ns).sum())
    in_ridden_steps_ns = int(usage.step_ns[rides.has_riders].sum())
    unassigned_ns = kernels_ns - in_ridden_steps_ns
    return TimeBalance(
        device=usage.device.index,
        wall_ns=wall_ns,
        busy_ns=usage.busy_ns,
        idle_in_steps_ns=idle_in_steps_ns,
        idle_between_steps_ns=idle_between_steps_ns,
        kernels_ns=kernels_ns,
        assigned_ns=assigned_ns,
        unassigned_ns=unassigned_ns,
        overlapped_ns=usage.doubled_ns,
        residual_ns=wall_ns - kernels_ns - idle_in_steps_ns - idle_between_steps_ns - untraced_ns,
        request_residual_ns=usage.busy_ns - assigned_ns - unassigned_ns,
        untraced_ns=untraced_ns,
    )


def energy_balance(usage: DeviceUsage, names: KernelNames) -> EnergyBalance:
    """Measured energy of a device, all of it. Kernels' and markers' comes from sharing, the rest from the windows."""
    use = usage.energy
    if use is None:
        return EnergyBalance(usage.device.index, "none", usage.windows.reason)
    split, given = use.split, use.joules(use.name_ns)
    kernels_j = math.fsum(given.energy_j[~names.is_meter])
    meter_j = math.fsum(given.energy_j[names.is_meter]) + math.fsum(split.meter_j)
    static_j = math.fsum(split.static_j) if use.policy is StaticPolicy.SEPARATE else 0.0
    idle_j, unattributed_j = math.fsum(split.idle_j), math.fsum(split.unattributed_j)
    parts = (kernels_j, static_j, idle_j, meter_j, unattributed_j)
    return EnergyBalance(
        device=usage.device.index,
        method=energy_method(usage),
        reason=usage.windows.reason,
        measured_j=split.measured_j,
        kernels_j=kernels_j,
        static_j=static_j,
        idle_j=idle_j,
        meter_j=meter_j,
        unattributed_j=unattributed_j,
        residual_j=split.measured_j - math.fsum(parts),
        raw_residual_fraction=split.raw_residual_fraction,
        raw_residual_p95=split.raw_residual_p95,
        sampling_j=math.fsum(split.sampling_j),
        num_windows=len(split.idle_j),
        mode=split.mode,
        profile=profile_source(usage),
        static_policy=use.policy,
        resolved_share=split.resolved_share,
    )


def request_balance(parts: Sequence[LatencyParts | None], is_of_run: NDArray[Any]) -> RequestBalance:
    """Largest difference between a request's end-to-end time and the sum of its parts, of the requests of the run."""
    residuals = [
        abs(part.residual_ns) for part, counts in zip(parts, is_of_run, strict=True) if counts and part is not None
    ]
    if residuals:
        return RequestBalance(len(residuals), max(residuals))
    reason = "no request finished that rode a recorded step" if is_of_run.any() else "no client recorded a request"
    return RequestBalance(0, None, reason)
