"""Operators of a CPU → spool, as kernels of kind OPERATOR."""

from __future__ import annotations

from typing import Any

import numpy as np

from qmeter_native.engines.operator_trace import OperatorBatch
from qmeter_native.model.activity_kind import ActivityKind
from qmeter_native.storage.spool_records import RECORD_DTYPES, RecordKind

__all__ = ["OperatorRecorder"]


class OperatorRecorder:
    """Callable with each `OperatorBatch`.

    Args:
        spool: ``_native.Spool``.
        device: DeviceInfo.index of the CPU.
    """

    def __init__(self, spool: Any, device: int) -> None:
        self._spool = spool
        self._device = device

    def __call__(self, batch: OperatorBatch) -> None:
        """Append all operators of ``batch``."""
        classes = [self._spool.define_class(name, ActivityKind.OPERATOR) for name in batch.names]
        records = np.zeros(len(batch), RECORD_DTYPES[RecordKind.KERNEL])
        records["start_ns"], records["end_ns"] = batch.start_ns, batch.end_ns
        records["class_id"] = np.asarray(classes, "u4")[batch.name]
        records["stream"] = batch.thread
        records["device"] = self._device
        self._spool.append(RecordKind.KERNEL, records)
