"""Time stamps that cannot be: what CUPTI sometimes reports while a CUDA graph is being captured."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.model.tables import KernelTable

__all__ = ["implausible_stamps"]

_TOLERANCE_NS: Final = 100_000
"""Programmatic dependent launch lets a kernel start some microseconds before the one before it has ended."""


def implausible_stamps(kernels: KernelTable) -> NDArray[np.bool_]:
    """Mask of the rows of ``kernels`` that still run long after the next activity of their stream has begun.

    A stream is a queue, so one of a row's two stamps is wrong then. Seen with CUPTI 13.0 on an H100: of 80 680
    records of one run, two copies of a few kilobytes that were queued while a graph was captured were stamped as
    taking 262 ms and 4.1 s, through everything that ran after them. Nodes of a graph are left alone: its branches run
    side by side and report one stream.

    Args:
        kernels: In any order.
    """
    rows = np.flatnonzero(kernels.graph == 0)
    keys: tuple[NDArray[Any], ...] = (kernels.start_ns, kernels.stream, kernels.device, kernels.process)
    rows = rows[np.lexsort(tuple(key[rows] for key in keys))]
    is_same_stream = np.ones(max(len(rows) - 1, 0), bool)
    for key in keys[1:]:
        is_same_stream &= key[rows][1:] == key[rows][:-1]
    overlap_ns = kernels.end_ns[rows][:-1] - kernels.start_ns[rows][1:]
    mask = np.zeros(len(kernels), bool)
    mask[rows[:-1][is_same_stream & (overlap_ns > _TOLERANCE_NS)]] = True
    return mask
