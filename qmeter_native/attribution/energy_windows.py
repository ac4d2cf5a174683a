"""What the sensor saw: a device's energy, window by window, over exactly the measured window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_curve import EnergyCurve
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import DeviceInfo
from qmeter_native.units import NS_PER_S

__all__ = ["EnergyWindows", "energy_windows"]

_Array = NDArray[Any]

_POWER_WINDOW_NS: Final = NS_PER_S
"""Windows of integrated power: long against the 20 to 27 ms by which samples lag and the 25 to 100 ms they average."""


@dataclass(frozen=True, slots=True)
class EnergyWindows:
    """Energy of one device.

    Attributes:
        cuts_ns: int64, bounds of the windows, from the start to the end of the measured window.
        slack_ns: float64, by how much each bound's time is uncertain.
        energy_j: float64, energy of each window; None if there is no source.
        source: What was read, in words.
        reason: Why ``energy_j`` is None, or what weakens it.
        systematic: Relative error that does not shrink with repeats; None if not known.
    """

    cuts_ns: _Array
    slack_ns: _Array
    energy_j: _Array | None
    source: str
    reason: str | None = None
    systematic: float | None = None


def energy_windows(capture: Capture, device: DeviceInfo) -> EnergyWindows:
    """The energy of ``device`` in the measured window: by its counter, else by its power readings, else missing."""
    start_ns, end_ns = capture.manifest.measure_start_ns, capture.manifest.measure_end_ns
    curve = EnergyCurve.of(capture, device.index)
    if curve is None:
        return EnergyWindows(
            cuts_ns=np.array([start_ns, end_ns]),
            slack_ns=np.zeros(2),
            energy_j=None,
            source="none",
            reason=device.energy_absent_reason or "no energy or power reading covers the measured window",
        )
    cuts_ns = _cuts(curve, start_ns, end_ns)
    is_weak = len(curve.edge_ns) == 0 and curve.coverage <= 0.95
    return EnergyWindows(
        cuts_ns=cuts_ns,
        slack_ns=curve.slack_ns(cuts_ns),
        energy_j=curve.between(cuts_ns)[0],
        source=curve.source,
        reason=f"the readings span {curve.coverage:.0%} of the measured window" if is_weak else None,
        systematic=curve.systematic,
    )


def _cuts(curve: EnergyCurve, start_ns: int, end_ns: int) -> _Array:
    if len(curve.edge_ns) == 0:
        count = max(1, (end_ns - start_ns) // _POWER_WINDOW_NS)
        return np.asarray(np.linspace(0, end_ns - start_ns, count + 1).round().astype(np.int64) + start_ns)
    inner = curve.edge_ns[(curve.edge_ns > start_ns) & (curve.edge_ns < end_ns)]
    return np.concatenate([[start_ns], inner, [end_ns]])
