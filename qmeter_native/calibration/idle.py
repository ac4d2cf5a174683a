"""Idle power of a GPU and how it grows with temperature, from the idle windows of captures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from qmeter_native.attribution.energy_curve import EnergyCurve
from qmeter_native.attribution.window_conditions import mean_temperature
from qmeter_native.calibration.load_window import LoadWindow, WindowRole
from qmeter_native.model.capture import Capture
from qmeter_native.model.power_model import PowerModel
from qmeter_native.units import NS_PER_S

__all__ = ["with_idle_power"]

_MIN_WARMTH_K: Final = 3.0
"""Spread of temperature from which leakage can be told from noise."""
_MAX_LEAKAGE: Final = 1.0
"""Watts a kelvin; more is not leakage."""


def with_idle_power(model: PowerModel, captures: Sequence[Capture], device: int) -> PowerModel:
    """The model with the idle power of the captures' idle windows; unchanged if they have none.

    Args:
        model: Any.
        captures: With ranges of idle windows (`LoadWindow`).
        device: ``DeviceInfo.index``.
    """
    windows = [window for capture in captures for window in _idle_windows(capture, device)]
    if not windows:
        return model
    power_w = np.array([power for power, _ in windows])
    read = [(power, warmth) for power, warmth in windows if warmth is not None]
    if not read:
        return replace(model, idle_w=float(power_w.mean()))
    powers, warmth = np.array(read, float).T
    leakage = 0.0
    if np.ptp(warmth) >= _MIN_WARMTH_K:
        leakage = float(np.clip(np.polyfit(warmth, powers, 1)[0], 0.0, _MAX_LEAKAGE))
    return replace(model, idle_w=float(powers.mean()), idle_w_per_k=leakage, idle_temperature_c=float(warmth.mean()))


def _idle_windows(capture: Capture, device: int) -> Iterator[tuple[float, float | None]]:
    """Watts and degrees Celsius of each idle window."""
    curve = EnergyCurve.of(capture, device)
    ranges = capture.ranges
    for name, start_ns, end_ns in zip(ranges.name, ranges.start_ns, ranges.end_ns, strict=True):
        window = LoadWindow.of_range(str(name))
        if curve is None or window is None or window.role is not WindowRole.IDLE:
            continue
        energy_j, _ = curve.between(np.array([start_ns, end_ns], np.int64))
        info = next(info for info in capture.manifest.devices if info.index == device)
        yield (
            float(energy_j[0]) / (int(end_ns - start_ns) / NS_PER_S),
            mean_temperature(capture, info, int(start_ns), int(end_ns)),
        )
