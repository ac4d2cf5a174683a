"""The only place where units are converted.

Vendor integers keep their unit as a suffix (``_ns _us _mj _uj _mw _mhz _bytes``); inside, figures are SI
floats (``_s _j _w _hz``) and fractions.
"""

from __future__ import annotations

__all__ = [
    "NS_PER_S",
    "UJ_PER_J",
    "mw_to_w",
    "ns_to_s",
    "s_to_ns",
    "uj_to_j",
]

NS_PER_S = 1_000_000_000
UJ_PER_J = 1_000_000


def ns_to_s(value: int | float) -> float:
    """Nanoseconds to seconds."""
    return value / NS_PER_S


def s_to_ns(value: float) -> int:
    """Seconds to whole nanoseconds, rounded to nearest."""
    return round(value * NS_PER_S)


def uj_to_j(value: int | float) -> float:
    """Microjoules to joules."""
    return value / UJ_PER_J


def mw_to_w(value: int | float) -> float:
    """Milliwatts to watts."""
    return value / 1_000
