"""What the sensor saw: a device's energy, window by window, over exactly the measured window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_curve import EnergyCurve, memory_energy
from qmeter_native.attribution.power_samples import FinerWindows, PowerSamples
from qmeter_native.attribution.sensor_view import SensorView, SensorWindow
from qmeter_native.model.capture import Capture
from qmeter_native.model.device_profile import SensorModel
from qmeter_native.model.manifest import DeviceInfo
from qmeter_native.units import NS_PER_S

__all__ = ["EnergyWindows", "energy_windows"]

_Array = NDArray[Any]

_POWER_WINDOW_NS: Final = NS_PER_S
"""Windows of integrated power: long against the 20 to 27 ms by which samples lag and the 25 to 100 ms they average."""
_SHORTEST_NS: Final = NS_PER_S // 2
_LONGEST_NS: Final = NS_PER_S
"""Windows end at the first edge after this: long against the milliseconds by which an edge's time is uncertain, short
enough that a run has many unlike ones. Runs of up to 50 s take the shortest."""
_RUN_WINDOWS: Final = 100
_PART_S: Final = 0.2
"""Parts of windows, by the driver's power samples: ten samples of 20 ms."""
_DECAY_NS: Final = NS_PER_S
"""For so long power stays raised after a PM sampling session was torn down."""


@dataclass(frozen=True, slots=True)
class EnergyWindows:
    """Energy of one device.

    Attributes:
        cuts_ns: int64, bounds of the windows, from the start to the end of the measured window.
        energy_j: float64, energy of each window; None if there is no source.
        error_j: float64, the sensor's standard error of each; 0 without a source.
        total_error_j: The sensor's standard error of all windows together.
        is_metered: Mask of the windows in which a counter phase ran or its power had not decayed.
        parts: The windows cut finer by the driver's power samples, else the windows themselves.
        is_part_metered: Mask of the parts, like ``is_metered``.
        source: What was read, in words.
        reason: Why ``energy_j`` is None, or what weakens it.
        systematic: Relative error that does not shrink with repeats; None if not known.
        memory_j: Energy of all windows by the memory's own power readings; None if they were not read.
        is_declared: Nothing was measured: the energy is that of a declared power.
        view: How the sensor weighs time; None if it is taken to see all alike.
    """

    cuts_ns: _Array
    energy_j: _Array | None
    error_j: _Array
    total_error_j: float
    is_metered: _Array
    parts: FinerWindows
    is_part_metered: _Array
    source: str
    reason: str | None = None
    systematic: float | None = None
    memory_j: float | None = None
    is_declared: bool = False
    view: SensorView | None = None

    @property
    def highest_w(self) -> float | None:
        """The highest mean power of a window; None without a source or energy."""
        length_s = np.diff(self.cuts_ns) / NS_PER_S
        if self.energy_j is None or not length_s.all():
            return None
        return float((self.energy_j / length_s).max()) or None

    def declared(self, busy_ns: _Array, power_w: float) -> EnergyWindows:
        """The same windows with ``power_w`` for busy time and nothing for idle time, where nothing was measured."""
        energy_j = power_w * busy_ns / NS_PER_S
        return replace(
            self,
            energy_j=energy_j,
            parts=replace(self.parts, energy_j=energy_j),
            source=f"declared power of {power_w:g} W while kernels ran",
            reason=f"nothing was measured: {self.reason}",
            is_declared=True,
            view=None,
        )


def energy_windows(capture: Capture, device: DeviceInfo, sensor: SensorModel | None = None) -> EnergyWindows:
    """The energy of ``device`` in the measured window: by its counter, else by its power readings, else missing.

    ``sensor`` is what calibration found out about its sensors; without it power samples do not cut windows finer, and
    how the counter weighs time is taken from parts of that name.
    """
    start_ns, end_ns = capture.manifest.measure_start_ns, capture.manifest.measure_end_ns
    window = SensorWindow.of(device.name, sensor)
    view = None if window is None else SensorView.of(capture, device.index, window)
    curve = EnergyCurve.of(capture, device.index, None if view is None else view.ticks)
    if curve is None:
        whole = np.array([start_ns, end_ns])
        return EnergyWindows(
            cuts_ns=whole,
            energy_j=None,
            error_j=np.zeros(1),
            total_error_j=0.0,
            is_metered=np.zeros(1, bool),
            parts=_uncut(whole, np.zeros(1), np.zeros(1)),
            is_part_metered=np.zeros(1, bool),
            source="none",
            reason=device.energy_absent_reason or "no energy or power reading covers the measured window",
        )
    cuts_ns = _cuts(curve, start_ns, end_ns)
    energy_j, error_j = curve.between(cuts_ns)
    samples = None if len(cuts_ns) > _RUN_WINDOWS else _samples(capture, device.index, curve, sensor)
    if samples is None:
        parts = _uncut(cuts_ns, energy_j, error_j)
    else:
        parts = samples.finer(cuts_ns, energy_j, error_j, _PART_S)
    is_weak = len(curve.edge_ns) == 0 and curve.coverage <= 0.95
    return EnergyWindows(
        cuts_ns=cuts_ns,
        energy_j=energy_j,
        error_j=error_j,
        total_error_j=float(curve.between(cuts_ns[[0, -1]])[1][0]),
        is_metered=_metered(capture, device.index, cuts_ns),
        parts=parts,
        is_part_metered=_metered(capture, device.index, parts.cuts_ns),
        source=curve.source,
        reason=f"the readings span {curve.coverage:.0%} of the measured window" if is_weak else None,
        systematic=curve.systematic,
        memory_j=memory_energy(capture, device.index),
        view=view if len(curve.edge_ns) else None,
    )


def _uncut(cuts_ns: _Array, energy_j: _Array, error_j: _Array) -> FinerWindows:
    return FinerWindows(cuts_ns, np.arange(len(energy_j)), energy_j, error_j)


def _samples(capture: Capture, device: int, curve: EnergyCurve, sensor: SensorModel | None) -> PowerSamples | None:
    """Samples that may cut windows of a counter: only where their lag and averaging are known."""
    if sensor is None or sensor.window_s.value is None or sensor.lag_s.value is None or len(curve.edge_ns) == 0:
        return None
    return PowerSamples.of(capture, device, sensor.window_s.value, sensor.lag_s.value)


def _cuts(curve: EnergyCurve, start_ns: int, end_ns: int) -> _Array:
    if len(curve.edge_ns) == 0:
        count = max(1, (end_ns - start_ns) // _POWER_WINDOW_NS)
        return np.asarray(np.linspace(0, end_ns - start_ns, count + 1).round().astype(np.int64) + start_ns)
    length_ns = min(max((end_ns - start_ns) // _RUN_WINDOWS, _SHORTEST_NS), _LONGEST_NS)
    edges = curve.edge_ns[(curve.edge_ns >= start_ns + length_ns) & (curve.edge_ns <= end_ns - length_ns)]
    cuts, at = [start_ns], 0
    while at < len(edges):
        cuts.append(int(edges[at]))
        at = int(np.searchsorted(edges, cuts[-1] + length_ns))
    return np.array([*cuts, end_ns])


def _metered(capture: Capture, device: int, cuts_ns: _Array) -> _Array:
    phases = capture.counter_windows
    is_here = phases.device == device
    begin, end = phases.enable_ns[is_here], phases.disable_ns[is_here] + _DECAY_NS
    overlaps = (begin < cuts_ns[1:, None]) & (end > cuts_ns[:-1, None])
    return np.asarray(overlaps.any(axis=1))
