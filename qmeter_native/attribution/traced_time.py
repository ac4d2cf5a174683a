"""When the kernels of a device were recorded, and what that makes of time and energy elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.intervals import Intervals
from qmeter_native.model.capture import Capture

__all__ = ["Pieces", "traced_time"]

_Array = NDArray[Any]

_MIN_WINDOWS: Final = 3
"""Of fewer, the first and the last are no sample: they begin and end with the process, or as the user said."""


def traced_time(capture: Capture, device: int) -> Intervals:
    """The part of the measured window in which the kernels of all processes on ``device`` were recorded.

    A process without windows was traced all the time. One with windows is known to have lived from its first window or
    step to its last, and what lies between its windows is untraced; before and after that others speak for the device.
    Windows are those of `_device_windows`, in the time of the device.
    """
    manifest = capture.manifest
    whole = Intervals.whole(manifest.measure_start_ns, manifest.measure_end_ns)
    if len(capture.trace_windows) == 0:
        return whole
    users = _users(capture, device)
    windowed = np.intersect1d(users, capture.trace_windows.process).tolist()
    windows = {process: _device_windows(capture, process, device) for process in windowed}
    recorded = whole if len(windowed) < len(users) else _union(list(windows.values()))
    for process, recording in windows.items():
        recorded = recorded.minus(_unrecorded(capture, process, recording))
    return recorded.clipped(manifest.measure_start_ns, manifest.measure_end_ns)


def _users(capture: Capture, device: int) -> _Array:
    """Processes with kernels or steps on a device; if there are none, all that could have had some."""
    kernels, steps = capture.kernels, capture.steps
    counts = np.bincount(kernels.process[kernels.device == device])
    users = np.union1d(np.flatnonzero(counts), steps.process[steps.device == device])
    return users if len(users) else np.unique(capture.trace_windows.process)


def _device_windows(capture: Capture, process: int, device: int) -> Intervals:
    """The trace windows of a process in the time of ``device``: each moved by the process's queue lag.

    CUPTI records a kernel if tracing was on when it was launched. A process that launches ahead of its GPU has kernels
    queued when a window begins: these run at its head and are not recorded, while kernels launched before its end are
    recorded after it. Windows as the process wrote them would lose a queue's length of busy time each: 8 % of windows
    of 0.1 s at a lag of 8 ms.

    The lag is the shortest time from the beginning of any window to a kernel that began after that, so no window loses
    a kernel at its head by being moved. A longer queue in other windows is not made up for, nor is any if kernels of
    the window before still run, or if one stream (copies, say) has no queue. A GPU with little to do may show more lag
    than there is: its windows keep their length and their kernels, so estimates from them stay as they are. A window
    moves by half its length at most. Fewer than 3 windows stay where they are.
    """
    is_window = capture.trace_windows.process == process
    windows = Intervals.of(capture.trace_windows.start_ns[is_window], capture.trace_windows.end_ns[is_window])
    if len(windows) < _MIN_WINDOWS:
        return windows
    kernels = capture.kernels
    start_ns = kernels.start_ns[(kernels.process == process) & (kernels.device == device)]
    start_ns = start_ns[start_ns >= windows.start_ns[0]]
    if len(start_ns) == 0:
        return windows
    lag_ns = (start_ns - windows.start_ns[np.searchsorted(windows.start_ns, start_ns, "right") - 1]).min()
    moved_ns = np.minimum(lag_ns, (windows.end_ns - windows.start_ns) // 2)
    return Intervals.of(windows.start_ns + moved_ns, windows.end_ns + moved_ns)


def _union(sets: Sequence[Intervals]) -> Intervals:
    return Intervals.of(
        np.concatenate([each.start_ns for each in sets]), np.concatenate([each.end_ns for each in sets])
    )


def _unrecorded(capture: Capture, process: int, recording: Intervals) -> Intervals:
    """Time in which a process lived without being recorded."""
    windows, steps = capture.trace_windows, capture.steps
    is_window, is_step = windows.process == process, steps.process == process
    start = np.concatenate([windows.start_ns[is_window], recording.start_ns, steps.start_ns[is_step]])
    end = np.concatenate([windows.end_ns[is_window], recording.end_ns, steps.end_ns[is_step]])
    return Intervals.whole(int(start.min()), int(end.max())).minus(recording)


@dataclass(frozen=True, slots=True)
class Pieces:
    """The measured window, cut where an energy window ends and where tracing began or ended.

    Attributes:
        cuts_ns: int64, bounds of the pieces.
        energy_window: int64, the energy window, or part of one, in which each piece lies.
        whole_window: int64, the energy window in which each piece lies.
        traced_window: int64, the traced interval in which each piece lies, -1 for none.
    """

    cuts_ns: _Array
    energy_window: _Array
    whole_window: _Array
    traced_window: _Array

    @classmethod
    def of(cls, energy_cuts_ns: _Array, parent: _Array, traced: Intervals) -> Pieces:
        """Cut the time between the first and the last of ``energy_cuts_ns``, in which all of ``traced`` lies.

        Args:
            energy_cuts_ns: int64, bounds of energy windows or parts of them.
            parent: int64, the window of each part.
            traced: When kernels were recorded.
        """
        cuts = np.union1d(energy_cuts_ns, np.concatenate([traced.start_ns, traced.end_ns]))
        if len(cuts) < 2:  # a measured window without length
            cuts = energy_cuts_ns
        window = np.searchsorted(energy_cuts_ns, cuts[:-1], "right") - 1
        window = np.minimum(window, len(energy_cuts_ns) - 2)
        return cls(cuts, window, parent[window], traced.find(cuts[:-1]))

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
