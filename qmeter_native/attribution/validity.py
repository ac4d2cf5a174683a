"""What attribution itself finds to limit its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from qmeter_native.attribution.energy_pool import profile_source
from qmeter_native.attribution.latency import sent_inside
from qmeter_native.attribution.steps import StepSpans, lost_steps
from qmeter_native.attribution.usage import DeviceUsage
from qmeter_native.model.capture import Capture
from qmeter_native.model.kernel_choice import KernelChoice
from qmeter_native.model.manifest import EngineInfo, Validity

__all__ = ["energy_caveat", "found_limits"]

_DUMMY_WEIGHTS: Final = (
    "The weights were dummies: mostly zeros, which draw far less power than trained ones. Times hold, energy does not."
)


def energy_caveat(engine: EngineInfo | None) -> str | None:
    """Why no energy figure of this run may be believed; None if they may."""
    return "invalid: dummy weights" if engine is not None and engine.weights_source == "dummy" else None


def found_limits(
    capture: Capture, usages: Sequence[DeviceUsage], spans: StepSpans, choice: KernelChoice | None
) -> list[Validity]:
    """One entry for each thing found, the gravest first."""
    found = []
    if choice is not None and choice.is_fallback:
        found.append(Validity("quantization_fallback", choice.message))
    if energy_caveat(capture.manifest.engine) is not None:
        found.append(Validity("dummy_weights_energy", _DUMMY_WEIGHTS))
    return [*found, *_of_devices(usages), *_of_records(capture, usages, spans)]


def _of_devices(usages: Sequence[DeviceUsage]) -> list[Validity]:
    found = []
    for usage in usages:
        subject = f"device {usage.device.index}"
        if usage.windows.is_declared:
            message = f"Energy is an estimate: nothing was measured, and a {usage.windows.source} is taken instead."
            found.append(Validity("energy_declared", message, subject))
        elif usage.energy is not None and usage.device.idle_power_w is None:
            message = f"Idle power was not measured before the run; it is the power model's ({profile_source(usage)})."
            found.append(Validity("idle_power_unknown", message, subject))
        if not usage.is_complete:
            message = (
                f"Kernels were recorded in {100 * usage.traced.total_ns / usage.wall_ns:.1f} % of the measured window; "
                "times and energy of kernels, phases and requests are of that part."
            )
            found.append(Validity("partly_traced", message, subject))
    return found


def _of_records(capture: Capture, usages: Sequence[DeviceUsage], spans: StepSpans) -> list[Validity]:
    found = []
    num_lost = int(lost_steps(capture, spans, {usage.device.index: usage.traced for usage in usages}).sum())
    if num_lost:
        message = f"{num_lost} engine steps lost a marker; their kernels are given to no request."
        found.append(Validity("lost_markers", message))
    num_short = _num_short_of_steps(capture)
    if num_short:
        message = (
            f"{num_short} finished requests received more tokens than the recorded steps sampled for them: later steps "
            "are missing, and their time counts as gaps or host."
        )
        found.append(Validity("missing_steps", message))
    listed = [device.index for device in capture.manifest.devices]
    num_elsewhere = int((~np.isin(capture.kernels.device, listed)).sum()) if listed else 0
    if num_elsewhere:
        message = f"{num_elsewhere} kernels ran on devices that the capture does not describe; they are left out."
        found.append(Validity("unlisted_device", message))
    return found


def _num_short_of_steps(capture: Capture) -> int:
    """Finished requests of the measured window that rode steps, but too few for their tokens on every process.

    With speculative decoding a step brings several tokens, so nothing can be told.
    """
    rides, requests = capture.step_requests, capture.requests
    requests = requests.take(requests.is_finished & sent_inside(capture.manifest, requests))
    if not len(rides) or not len(requests) or rides.num_draft.any():
        return 0
    order = np.argsort(requests.request)
    known, num_tokens = requests.request[order], requests.num_output_tokens[order]
    row = np.minimum(np.searchsorted(known, rides.request), len(known) - 1)
    is_known = known[row] == rides.request
    most = np.zeros(len(known), np.int64)
    for process in np.unique(rides.process):
        mine = is_known & (rides.process == process)
        most = np.maximum(most, np.bincount(row[mine], rides.num_sampled[mine], len(known)).astype(np.int64))
    has_rides = np.bincount(row[is_known], minlength=len(known)) > 0
    return int((has_rides & (most < num_tokens)).sum())
