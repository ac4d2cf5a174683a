"""The part of a capture that is exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

__all__ = ["Window"]


@dataclass(frozen=True, slots=True)
class Window:
    """From ``start_ns`` to ``end_ns``, CLOCK_REALTIME; by default everything."""

    start_ns: int = 0
    end_ns: int = 2**63 - 1

    def touches(self, start_ns: NDArray[Any], end_ns: NDArray[Any]) -> NDArray[Any]:
        """Rows, int64, of the intervals that have a part inside; they are exported whole."""
        rows: NDArray[Any] = ((start_ns < self.end_ns) & (end_ns >= self.start_ns)).nonzero()[0]
        return rows
