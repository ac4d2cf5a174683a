"""Engine steps → spool: the `StepSink` that an engine reports to while it is traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qmeter_native.engines.step_sink import EngineStep
from qmeter_native.storage.spool_records import RECORD_DTYPES, RecordKind

__all__ = ["StepRecorder"]


class StepRecorder:
    """Writes each step, and its row per request, to the spool when it ends.

    Args:
        spool: ``_native.Spool``.
        device: DeviceInfo.index of the device that the engine runs on.
        marker: Launches a marker kernel (``_native.StepMarker.launch``), None on a CPU or where nothing is traced.
    """

    def __init__(self, spool: Any, device: int, marker: Callable[[int, int], None] | None) -> None:
        self._spool = spool
        self._device = device
        self._marker = marker

    @property
    def marker(self) -> Callable[[int, int], None] | None:
        """See `StepSink`."""
        return self._marker

    def step(self, step: EngineStep) -> None:
        """See `StepSink`."""
        record = np.zeros(1, RECORD_DTYPES[RecordKind.STEP])
        stream = 0  # CUPTI's number of the stream is not known here; the markers' own records carry it
        record[0] = (step.step, step.start_ns, step.end_ns, self._device, stream, step.num_markers, step.num_padded)
        rows = [(step.step, *request) for request in step.requests]
        self._spool.append(RecordKind.STEP, record)
        self._spool.append(RecordKind.STEP_REQUEST, np.array(rows, RECORD_DTYPES[RecordKind.STEP_REQUEST]))
