"""Says in a spool that its process traced no kernels, so that their absence is not taken for idleness."""

from __future__ import annotations

from typing import Any

import numpy as np

from qmeter_native.storage.spool_records import RECORD_DTYPES, RecordKind

__all__ = ["record_no_tracing"]


def record_no_tracing(spool: Any, time_ns: int) -> None:
    """Append a trace window without length: a process without any window counts as traced all the time."""
    window = np.zeros(1, RECORD_DTYPES[RecordKind.TRACE_WINDOW])
    window["start_ns"] = window["end_ns"] = time_ns
    spool.append(RecordKind.TRACE_WINDOW, window)
