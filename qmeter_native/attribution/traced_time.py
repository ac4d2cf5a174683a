"""When the kernels of a device were recorded, and what that makes of time and energy elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.intervals import Intervals
from qmeter_native.model.capture import Capture

__all__ = ["Pieces", "traced_time"]

_Array = NDArray[Any]


def traced_time(capture: Capture, device: int) -> Intervals:
    """The part of the measured window in which the kernels of all processes on ``device`` were recorded.

    A process without windows was traced all the time. One with windows is known to have lived from its first window or
    step to its last, and what lies between its windows is untraced; before and after that others speak for the device.
    """
    manifest, windows = capture.manifest, capture.trace_windows
    whole = Intervals.whole(manifest.measure_start_ns, manifest.measure_end_ns)
    if len(windows) == 0:
        return whole
    users = _users(capture, device)
    windowed = np.unique(windows.process)
    if np.setdiff1d(users, windowed).size:
        recorded = whole
    else:
        is_user = np.isin(windows.process, users)
        recorded = Intervals.of(windows.start_ns[is_user], windows.end_ns[is_user])
    for process in np.intersect1d(users, windowed).tolist():
        recorded = recorded.minus(_unrecorded(capture, process))
    return recorded.clipped(manifest.measure_start_ns, manifest.measure_end_ns)


def _users(capture: Capture, device: int) -> _Array:
    """Processes with kernels or steps on a device; if there are none, all that could have had some."""
    kernels, steps = capture.kernels, capture.steps
    counts = np.bincount(kernels.process[kernels.device == device])
    users = np.union1d(np.flatnonzero(counts), steps.process[steps.device == device])
    return users if len(users) else np.unique(capture.trace_windows.process)


def _unrecorded(capture: Capture, process: int) -> Intervals:
    """Time in which a process lived without being recorded."""
    windows, steps = capture.trace_windows, capture.steps
    is_window, is_step = windows.process == process, steps.process == process
    recorded = Intervals.of(windows.start_ns[is_window], windows.end_ns[is_window])
    start = np.concatenate([windows.start_ns[is_window], steps.start_ns[is_step]])
    end = np.concatenate([windows.end_ns[is_window], steps.end_ns[is_step]])
    return Intervals.whole(int(start.min()), int(end.max())).minus(recorded)


@dataclass(frozen=True, slots=True)
class Pieces:
    """The measured window, cut where an energy window ends and where tracing began or ended.

    Attributes:
        cuts_ns: int64, bounds of the pieces.
        energy_window: int64, the energy window in which each piece lies.
        traced_window: int64, the traced interval in which each piece lies, -1 for none.
    """

    cuts_ns: _Array
    energy_window: _Array
    traced_window: _Array

    @classmethod
    def of(cls, energy_cuts_ns: _Array, traced: Intervals) -> Pieces:
        """Cut the time between the first and the last of ``energy_cuts_ns``, in which all of ``traced`` lies."""
        cuts = np.union1d(energy_cuts_ns, np.concatenate([traced.start_ns, traced.end_ns]))
        if len(cuts) < 2:  # a measured window without length
            cuts = energy_cuts_ns
        window = np.searchsorted(energy_cuts_ns, cuts[:-1], "right") - 1
        return cls(cuts, np.minimum(window, len(energy_cuts_ns) - 2), traced.find(cuts[:-1]))

    @property
    def is_traced(self) -> _Array:
        """Mask of the pieces in which kernels were recorded."""
        return self.traced_window >= 0

    @property
    def length_ns(self) -> _Array:
        """int64, length of each piece."""
        lengths: _Array = np.diff(self.cuts_ns)
        return lengths

    def by_energy_window(self, time_ns: _Array, num_windows: int) -> _Array:
        """int64 ``(energy windows,)``: sums of ``time_ns``, one a piece, over the traced pieces of each."""
        sums = np.bincount(self.energy_window, np.where(self.is_traced, time_ns, 0), num_windows)
        return sums.astype(np.int64)
