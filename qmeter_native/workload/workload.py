"""What clients ask of an engine: how many requests, when, how long, from which seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qmeter_native.errors import UsageError
from qmeter_native.units import NS_PER_S

__all__ = ["Workload"]


@dataclass(frozen=True, slots=True)
class Workload:
    """A seeded workload. Two runs of equal workloads send the same prompts at the same offsets.

    Attributes:
        num_requests: Requests.
        arrival: ``burst`` sends all at once, ``poisson`` with exponential gaps of mean ``1 / rate_hz``.
        rate_hz: Mean arrivals a second; None for a burst.
        input_len: Tokens of each prompt.
        output_len: Tokens of each answer, exactly.
        seed: Of prompts and arrivals.
        num_warmup: Requests answered before the first one counts, so that first-time costs are outside.
    """

    num_requests: int = 16
    arrival: Literal["burst", "poisson"] = "burst"
    rate_hz: float | None = None
    input_len: int = 128
    output_len: int = 32
    seed: int = 0
    num_warmup: int = 2

    def __post_init__(self) -> None:
        for name in ("num_requests", "input_len", "output_len"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", "It must be 1 or more.")
        if self.num_warmup < 0:
            raise UsageError(f"num_warmup is {self.num_warmup}", "It must be 0 or more.")
        if self.arrival not in ("burst", "poisson"):
            raise UsageError(f"there is no arrival {self.arrival!r}", "Use burst or poisson.")
        if self.arrival == "poisson" and not (self.rate_hz is not None and 0 < self.rate_hz < float("inf")):
            raise UsageError(f"poisson arrivals at a rate of {self.rate_hz}", "Give a rate in requests a second.")
        if self.arrival == "burst" and self.rate_hz is not None:
            raise UsageError("a burst has no rate", "Leave the rate out, or use poisson arrivals.")

    @property
    def context_len(self) -> int:
        """Tokens of the longest sequence."""
        return self.input_len + self.output_len

    def arrival_offsets_ns(self) -> NDArray[np.int64]:
        """When each request is due, in nanoseconds after the first, which is due at once."""
        if self.rate_hz is None:
            return np.zeros(self.num_requests, np.int64)
        gaps_s = np.random.default_rng((self.seed, 0)).exponential(1 / self.rate_hz, self.num_requests)
        gaps_s[0] = 0.0
        return np.rint(np.cumsum(gaps_s) * NS_PER_S).astype(np.int64)

    def describe(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)
