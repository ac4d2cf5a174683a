"""What the states of a PM sampling session cost in watts, from a capture whose ranges name them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from qmeter_native.attribution.energy_curve import EnergyCurve
from qmeter_native.model.capture import Capture
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.units import NS_PER_S
from tools.results import Metric

__all__ = ["STATES", "StateWindow", "decay_s", "power_metrics", "state_windows"]

STATES = ("none", "enabled", "started_50us", "stopped", "disabled", "started_10us")
"""Of a session: never there, enabled and not started, sampling, stopped, torn down."""
_BASE = ("none", "disabled")
"""States without a session, which the others are compared with."""
_SETTLE_S = 0.8
"""After a change of load or state, before power counts: the sensor averages over 0.1 s, clocks take longer."""
_MIN_STEP_W = 3.0
"""A smaller step has no decay to be seen in samples that scatter by some watts."""


@dataclass(frozen=True, slots=True)
class StateWindow:
    """One window: a state under a load in a cycle, and its mean power."""

    state: str
    load: str
    cycle: int
    start_ns: int
    end_ns: int
    power_w: float

    @staticmethod
    def range_name(state: str, load: str, cycle: int) -> str:
        """The name of its range in the capture."""
        return f"pm:{state}:{load}:{cycle}"


def state_windows(capture: Capture, device: int) -> list[StateWindow]:
    """The windows of a capture in order of time, each without its beginning."""
    curve = EnergyCurve.of(capture, device)
    if curve is None:
        raise SystemExit("the capture has no energy readings")
    windows = []
    ranges = capture.ranges
    for row in np.argsort(ranges.start_ns):
        prefix, *words = str(ranges.name[row]).split(":")
        if prefix != "pm" or len(words) != 3:
            continue
        start_ns, end_ns = int(ranges.start_ns[row]) + round(_SETTLE_S * NS_PER_S), int(ranges.end_ns[row])
        energy_j, _ = curve.between(np.array([start_ns, end_ns]))
        power_w = float(energy_j[0]) / ((end_ns - start_ns) / NS_PER_S)
        windows.append(StateWindow(words[0], words[1], int(words[2]), start_ns, end_ns, power_w))
    return windows


def power_metrics(capture: Capture, device: int) -> dict[str, Metric]:
    """Watts by state and load, and above the windows without a session of the same cycle."""
    windows = state_windows(capture, device)
    power, extra = defaultdict(list), defaultdict(list)
    for window in windows:
        power[f"{window.load}_{window.state}_w"].append(window.power_w)
        if window.state not in _BASE:
            extra[f"{window.load}_{window.state}_extra_w"].append(window.power_w - _base_w(window, windows))
    metrics = {key: Metric.of_repeats(values, "W") for key, values in (power | extra).items()}
    decays = decay_s(capture, device, windows)
    if decays:
        metrics["idle_decay_s"] = Metric.of_repeats(decays, "s")
    return metrics


def _base_w(window: StateWindow, windows: Iterable[StateWindow]) -> float:
    """Power without a session when the window ran: along a line through its cycle's windows of the same load."""
    base = [one for one in windows if one.state in _BASE and (one.load, one.cycle) == (window.load, window.cycle)]
    times = np.array([(one.start_ns - window.start_ns) / NS_PER_S for one in base])
    return float(np.interp(0.0, times, [one.power_w for one in base]))


def decay_s(capture: Capture, device: int, windows: Iterable[StateWindow]) -> list[float]:
    """By cycle, seconds from the call that ends the session until nine tenths of its idle power are gone.

    By the driver's power samples, medians of five. Cycles whose step is below 3 W have none.
    """
    table = capture.power
    rows = np.flatnonzero((table.device == device) & (table.source == EnergySource.NVML_POWER_SAMPLES))
    rows = rows[np.argsort(table.time_ns[rows], kind="stable")]
    time_ns, power_w = table.time_ns[rows], table.power_mw[rows] / 1e3
    if len(rows) < 5:
        return []
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(power_w, 5), axis=1)
    middle_ns = time_ns[2:-2]
    idle = {(window.state, window.cycle): window for window in windows if window.load == "idle"}
    found = []
    for (state, cycle), after in idle.items():
        before = idle.get(("stopped", cycle))
        if state != "disabled" or before is None:
            continue
        target_w = after.power_w + 0.1 * (before.power_w - after.power_w)
        is_gone = (middle_ns > before.end_ns) & (middle_ns < after.end_ns) & (smooth <= target_w)
        if before.power_w - after.power_w >= _MIN_STEP_W and is_gone.any():
            found.append(float(middle_ns[np.argmax(is_gone)] - before.end_ns) / NS_PER_S)
    return found
