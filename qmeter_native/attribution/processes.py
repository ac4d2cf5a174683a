"""Which process ran what where."""

from __future__ import annotations

import numpy as np

from qmeter_native.model.capture import Capture
from qmeter_native.model.report import ProcessRow

__all__ = ["process_rows"]


def process_rows(capture: Capture) -> tuple[ProcessRow, ...]:
    """One row a process, by index."""
    kernels = capture.kernels
    counts: dict[tuple[int, int], int] = {}
    for device in (info.index for info in capture.manifest.devices):
        by_process = np.bincount(kernels.process[kernels.device == device])
        counts |= {(process, device): int(by_process[process]) for process in np.flatnonzero(by_process).tolist()}
    return tuple(
        ProcessRow(
            process=info.index,
            pid=info.pid,
            rank=info.rank,
            host=info.host,
            command=info.command,
            devices=tuple(device for process, device in counts if process == info.index),
            num_kernels=sum(number for (process, _), number in counts.items() if process == info.index),
            clock_offset_ns=info.clock_offset_ns,
        )
        for info in capture.manifest.processes
    )
