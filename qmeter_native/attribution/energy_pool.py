"""Energy of all devices that ran kernels, taken together: what reports print for kernels, phases and requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.coverage import coverage
from qmeter_native.attribution.energy_use import EnergyUse, Joules
from qmeter_native.attribution.usage import DeviceUsage
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.static_policy import StaticPolicy
from qmeter_native.units import ns_to_s

__all__ = ["EnergyPool", "energy_method", "profile_source"]

_Array = NDArray[Any]

_Z95: Final = 1.96
"""Two-sided 95 % of a normal distribution."""
_NO_IDLE_POWER: Final = "idle power was not measured before the run"
_NO_MEMORY_POWER: Final = "the device does not tell its memory's power"
_MEMORY: Final = "measured: integral of NVML's memory-scope power"
_SCALED_IDLE: Final = "estimated: idle power in idle time, scaled from traced windows"
_ACTIVE: Final = "attributed: gross less idle"
_SCALED_ACTIVE: Final = "estimated: gross less idle"
_WITH_STATIC: Final = {
    StaticPolicy.SEPARATE: "",
    StaticPolicy.BY_TIME: ", static joules by time",
    StaticPolicy.BY_ENERGY: ", static joules by dynamic ones",
}


@dataclass(frozen=True, slots=True)
class EnergyPool:
    """How figures of several devices are turned into estimates.

    Attributes:
        usages: The devices that ran kernels, or all if none did.
        missing: Why there are no figures, or None if there are.
        caveat: What weakens every figure; None if nothing does.
        total_j: Energy given to kernels and markers, by the policy.
        dynamic_method, method: How dynamic joules and joules by the policy came about.
        systematic: Relative error of the sensors that repeats do not shrink.
        is_declared: Some device's power was declared, not measured.
    """

    usages: tuple[DeviceUsage, ...]
    missing: str | None
    caveat: str | None
    total_j: float = 0.0
    dynamic_method: str = "measured"
    method: str = "measured"
    systematic: float | None = None
    is_declared: bool = False

    @classmethod
    def of(cls, usages: Sequence[DeviceUsage], policy: StaticPolicy, caveat: str | None = None) -> EnergyPool:
        """Pool the devices that ran kernels, or all if none did."""
        used = tuple(usage for usage in usages if usage.busy_ns > 0) or tuple(usages)
        silent = [usage for usage in used if usage.energy is None]
        if silent or not used:
            reasons = {f"{usage.device.name}: {usage.windows.reason}" for usage in silent}
            return cls(used, "; ".join(sorted(reasons)) or "the capture has no device", caveat)
        how = _joined([energy_method(usage) for usage in used])
        gains = [usage.windows.systematic for usage in used if usage.windows.systematic is not None]
        declared = [usage.windows.reason for usage in used if usage.windows.is_declared]
        return cls(
            usages=used,
            missing=None,
            caveat=caveat or next(iter(declared), None),
            total_j=sum(float(use.column_j.sum()) for use in _uses(used)),
            dynamic_method=how,
            method=how + _WITH_STATIC[policy],
            systematic=max(gains, default=None),
            is_declared=bool(declared),
        )

    @property
    def busy_ns(self) -> int:
        """Busy time of the devices."""
        return sum(usage.busy_ns for usage in self.usages)

    def joules(self, time_ns: Callable[[EnergyUse], _Array]) -> Joules | None:
        """Energy of things whose time of each device's columns is ``time_ns``; None where figures are missing."""
        if self.missing is not None:
            return None
        return reduce(add, (use.joules(time_ns(use)) for use in _uses(self.usages)))

    def estimate(self, value_j: float, error_j: float, method: str | None = None) -> Estimate:
        """A figure with its 95 % interval; without one if the power was declared; missing where figures are."""
        if self.missing is not None:
            return Estimate.missing(self.missing)
        how = self.method if method is None else method
        if self.is_declared:
            return Estimate(value_j, None, None, how, self.caveat, self.systematic)
        half = _Z95 * error_j
        return Estimate(value_j, max(0.0, value_j - half), value_j + half, how, self.caveat, self.systematic)

    @property
    def gross(self) -> Estimate:
        """What the sensors saw; the interval is what the ends of the measured window leave open."""
        return self.estimate(
            sum(use.split.measured_j for use in _uses(self.usages)),
            sum(usage.windows.total_error_j for usage in self.usages),
            _joined([_source(usage, "measured") for usage in self.usages]),
        )

    @property
    def memory(self) -> Estimate:
        """What the devices' memories drew by their own readings, which are means over a second."""
        if self.missing is not None:
            return Estimate.missing(self.missing)
        parts_j = [usage.windows.memory_j for usage in self.usages if usage.windows.memory_j is not None]
        if len(parts_j) < len(self.usages):
            return Estimate.missing(_NO_MEMORY_POWER)
        return Estimate(sum(parts_j), method=_MEMORY, reason=self.caveat, systematic=self.systematic)

    @property
    def dynamic(self) -> Estimate:
        """What kernels and markers caused, of traced time."""
        given = self.joules(lambda use: use.column_ns[None, :])
        if given is None:
            return self.estimate(0.0, 0.0)
        return self.estimate(float(given.dynamic_j[0]), float(given.dynamic_error_j[0]), self.dynamic_method)

    @property
    def idle(self) -> Estimate:
        """Energy of time in which nothing ran, in the whole measured window."""
        if self.missing is not None:
            return Estimate.missing(self.missing)
        if not all(usage.is_complete for usage in self.usages):
            return replace(self._scaled_idle(), reason=self.caveat or self._scaled_idle().reason)
        idle_j = sum(float(use.split.idle_j.sum()) for use in _uses(self.usages))
        timing = max(use.split.timing for use in _uses(self.usages))
        return self.estimate(idle_j, timing * idle_j, _joined([_idle_method(usage) for usage in self.usages]))

    @property
    def static(self) -> Estimate:
        """Idle and active power in busy time, of traced time."""
        if self.missing is not None:
            return Estimate.missing(self.missing)
        value_j, error_j = 0.0, 0.0
        for use in _uses(self.usages):
            value_j += float(use.split.static_j.sum())
            none = np.zeros((1, len(use.column_ns)))
            error_j += float(use.split.error_j(none, np.array([use.split.active_s]))[0])
        return self.estimate(value_j, error_j, self.dynamic_method)

    def active(self) -> Estimate:
        """Gross less idle."""
        gross, idle = self.gross, self.idle
        if gross.value is None or idle.value is None:
            return idle
        low = None if gross.low is None or idle.high is None else max(0.0, gross.low - idle.high)
        high = None if gross.high is None or idle.low is None else gross.high - idle.low
        is_complete = all(usage.is_complete for usage in self.usages)
        method = _ACTIVE if is_complete else _SCALED_ACTIVE
        return replace(gross, value=gross.value - idle.value, low=low, high=high, method=method)

    def share_of_total(self, energy: Estimate) -> Estimate:
        """Energy over that of all kernels. A sensor's gain cancels."""
        share = energy.over(self.total_j, "no energy was given to any kernel")
        return Estimate(share.value, share.low, share.high, share.method, share.reason)

    def _scaled_idle(self) -> Estimate:
        parts = []
        for usage in self.usages:
            busy_s, idle_w, wall_s = coverage(usage).busy_s, usage.device.idle_power_w, ns_to_s(usage.wall_ns)
            if idle_w is None:
                return Estimate.missing(_NO_IDLE_POWER, _SCALED_IDLE)
            if busy_s.value is None or busy_s.low is None or busy_s.high is None:
                return Estimate.missing(busy_s.reason or "busy time is not known", _SCALED_IDLE)
            parts.append([idle_w * (wall_s - busy) for busy in (busy_s.high, busy_s.value, busy_s.low)])
        low, value, high = (sum(column) for column in zip(*parts, strict=True))
        return Estimate(value, low, high, _SCALED_IDLE, None, self.systematic)


