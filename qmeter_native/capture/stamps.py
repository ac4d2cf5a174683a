"""Time stamps that cannot be: what CUPTI sometimes reports while a CUDA graph is being captured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.model.tables import KernelTable

__all__ = ["StampVerdicts", "judge_stamps"]

_TOLERANCE_NS: Final = 100_000
"""Programmatic dependent launch lets a kernel start some microseconds before the one before it has ended."""

_NEVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class StampVerdicts:
    """For each kernel whether its stamps are implausible, and whether that depends on kernels that were not there."""

    is_implausible: NDArray[np.bool_]
    is_open: NDArray[np.bool_]


def judge_stamps(kernels: KernelTable, next_start_ns: int | None = None) -> StampVerdicts:
    """Find kernels of one process that still run long after the next activity of their stream has begun.

    A stream is a queue, so one of a row's two stamps is wrong then. Seen with CUPTI 13.0 on an H100: of 80 680
    records of one run, two copies of a few kilobytes that were queued while a graph was captured were stamped as
    taking 262 ms and 4.1 s, through everything that ran after them. Nodes of a graph are left alone: its branches run
    side by side and report one stream.

    Args:
        kernels: In order of start.
        next_start_ns: No kernel that is not among them starts earlier; None if there is no other.
    """
    is_open = np.zeros(len(kernels), bool)
    is_suspect = (kernels.end_ns - kernels.start_ns > _TOLERANCE_NS) & (kernels.graph == 0)
    if not is_suspect.any():
        return StampVerdicts(is_suspect, is_open)
    follower_ns = _starts_of_followers(kernels)
    latest_ns = kernels.end_ns - _TOLERANCE_NS
    is_implausible = is_suspect & (follower_ns < latest_ns)
    if next_start_ns is not None:
        is_open = is_suspect & ~is_implausible & (next_start_ns < np.minimum(latest_ns, follower_ns))
    return StampVerdicts(is_implausible, is_open)


def _starts_of_followers(kernels: KernelTable) -> NDArray[np.int64]:
    """For each kernel outside graphs the start of the next one on its stream; far in the future if there is none."""
    rows = np.flatnonzero(kernels.graph == 0)
    device = kernels.device[rows].astype(np.int64)
    stream = kernels.stream[rows].astype(np.int64)
    queue: NDArray[Any] = (device - device.min()) * (int(stream.max()) + 1) + stream
    # Few streams fit 16 bits, which numpy sorts by radix: ten times as fast.
    order = np.argsort(queue.astype(np.min_scalar_type(int(queue.max()))), kind="stable")
    is_same = queue[order][1:] == queue[order][:-1]
    rows = rows[order]
    followers = np.full(len(kernels), _NEVER, np.int64)
    followers[rows[:-1][is_same]] = kernels.start_ns[rows[1:][is_same]]
    return followers
