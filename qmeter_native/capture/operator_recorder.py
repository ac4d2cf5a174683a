"""Operators of a CPU → spool, as kernels of kind OPERATOR."""

from __future__ import annotations

from typing import Any

import numpy as np

from qmeter_native.engines.operator_trace import OperatorBatch, OperatorTrace
from qmeter_native.model.activity_kind import ActivityKind
from qmeter_native.storage.spool_records import RECORD_DTYPES, RecordKind

__all__ = ["OperatorRecorder"]

_FIGURES = ("num_events", "num_operators", "pause_ns")


class OperatorRecorder:
    """Constructed = profiling. Operators reach the spool when the profiler is cycled (`before_step`) or closed.

    Args:
        spool: ``_native.Spool``.
        device: DeviceInfo.index of the CPU.
    """

    def __init__(self, spool: Any, device: int) -> None:
        self._spool = spool
        self._device = device
        self._trace = OperatorTrace(self._append)

    def before_step(self) -> None:
        """To be called between steps, so that memory stays bounded; see `OperatorTrace`."""
        self._trace.before_step()

    def close(self) -> dict[str, Any]:
        """Stop profiling, append the rest, and say what was traced, as the manifest's ``tracer`` holds it."""
        self._trace.close()
        figures = {name: getattr(self._trace, name) for name in _FIGURES}
        return {"name": "torch.profiler", "kinds": ["operator"], **figures}

    def _append(self, batch: OperatorBatch) -> None:
        classes = [self._spool.define_class(name, ActivityKind.OPERATOR) for name in batch.names]
        records = np.zeros(len(batch), RECORD_DTYPES[RecordKind.KERNEL])
        records["start_ns"], records["end_ns"] = batch.start_ns, batch.end_ns
        records["class_id"] = np.asarray(classes, "u4")[batch.name]
        records["stream"] = batch.thread
        records["device"] = self._device
        self._spool.append(RecordKind.KERNEL, records)
