"""Kernel → engine step.

On CUDA two marker kernels bound each step on the engine's stream. Their blocks are ``1 + sequence % 1024`` threads
wide, ``sequence`` being ``2 * step`` at the begin and ``2 * step + 1`` at the end, so each marker says which step it
belongs to, and a lost one costs that step only. Without markers (CPU) a step is the engine's call on the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.classify import op_family
from qmeter_native.attribution.intervals import Intervals
from qmeter_native.model.capture import Capture
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.tables import KernelClassTable

__all__ = ["StepSpans", "is_marker_class", "kernel_steps", "lost_steps", "step_spans", "traced_steps"]

_Array = NDArray[Any]

_SEQUENCE_PERIOD: Final = 1024
_SEQUENCE_AHEAD: Final = 128
"""A marker may be stamped up to 64 steps before its host call seems to begin (clocks differ by microseconds), and up
to 448 steps after: asynchronous engines run one or two ahead."""


@dataclass(frozen=True, slots=True)
class StepSpans:
    """When each step ran, one entry a row of `StepTable`.

    Attributes:
        start_ns: Start of the begin marker, or of the host call.
        end_ns: End of the end marker, or of the host call.
        is_on_device: The span is the device's: both markers were found.
        has_lost_marker: Markers were launched and not both found; no kernel is given to such a step. While kernels are
            not recorded no marker is found.
        stream: int64, stream of the markers; -1 where the span is the host's.
    """

    start_ns: _Array
    end_ns: _Array
    is_on_device: _Array
    has_lost_marker: _Array
    stream: _Array

    def on_device(self, capture: Capture, device: int) -> Intervals:
        """Union of the spans of the steps of one device."""
        is_here = capture.steps.device == device
        return Intervals.of(self.start_ns[is_here], self.end_ns[is_here])


def is_marker_class(classes: KernelClassTable) -> _Array:
    """Mask of the classes that are step markers."""
    return np.array([op_family(name) is OpFamily.METER for name in classes.name.tolist()], bool)


def step_spans(capture: Capture) -> StepSpans:
    """When each step ran, by its markers where they are, else by the host."""
    steps, kernels = capture.steps, capture.kernels
    count = len(steps)
    begin, end = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    stream = np.full(count, -1, np.int64)
    markers = np.flatnonzero(is_marker_class(capture.kernel_classes)[kernels.class_id])
    for process in np.unique(steps.process):
        rows = np.flatnonzero((steps.process == process) & (steps.num_markers > 0))
        rows = rows[np.argsort(steps.step[rows], kind="stable")]
        mine = markers[kernels.process[markers] == process]
        if len(rows) == 0 or len(mine) == 0:
            continue
        sequence = _sequences(capture, rows, mine)
        position = np.minimum(np.searchsorted(steps.step[rows], sequence >> 1), len(rows) - 1)
        known = steps.step[rows][position] == sequence >> 1
        is_end = (sequence & 1).astype(bool)
        begins, ends = known & ~is_end, known & is_end
        begin[rows[position[begins]]] = kernels.start_ns[mine[begins]]
        end[rows[position[ends]]] = kernels.end_ns[mine[ends]]
        stream[rows[position[begins]]] = kernels.stream[mine[begins]]
    found = (begin >= 0) & (end >= begin)
    return StepSpans(
        start_ns=np.where(found, begin, steps.start_ns),
        end_ns=np.where(found, end, steps.end_ns),
        is_on_device=found,
        has_lost_marker=(steps.num_markers > 0) & ~found,
        stream=np.where(found, stream, -1),
    )


def _sequences(capture: Capture, rows: _Array, markers: _Array) -> _Array:
    """Whole sequence numbers of markers, of which the records hold the remainder, by the step that the host was in."""
    steps, kernels = capture.steps, capture.kernels
    remainder = capture.kernel_classes.block_x[kernels.class_id[markers]].astype(np.int64) - 1
    latest = np.searchsorted(steps.start_ns[rows], kernels.start_ns[markers], "right") - 1
    highest = 2 * steps.step[rows][np.maximum(latest, 0)] + 1 + _SEQUENCE_AHEAD
    sequence: _Array = highest - (highest - remainder) % _SEQUENCE_PERIOD
    return sequence


def kernel_steps(capture: Capture, spans: StepSpans) -> _Array:
    """For each kernel the row of its step, int32, -1 for none.

    A kernel on the stream of the markers belongs to the step between whose markers it is; a kernel of the same process
    on another stream to the step in whose span it starts. Markers belong to none.
    """
    kernels = capture.kernels
    result = np.full(len(kernels), -1, np.int32)
    for process in np.unique(capture.steps.process):
        rows = np.flatnonzero((capture.steps.process == process) & ~spans.has_lost_marker)
        is_mine = kernels.process == process
        groups = [(is_mine, rows)]
        streams = np.unique(spans.stream[rows])
        if len(streams) > 1:
            groups += [
                (is_mine & (kernels.stream == one), rows[spans.stream[rows] == one]) for one in streams[streams >= 0]
            ]
        for is_member, step_rows in groups:
            result[is_member] = _steps_at(kernels.start_ns[is_member], step_rows, spans)
    result[is_marker_class(capture.kernel_classes)[kernels.class_id]] = -1
    return result


def _steps_at(time_ns: _Array, rows: _Array, spans: StepSpans) -> _Array:
    """The step among ``rows`` that began last at or before each time, if it has not ended by then; else -1."""
    if len(rows) == 0:
        return np.full(len(time_ns), -1, np.int32)
    rows = rows[np.argsort(spans.start_ns[rows], kind="stable")]
    latest = np.searchsorted(spans.start_ns[rows], time_ns, "right") - 1
    row = rows.astype(np.int32)[np.maximum(latest, 0)]
    return np.where((latest >= 0) & (time_ns < spans.end_ns[row]), row, np.int32(-1))


def traced_steps(capture: Capture, spans: StepSpans, traced: Mapping[int, Intervals]) -> _Array:
    """Mask of the steps whose kernels count: begun in the traced time of their device.

    Where that has several parts or leaves some of the measured window out, only steps that lie wholly inside and have
    both markers count: of others just some kernels are known.

    Args:
        capture: The capture.
        spans: When its steps ran.
        traced: Traced time by device, as `traced_time` gives it.
    """
    manifest, steps = capture.manifest, capture.steps
    result = np.zeros(len(steps), bool)
    for device, time in traced.items():
        is_here = steps.device == device
        window = time.find(spans.start_ns)
        is_counted = window >= 0
        if time.total_ns < manifest.measure_end_ns - manifest.measure_start_ns:
            last = time.find(np.maximum(spans.end_ns - 1, spans.start_ns))
            is_counted &= (window == last) & ~spans.has_lost_marker
        result[is_here] = is_counted[is_here]
    return result


def lost_steps(capture: Capture, spans: StepSpans, traced: Mapping[int, Intervals]) -> _Array:
    """Mask of the steps whose markers are missing though kernels were recorded.

    Where the measured window was traced in part, a step is lost if the steps with markers before and after it ran in
    one traced window: at the edges of a window no marker is expected.
    """
    manifest, steps = capture.manifest, capture.steps
    result: _Array = spans.has_lost_marker.copy()
    for device, time in traced.items():
        if time.total_ns == manifest.measure_end_ns - manifest.measure_start_ns:
            continue
        for process in np.unique(steps.process[steps.device == device]):
            rows = np.flatnonzero((steps.process == process) & (steps.device == device))
            rows = rows[np.argsort(steps.step[rows], kind="stable")]
            found = np.flatnonzero(spans.is_on_device[rows])
            after = np.searchsorted(found, np.arange(len(rows)))
            is_between = (after > 0) & (after < len(found))
            before_row, after_row = (rows[found[at]] for at in (after[is_between] - 1, after[is_between]))
            is_one_window = np.zeros(len(rows), bool)
            window = time.find(spans.start_ns[before_row])
            is_one_window[is_between] = (window >= 0) & (window == time.find(spans.start_ns[after_row]))
            result[rows] &= is_one_window
    return result
