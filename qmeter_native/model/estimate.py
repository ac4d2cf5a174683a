"""A figure with its interval, and how it came about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["Estimate"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure that may be missing, but never silently.

    Attributes:
        value: The figure in SI units, or None if it was not measured.
        low: Lower end of the interval (95 % unless ``method`` says otherwise), None if unknown.
        high: Upper end of the interval, None if unknown.
        method: How the figure came about: ``measured``, ``attributed: …``, ``modelled: …`` or ``estimated: …``.
        reason: Why ``value`` is None, or what weakens it.
        systematic: Relative error that does not shrink with repeats, such as a board's gain (0.05 = 5 %).
            It cancels only in comparisons on one board.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = "measured"
    reason: str | None = None
    systematic: float | None = None

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError("an Estimate without a value needs a reason")
        for figure in (self.value, self.low, self.high, self.systematic):
            if figure is not None and not math.isfinite(figure):
                raise ValueError(f"an Estimate holds finite figures or None, not {figure}")

    @classmethod
    def missing(cls, reason: str, method: str = "measured") -> Estimate:
        """A figure that was not obtained, and why."""
        return cls(None, method=method, reason=reason)

    def over(self, divisor: float, reason_if_zero: str) -> Estimate:
        """This figure per ``divisor`` of something exactly counted; missing, with a reason, if that is zero."""
        if self.value is None:
            return self
        if divisor == 0:
            return Estimate.missing(reason_if_zero, self.method)
        return Estimate(
            self.value / divisor,
            None if self.low is None else self.low / divisor,
            None if self.high is None else self.high / divisor,
            self.method,
            self.reason,
            self.systematic,
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: ``{value, low, high, method, reason, systematic}``."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "method": self.method,
            "reason": self.reason,
            "systematic": self.systematic,
        }
