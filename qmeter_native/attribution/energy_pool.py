"""Energy of all devices that ran kernels, taken together: what reports print for kernels, phases and requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qmeter_native.attribution.coverage import coverage
from qmeter_native.attribution.energy import EnergyError, EnergySplit
from qmeter_native.attribution.usage import DeviceUsage
from qmeter_native.model.estimate import Estimate
from qmeter_native.units import ns_to_s

__all__ = ["EnergyPool"]

_NO_IDLE_POWER = "idle power was not measured before the run"
_SCALED_IDLE = "estimated: idle power in idle time, scaled from traced windows"
_SCALED_ACTIVE = "estimated: gross less idle"


@dataclass(frozen=True, slots=True)
class EnergyPool:
    """How figures of several devices are turned into estimates.

    Attributes:
        busy_ns: Busy time of the devices.
        total_j: Energy given to kernels and markers of all devices.
        error: Errors of the devices, weighted by the energy that their kernels got.
        method: How the figures came about.
        missing: Why there are none, or None if there are.
        has_static: Whether idle power is known on all devices.
        gross, idle: What the sensors saw, and the part of time in which nothing ran.
        is_complete: All of the measured window was traced; else kernels' energy is that of traced time.
        caveat: What weakens every figure; None if nothing does.
    """

    busy_ns: int
    total_j: float
    error: EnergyError
    method: str
    missing: str | None
    has_static: bool
    gross: Estimate
    idle: Estimate
    is_complete: bool = True
    caveat: str | None = None

    @classmethod
    def of(cls, usages: Sequence[DeviceUsage], caveat: str | None = None) -> EnergyPool:
        """Pool the devices that ran kernels, or all if none did."""
        used = [usage for usage in usages if usage.busy_ns > 0] or list(usages)
        splits = [usage.split for usage in used if usage.split is not None]
        silent = [usage for usage in used if usage.split is None]
        busy_ns = sum(usage.busy_ns for usage in used)
        if silent or not splits:
            missing = _missing(silent)
            nothing = EnergyError(0.0, 0.0, None)
            gone = Estimate.missing(missing)
            return cls(busy_ns, 0.0, nothing, "measured", missing, False, gone, gone)
        weights = [float(usage.name_j.sum()) for usage in used]
        total_j = sum(weights)
        if total_j == 0:
            weights = [1.0] * len(weights)
        gains = [split.error.systematic for split in splits if split.error.systematic is not None]
        error = EnergyError(
            timing=float(np.average([split.error.timing for split in splits], weights=weights)),
            variation=float(np.average([split.error.variation for split in splits], weights=weights)),
            systematic=max(gains, default=None),
        )
        idle = _idle(used, splits, error)
        gross = _sum([split.gross for split in splits], _joined([split.gross_method for split in splits]))
        return cls(
            busy_ns=busy_ns,
            total_j=total_j,
            error=error,
            method=_joined([split.method for split in splits]),
            missing=None,
            has_static=all(split.static_w is not None for split in splits),
            gross=replace(gross, reason=caveat),
            idle=replace(idle, reason=idle.reason or caveat),
            is_complete=all(usage.is_complete for usage in used),
            caveat=caveat,
        )

    def attributed(self, value_j: float, time_ns: float, how: str = "", *, is_mixed: bool = False) -> Estimate:
        """Energy of something that was busy for ``time_ns``; ``is_mixed`` if many kinds of kernels worked for it.

        ``how`` adds to the method.
        """
        if self.missing is not None:
            return Estimate.missing(self.missing)
        share = time_ns / self.busy_ns if self.busy_ns else 0.0
        return replace(self.error.interval(value_j, share, self.method + how, is_mixed), reason=self.caveat)

    def static(self, value_j: float) -> Estimate:
        """The part that is idle power."""
        if self.missing is None and not self.has_static:
            return Estimate.missing(_NO_IDLE_POWER, self.method)
        return self.attributed(value_j, self.busy_ns)

    def dynamic(self, energy: Estimate, static: Estimate) -> Estimate:
        """Energy less its static part, with the interval of the whole."""
        if energy.value is None or static.value is None:
            return static
        less = static.value
        low = None if energy.low is None else max(0.0, energy.low - less)
        high = None if energy.high is None else energy.high - less
        return Estimate(energy.value - less, low, high, energy.method, energy.reason, energy.systematic)

    def active(self) -> Estimate:
        """Gross less idle."""
        if self.gross.value is None or self.idle.value is None:
            return self.idle
        value = self.gross.value - self.idle.value
        if not self.is_complete:
            low = (
                None if self.gross.low is None or self.idle.high is None else max(0.0, self.gross.low - self.idle.high)
            )
            high = None if self.gross.high is None or self.idle.low is None else self.gross.high - self.idle.low
            return replace(self.gross, value=value, low=low, high=high, method=_SCALED_ACTIVE)
        return replace(self.error.interval(value, 1.0, self.method), reason=self.caveat)

    def share_of_total(self, energy: Estimate) -> Estimate:
        """Energy over that of all kernels. A sensor's gain cancels."""
        share = energy.over(self.total_j, "no energy was given to any kernel")
        return Estimate(share.value, share.low, share.high, share.method, share.reason)


def _idle(usages: Sequence[DeviceUsage], splits: Sequence[EnergySplit], error: EnergyError) -> Estimate:
    """Energy of time in which nothing ran, in the whole measured window."""
    if all(usage.is_complete for usage in usages):
        idle_j = float(sum(split.idle_j.sum() for split in splits))
        return error.interval(idle_j, 1.0, _joined([split.idle_method for split in splits]))
    parts = []
    for usage in usages:
        busy_s, idle_w, wall_s = coverage(usage).busy_s, usage.device.idle_power_w, ns_to_s(usage.wall_ns)
        if idle_w is None:
            return Estimate.missing(_NO_IDLE_POWER, _SCALED_IDLE)
        if busy_s.value is None or busy_s.low is None or busy_s.high is None:
            return Estimate.missing(busy_s.reason or "busy time is not known", _SCALED_IDLE)
        most, value, least = (idle_w * (wall_s - busy) for busy in (busy_s.low, busy_s.value, busy_s.high))
        parts.append(Estimate(value, least, most, _SCALED_IDLE, None, error.systematic))
    return _sum(parts, _SCALED_IDLE)


def _missing(silent: Sequence[DeviceUsage]) -> str:
    reasons = {f"{usage.device.name}: {usage.windows.reason}" for usage in silent}
    return "; ".join(sorted(reasons)) or "the capture has no device"


def _joined(texts: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _sum(estimates: Sequence[Estimate], method: str) -> Estimate:
    """Sum of figures that all have a value and an interval; intervals add, as one board's gain is like another's."""
    value, low, high = (
        sum(getattr(one, name) for one in estimates if getattr(one, name) is not None)
        for name in ("value", "low", "high")
    )
    gains = [one.systematic for one in estimates if one.systematic is not None]
    return Estimate(value, low, high, method, None, max(gains, default=None))
