"""Phases of a request."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Phase"]


class Phase(IntEnum):
    """What a request did in one engine step. The integer is what captures store."""

    PREFILL = 0
    DECODE = 1
