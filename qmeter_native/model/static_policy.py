"""What reports do with the static joules of busy time, which no kernel causes alone."""

from __future__ import annotations

from enum import Enum

__all__ = ["StaticPolicy"]


class StaticPolicy(str, Enum):
    """Who gets the idle power and the active power of a chip while kernels run. Idle time's joules stay idle."""

    SEPARATE = "separate"
    """Nobody: kernels, phases and requests have dynamic joules, and static joules stand beside them."""
    BY_TIME = "by-time"
    """Kernels, in proportion to their time in each window."""
    BY_ENERGY = "by-energy"
    """Kernels, in proportion to their dynamic joules in each window."""
