"""Steps of CLOCK_REALTIME, the clock of all stamps, against CLOCK_MONOTONIC, which nobody sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from qmeter_native.model.tables import ClockPairTable

__all__ = ["ClockStep", "clock_steps"]

_TOLERANCE_NS: Final = 1_000_000
_SLEW: Final = 500e-6
"""What NTP may slew the clock by without stepping it, as a share of the time gone by (Linux: ``MAXFREQ``)."""


@dataclass(frozen=True, slots=True)
class ClockStep:
    """CLOCK_REALTIME was set forward (positive) or back by ``size_ns``, between ``low_ns`` and ``high_ns``."""

    process: int
    low_ns: int
    high_ns: int
    size_ns: int


def clock_steps(pairs: ClockPairTable) -> list[ClockStep]:
    """Steps of more than 1 ms that each process saw from one pair to the next, in order of process and time."""
    found = []
    for process in np.unique(pairs.process).tolist():
        rows = np.flatnonzero(pairs.process == process)
        rows = rows[np.argsort(pairs.monotonic_ns[rows], kind="stable")]
        realtime, monotonic = pairs.realtime_ns[rows], pairs.monotonic_ns[rows]
        change = np.diff(realtime - monotonic)
        allowed = np.maximum(_TOLERANCE_NS, np.diff(monotonic) * _SLEW)
        for row in np.flatnonzero(np.abs(change) > allowed).tolist():
            found.append(ClockStep(process, int(realtime[row]), int(realtime[row + 1]), int(change[row])))
    return found
