"""A run of loads from start to capture: which kernels run, pilots, counters, the plan's windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from qmeter_native.calibration.load_kernel import LoadKernel
from qmeter_native.calibration.load_kernels import LoadCheck, all_loads, check_loads, trace_loads
from qmeter_native.calibration.load_plan import LoadPlan, PilotLoad
from qmeter_native.calibration.load_run import build_launches, count_loads, pilot_loads, power_w, run_loads
from qmeter_native.calibration.load_window import LoadWindow
from qmeter_native.calibration.load_windows import workload_of
from qmeter_native.capture.counter_sampler import CounterOptions
from qmeter_native.capture.session import Session, SessionOptions
from qmeter_native.devices.gpu_database import ChipInfo, chip_info
from qmeter_native.errors import QmeterError
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import DeviceInfo

__all__ = ["chip_of", "record_loads", "traced_loads"]

_EDGE_PERIOD_S: Final = 0.2
"""Every other tick of a counter that steps every 0.1 s."""
_EDGE_CPU_SHARE: Final = 0.5
"""Most of a core that finding edges may take: nothing else is measured meanwhile."""
_IDLE_S: Final = 2.0

Planner = Callable[[Mapping[str, PilotLoad], float], LoadPlan]


def traced_loads(
    path: Path, device: int, progress: Callable[[str], None], kernels: Sequence[LoadKernel] | None = None
) -> list[LoadCheck]:
    """Launch every load in a capture of its own, and say what each ran; see `load_kernels.chosen_loads`.

    Args:
        path: Of the capture, which stays.
        device: CUDA ordinal.
        progress: Is told each name.
        kernels: Which; all of them if None.
    """
    wanted = all_loads() if kernels is None else list(kernels)
    with _session(path) as session:
        failures = trace_loads(wanted, device, session, progress)
        capture = session.close()
    return check_loads(capture, wanted, failures)


def record_loads(
    path: Path,
    device: int,
    checks: Sequence[LoadCheck],
    planner: Planner,
    progress: Callable[[str], None],
    on_window: Callable[[LoadWindow, LoadPlan], None],
    has_counters: bool = True,
    left_out: Mapping[str, str] | None = None,
) -> Capture:
    """Run loads as planned. An interruption ends it early; what was recorded until then is kept.

    Args:
        path: Of the capture.
        device: CUDA ordinal.
        checks: The loads, from `chosen_loads`.
        planner: Makes the plan from each kind's pilot and the idle power in watts.
        progress: Is told what happens before the plan's windows.
        on_window: Is told each window of the plan before it runs.
        has_counters: Whether to sample hardware counters of each kind alone first.
        left_out: Names of loads that do not run, and why.

    Raises:
        CaptureError: The capture exists already or cannot be written.
        DeviceError: There is no GPU, or its power cannot be read.
    """
    with _session(path) as session:
        session.describe(workload=workload_of(checks, left_out or {}))
        try:
            _record(session, device, checks, planner, progress, on_window, has_counters)
        except KeyboardInterrupt:
            session.warn("interrupted", "The loads were interrupted; windows of the plan are missing.")
        return session.close()


def _record(
    session: Session,
    device: int,
    checks: Sequence[LoadCheck],
    planner: Planner,
    progress: Callable[[str], None],
    on_window: Callable[[LoadWindow, LoadPlan], None],
    has_counters: bool,
) -> None:
    launches = build_launches(checks, device)
    times_s = {check.kernel.name: check.time_s for check in checks}
    time.sleep(_IDLE_S)
    idle_w = power_w(session, device)
    progress(f"idle: {idle_w:.0f} W")
    if has_counters:
        try:
            with session.counting(session.state.cuda_devices[device], CounterOptions()) as sampler:
                count_loads(launches, times_s, sampler, device, lambda name: progress(f"counters: {name}"))
        except QmeterError as error:
            progress(f"no counters: {error.what}")
            session.warn("counters_absent", f"No hardware counters were sampled: {error.what}.")
    pilots = pilot_loads(launches, times_s, session, device, progress)
    plan = planner(pilots, idle_w)
    run_loads(plan, launches, session, device, lambda window: on_window(window, plan))


def chip_of(info: DeviceInfo) -> ChipInfo | None:
    """The datasheet of a device; None if it is not known."""
    return chip_info(info.name, info.properties.get("compute_capability"))


def _session(path: Path) -> Session:
    options = SessionOptions(device="cuda", edge_period_s=_EDGE_PERIOD_S, counter_cpu_share=_EDGE_CPU_SHARE)
    return Session(path, options)
