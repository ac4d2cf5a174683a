"""What launches would take on another GPU, by the roofs of both.

A kernel keeps its inefficiency: what it takes over the time at its lowest roof. On the other GPU it takes that times
its lowest roof there. Where another roof becomes the lowest, nothing tells how close the kernel would come to that, so
the interval reaches from "all the way" to "as close as to the old one". A kernel bound by latency keeps its time unless
a roof there asks for more. On the same GPU all of this is the time that was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from qmeter_native.model.estimate import Estimate
from qmeter_native.roofline.ceilings import DRAM, DeviceCeilings, Roof, native_type
from qmeter_native.roofline.point import Bound, RooflinePoint, demanded

__all__ = ["ProjectedPoint", "Projection", "project"]

_METHOD: Final = "estimated: roofs of both GPUs, the kernel's distance from its roof carried over"
_SPREAD: Final = {"dram": 0.1, "l2": 0.5, "pipes": 0.25}
"""How far a ratio of two rates may be off where neither was measured: parts reach different shares of their datasheet.
Of DRAM 85 to 95 %; of tensor pipes 60 to 85 %, as power limits hold the clock down. Of L2 no datasheet says anything:
its rate is taken to go with the number of SMs and their clock."""

_ASSUMPTIONS: Final = (
    "Each kernel stays as far from its lowest roof as it was; launch gaps and host time are not projected.",
    "Clocks, power limits and the capacity of L2 and DRAM are not modelled: what stayed in L2 may not there.",
)


@dataclass(frozen=True, slots=True)
class ProjectedPoint:
    """A point on another GPU.

    Attributes:
        time_s: All launches.
        roof: Name of the lowest roof there; None where the demand is not known.
        fallback: What its operands run as, where tensor pipes there lack their type; None where they have it.
    """

    time_s: Estimate
    roof: str | None
    fallback: str | None


@dataclass(frozen=True, slots=True)
class Projection:
    """All points on another GPU.

    Attributes:
        gpu: Its name.
        points: One entry a point, in order.
        time_s: Sum; its ends are sums of ends, as if all erred alike.
        speedup: Time here over that.
        assumptions: In sentences.
    """

    gpu: str
    points: tuple[ProjectedPoint, ...]
    time_s: Estimate
    speedup: Estimate
    assumptions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Rate:
    """A rate there: how low, what is likely, how high."""

    low: float
    value: float
    high: float


def project(points: Sequence[RooflinePoint], here: DeviceCeilings, there: DeviceCeilings) -> Projection:
    """Take points from one GPU to another; to the same one by its datasheet, they stay under the roofs they had."""
    if there.chip is not None and there.chip == here.chip and not there.is_measured:
        there = here
    moved = tuple(_project(point, here, there) for point in points)
    time_s = _total([point.time_s for point in moved])
    before = sum(point.run.time_s.value or 0.0 for point in points)
    return Projection(there.gpu, moved, time_s, _speedup(before, time_s), _assumptions(here, there, moved))


def _project(point: RooflinePoint, here: DeviceCeilings, there: DeviceCeilings) -> ProjectedPoint:
    demand, measured_s = point.run.demand, point.run.time_s.value
    if measured_s is None:
        return ProjectedPoint(point.run.time_s, None, None)
    rates = {name: _rate(name, here, there) for name in point.floors_s}
    if demand is None or point.roof is None or any(rate is None for rate in rates.values()):
        return ProjectedPoint(_unmodelled(point.run.time_s, here, there), None, None)
    ends = [
        {name: demanded(demand, name) / getattr(rate, end) for name, rate in rates.items()}
        for end in ("high", "value", "low")
    ]
    fast, likely, slow = ends
    distance = measured_s / point.floors_s[point.roof]
    roof = max(likely, key=lambda name: likely[name])
    if point.bound is Bound.LATENCY:
        value = max(measured_s, likely[roof])
        low, high = min(value, max(fast.values()) * distance), max(value, max(slow.values()) * distance)
    else:
        value = likely[roof] * distance
        low = min(value, max(fast[point.roof] * distance, max(fast.values())))
        high = max(slow.values()) * distance
    fallback = None if demand.operand is None or not demand.flops else native_type(there, demand.operand)
    return ProjectedPoint(
        _stretched(point.run.time_s, low, value, high), roof, fallback if fallback != demand.operand else None
    )


def _rate(name: str, here: DeviceCeilings, there: DeviceCeilings) -> _Rate | None:
    """The rate there of what meets a roof here; None if it cannot be told."""
    roof = here.roofs[name]
    if there is here:
        return _Rate(roof.value, roof.value, roof.value)
    other_name = name if name.startswith(("dram", "l2")) else native_type(there, name)
    other = there.roofs.get(other_name or "")
    if other is not None and roof.is_measured and other.is_measured:
        return _Rate(other.low, other.value, other.high)
    if other is not None and roof.datasheet and other.datasheet:
        return _by_datasheets(name, roof, roof.datasheet, other.datasheet)
    if here.chip is not None and there.chip is not None and name.startswith("l2"):
        ratio = there.chip.num_sms * there.chip.boost_mhz / (here.chip.num_sms * here.chip.boost_mhz)
        return _around(roof.value * ratio, _SPREAD["l2"])
    return None


def _by_datasheets(name: str, roof: Roof, here: float, there: float) -> _Rate:
    """The other part reaches the same share of its datasheet; its square at worst, all of it at best."""
    share = min(roof.value / here, 1.0)
    if not roof.is_measured:
        return _around(there, _SPREAD["dram" if name.startswith("dram") else "pipes"])
    return _Rate(there * share**2, there * share, there)


def _around(value: float, spread: float) -> _Rate:
    return _Rate(value * (1 - spread), value, value * (1 + spread))


def _unmodelled(time_s: Estimate, here: DeviceCeilings, there: DeviceCeilings) -> Estimate:
    """Unchanged; the interval reaches to what it would take if DRAM bound it."""
    value = time_s.value or 0.0
    rate = _rate(DRAM, here, there) if DRAM in here.roofs else None
    slower = 1.0 if rate is None else here.roofs[DRAM].value / rate.value
    return _stretched(time_s, value * min(1.0, slower), value, value * max(1.0, slower))


def _stretched(measured: Estimate, low: float, value: float, high: float) -> Estimate:
    """With the interval of the measured time on top."""
    centre = measured.value or 1.0
    below = 1.0 if measured.low is None else measured.low / centre
    above = 1.0 if measured.high is None else measured.high / centre
    return Estimate(value, low * below, high * above, _METHOD)


def _total(times: Sequence[Estimate]) -> Estimate:
    known = [time for time in times if time.value is not None]
    if not known:
        return Estimate.missing("there is no point", _METHOD)
    sums = [sum(float(getattr(time, end)) for time in known) for end in ("value", "low", "high")]
    return Estimate(sums[0], sums[1], sums[2], _METHOD)


def _speedup(before_s: float, time_s: Estimate) -> Estimate:
    if not time_s.value or not time_s.low or not time_s.high:
        return Estimate.missing("there is no point", _METHOD)
    return Estimate(before_s / time_s.value, before_s / time_s.high, before_s / time_s.low, _METHOD)


def _assumptions(here: DeviceCeilings, there: DeviceCeilings, moved: Sequence[ProjectedPoint]) -> tuple[str, ...]:
    found = list(_ASSUMPTIONS)
    if not there.is_measured:
        share = "as large a share of its datasheet's rates as this GPU" if here.is_measured else "its datasheet's rates"
        found.append(f"{there.gpu} was not calibrated; it is taken to reach {share}.")
    fallbacks = sorted({point.fallback for point in moved if point.fallback is not None})
    if fallbacks:
        found.append(
            f"{there.gpu} has no tensor pipes for some types: their products run as {', '.join(fallbacks)}, "
            "with the same bytes from DRAM."
        )
    return tuple(found)