def profile_source(usage: DeviceUsage) -> str:
    """Where a device's power model came from, in words."""
    if usage.windows.is_declared:
        return "declared"
    profile = usage.profile
    is_calibrated = profile.power_model.source == "calibrated"
    return f"calibrated {profile.date[:10]}".rstrip() if is_calibrated else "datasheet defaults"


def _uses(usages: Sequence[DeviceUsage]) -> list[EnergyUse]:
    return [usage.energy for usage in usages if usage.energy is not None]


def _source(usage: DeviceUsage, word: str) -> str:
    return f"{'estimated' if usage.windows.is_declared else word}: {usage.windows.source}"


def energy_method(usage: DeviceUsage) -> str:
    """How the joules of a device's kernels came about."""
    if usage.windows.is_declared or usage.energy is None:
        return _source(usage, "attributed")
    samples = " and power samples" if usage.energy.split.is_finer else ""
    untraced = "" if usage.is_complete else "; untraced time keeps its part of each window"
    return (
        f"{_source(usage, 'attributed')}{samples}, power model by {usage.energy.split.mode.value} "
        f"({profile_source(usage)}){untraced}"
    )


def _idle_method(usage: DeviceUsage) -> str:
    if usage.windows.is_declared:
        return f"{_source(usage, 'attributed')}; nothing is known of idle time"
    power = "measured idle power" if usage.device.idle_power_w is not None else "the power model's idle power"
    return f"{_source(usage, 'attributed')}, {power} in idle time"


def _joined(texts: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
