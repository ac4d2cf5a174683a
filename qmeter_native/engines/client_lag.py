"""How late a client was: what must be small for its latencies to be the server's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ClientLag", "Delays"]


@dataclass(slots=True)
class Delays:
    """Mean and maximum of what was added."""

    count: int = 0
    total_s: float = 0.0
    max_s: float = 0.0

    def add(self, delay_s: float) -> None:
        """Count one."""
        self.count += 1
        self.total_s += delay_s
        self.max_s = max(self.max_s, delay_s)

    def to_dict(self, name: str) -> dict[str, float | None]:
        """``{name}_mean_s`` and ``{name}_max_s``; None if there was none."""
        mean_s = self.total_s / self.count if self.count else None
        return {f"{name}_mean_s": mean_s, f"{name}_max_s": self.max_s if self.count else None}


@dataclass(slots=True)
class ClientLag:
    """Delays on the client's side of a socket.

    Attributes:
        write: From when a request was to be sent until it was with the operating system, connecting included.
        read: Lateness of a beat of 10 ms on the thread that reads, and so of the stamps that it gives.
        num_count_mismatches: Requests whose chunks hold another number of tokens than the server says at the end.
    """

    write: Delays = field(default_factory=Delays)
    read: Delays = field(default_factory=Delays)
    num_count_mismatches: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, for the workload's description."""
        return {
            **self.write.to_dict("write_lag"),
            **self.read.to_dict("read_lag"),
            "num_count_mismatches": self.num_count_mismatches,
        }
