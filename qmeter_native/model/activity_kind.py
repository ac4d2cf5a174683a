"""Kinds of device activity that a capture holds."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ActivityKind"]


class ActivityKind(IntEnum):
    """What one row of the kernel table is. The integer is what captures store.

    ``OPERATOR`` is a working operator of ``torch.profiler`` on a CPU, which has no kernels.
    """

    KERNEL = 0
    MEMCPY = 1
    MEMSET = 2
    OPERATOR = 3
