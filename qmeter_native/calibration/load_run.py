"""Running loads in a session: pilots, then the windows of a plan, each a range of the capture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from qmeter_native.calibration.load_kernel import Launch
from qmeter_native.calibration.load_kernels import LoadCheck
from qmeter_native.calibration.load_plan import IDLE_SETTLE_S, SETTLE_S, LoadPlan, PilotLoad
from qmeter_native.calibration.load_slots import LoadSlots
from qmeter_native.calibration.load_window import PILOT_RANGE, LoadWindow, WindowRole
from qmeter_native.errors import DeviceError
from qmeter_native.units import mw_to_w

__all__ = ["build_launches", "count_loads", "pilot_loads", "power_w", "run_loads"]

_SLOT_S: Final = 0.02
_PILOT_SETTLE_S: Final = 0.5
_PILOT_S: Final = 0.8
_POLL_S: Final = 0.05
_COUNT_S: Final = 0.2

Progress = Callable[[str], None]


def build_launches(checks: Sequence[LoadCheck], device: int) -> dict[str, Launch]:
    """The launch of each checked load, by name; its data are on a CUDA ordinal, and it has been launched once."""
    import torch

    launches = {}
    with torch.cuda.device(device):
        for check in checks:
            launches[check.kernel.name] = check.kernel.build(device)
            launches[check.kernel.name]()
        torch.cuda.synchronize()
    return launches


def pilot_loads(
    launches: Mapping[str, Launch], times_s: Mapping[str, float], session: Any, device: int, progress: Progress
) -> dict[str, PilotLoad]:
    """Time and power of each kind alone without gaps, for planning; each in a range ``pilot:<name>``.

    Args:
        launches: By name, from `build_launches`.
        times_s: Roughly the time of a launch.
        session: That samples power.
        device: CUDA ordinal.
        progress: Is told what was found.

    Raises:
        DeviceError: The session reads no power of the device.
    """
    import torch

    pilots = {}
    with torch.cuda.device(device):
        for name in launches:
            count = max(1, round(_SLOT_S / times_s[name]))
            slots = LoadSlots(launches, {name: count}, 0.0, seed=0)
            slots.run(_PILOT_SETTLE_S)
            with session.range(PILOT_RANGE + name):
                pilots[name] = _pilot(slots, count, session, device)
            torch.cuda.synchronize()
            progress(f"{name}: {pilots[name].time_s * 1e6:.1f} us, {pilots[name].power_w:.0f} W")
    return pilots


def _pilot(slots: LoadSlots, count: int, session: Any, device: int) -> PilotLoad:
    before, elapsed_s, powers_w = slots.num_replays, 0.0, []
    while elapsed_s < _PILOT_S:
        elapsed_s += slots.run(_POLL_S)
        powers_w.append(power_w(session, device))
    return PilotLoad(elapsed_s / (count * (slots.num_replays - before)), sum(powers_w) / len(powers_w))


def power_w(session: Any, device: int) -> float:
    """The newest reading of a CUDA ordinal's power in watts.

    Raises:
        DeviceError: There is none.
    """
    index = session.state.cuda_devices[device]
    power_mw = next((reading["power_mw"] for reading in session.live() if reading["index"] == index), None)
    if power_mw is None:
        raise DeviceError(f"the power of CUDA device {device} cannot be read", "`qmeter-native doctor` says why.")
    return mw_to_w(power_mw)


def run_loads(
    plan: LoadPlan, launches: Mapping[str, Launch], session: Any, device: int, progress: Callable[[LoadWindow], None]
) -> None:
    """Run the windows of a plan, each in a range `LoadWindow.range_name`.

    An interruption leaves the ranges of the windows before it, and that of the window that it cut short.

    Args:
        plan: What.
        launches: By name, from `build_launches`.
        session: That samples energy and traces kernels.
        device: CUDA ordinal.
        progress: Is told each window before it runs.
    """
    import torch

    with torch.cuda.device(device):
        try:
            for window in plan.windows:
                progress(window)
                _run_window(window, launches, session)
                torch.cuda.synchronize()  # its graphs must not be freed while they run
        finally:
            torch.cuda.synchronize()


def _run_window(window: LoadWindow, launches: Mapping[str, Launch], session: Any) -> None:
    if window.role is WindowRole.IDLE:
        time.sleep(IDLE_SETTLE_S)
        with session.range(window.range_name):
            time.sleep(window.length_s)
        return
    slots = LoadSlots(launches, window.counts, window.slot_s, seed=window.number)
    slots.run(SETTLE_S)
    with session.range(window.range_name):
        slots.run(window.length_s)


def count_loads(
    launches: Mapping[str, Launch], times_s: Mapping[str, float], sampler: Any, device: int, progress: Progress
) -> None:
    """Run each kind alone for a moment while hardware counters are sampled.

    Args:
        launches: By name, from `build_launches`.
        times_s: Roughly the time of a launch.
        sampler: Of PM samples, set up for the whole pass: ``start`` and ``stop`` are called around each kind.
        device: CUDA ordinal.
        progress: Is told each name.
    """
    import torch

    with torch.cuda.device(device):
        for name in launches:
            progress(name)
            slots = LoadSlots(launches, {name: max(1, round(_SLOT_S / times_s[name]))}, 0.0, seed=0)
            slots.run(_SLOT_S)
            sampler.start()
            try:
                slots.run(_COUNT_S)
                torch.cuda.synchronize()
            finally:
                sampler.stop()
