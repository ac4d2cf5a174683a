"""What a printed report shows. Apart from the console, so that naming it loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ReportOptions"]


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What to show.

    Attributes:
        sort: Rank kernels by ``time`` or ``energy``; None shows both rankings.
        num_kernels: Kernels a ranking.
        num_requests: Requests shown, slowest first; 0 for none.
    """

    sort: Literal["time", "energy"] | None = None
    num_kernels: int = 12
    num_requests: int = 5
