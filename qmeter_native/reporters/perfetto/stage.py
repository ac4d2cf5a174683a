"""What every part of the trace shares: the capture, its steps, the window, tracks and interned texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.shares import Rides
from qmeter_native.attribution.steps import StepSpans, step_spans
from qmeter_native.model.capture import Capture
from qmeter_native.model.phase import Phase
from qmeter_native.reporters.perfetto.lanes import pack_lanes
from qmeter_native.reporters.perfetto.packets import Interned
from qmeter_native.reporters.perfetto.tracks import Tracks
from qmeter_native.reporters.perfetto.window import Window

__all__ = ["PHASES", "Stage"]

_Array = NDArray[Any]

PHASES: Final = ("none", "prefill", "decode", "mixed")
"""Phases of a step by number: bit 0 is set if someone rode it in prefill, bit 1 in decode."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A capture on its way into a trace.

    Attributes:
        device_tracks: Track of each device by its index; readings and streams lie under it.
        spans: When each step ran.
        rides: Who rode which step.
    """

    capture: Capture
    window: Window
    spans: StepSpans
    rides: Rides
    device_tracks: dict[int, int]
    tracks: Tracks = field(default_factory=Tracks)
    texts: Interned = field(default_factory=Interned)

    @classmethod
    def of(cls, capture: Capture, window: Window) -> Stage:
        """Join the capture's tables, and add a track for each device."""
        rides = Rides.of(capture.steps, capture.step_requests, capture.requests)
        stage = cls(capture, window, step_spans(capture), rides, {})
        for device in capture.manifest.devices:
            stage.device_tracks[device.index] = stage.tracks.add(f"{device.kind}:{device.index} {device.name}")
        return stage

    def step_phases(self) -> _Array:
        """Number in `PHASES` of each row of the step table."""
        phases = np.zeros(len(self.capture.steps), np.int64)
        for bit, phase in ((1, Phase.PREFILL), (2, Phase.DECODE)):
            phases[self.rides.step_row[self.rides.phase == phase]] |= bit
        return phases

    def lanes(self, name: str, parent: int, start_ns: _Array, end_ns: _Array, *, may_nest: bool = False) -> _Array:
        """Track uuid of each slice: as many tracks called ``name`` as it takes for none to overlap."""
        lane = pack_lanes(start_ns, end_ns, may_nest=may_nest)
        count = int(lane.max()) + 1 if len(lane) else 0
        return np.array([self.tracks.add(name, parent) for _ in range(count)], np.int64)[lane]
