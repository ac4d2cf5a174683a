"""What times kernels: the interface, and the arithmetic of bursts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from qmeter_native.calibration.repeats import median_estimate
from qmeter_native.model.estimate import Estimate

__all__ = ["Launch", "Timer", "Timing", "call_seconds", "num_launches"]

Launch = Callable[[], Any]
"""Puts one call on the GPU and returns at once."""

_MAX_LAUNCHES: Final = 1024
"""In the shorter graph; the longer one has twice as many. Triton's launches take some 50 us each to capture."""

_GRAPHS_A_BURST: Final = 4
"""Once the shorter graph to warm up, once to measure, and once the longer one: four times the shorter."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds a call in each burst, and the median SM clock meanwhile in MHz; or why there are none."""

    seconds: tuple[float, ...]
    clock_mhz: float | None = None
    reason: str | None = None

    def estimate(self) -> Estimate:
        """Median and 95 % interval."""
        if not self.seconds:
            return Estimate.missing(self.reason or "not timed")
        return median_estimate(self.seconds)


class Timer(Protocol):
    """Times several kernels side by side."""

    def time(self, launches: Mapping[str, Sequence[Launch]], num_repeats: int) -> dict[str, Timing]:
        """Time each kernel, burst by burst in turn.

        Args:
            launches: By name of the kernel: the same product on each copy of its weights, used in turn.
            num_repeats: Bursts of each.

        Returns:
            By name; one that fails does not keep the others from being timed.
        """


def num_launches(call_s: float, num_copies: int, burst_s: float) -> int:
    """Calls in the shorter graph, so that a burst takes about ``burst_s``; every copy is used equally often.

    Calls so long that all copies would take more than a burst use fewer of them: reading a weight anew from DRAM is
    below 1 % of such a call (4 caches of 60 MB take 56 us of an H200's bandwidth, a burst 10 ms).
    """
    wanted = min(burst_s / max(call_s, 1e-9) / _GRAPHS_A_BURST, _MAX_LAUNCHES)
    if num_copies * call_s > burst_s:
        return max(1, round(wanted))
    return num_copies * max(1, round(wanted / num_copies))


def call_seconds(once_s: float, twice_s: float, num_calls: int) -> float | None:
    """``(T(2N) - T(N)) / N``, in which the gap of the graph's launch drops out; None if it is not above zero."""
    seconds = (twice_s - once_s) / num_calls
    return seconds if seconds > 0 else None
