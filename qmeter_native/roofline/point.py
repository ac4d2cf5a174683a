"""A kernel under its roofs: what it had to do, how long it took, and how far that is from what the machine allows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from qmeter_native.model.estimate import Estimate
from qmeter_native.model.op_family import OpFamily
from qmeter_native.roofline.ceilings import DeviceCeilings, Roof, native_type
from qmeter_native.roofline.energy_floor import EnergyCosts

__all__ = ["NO_JOULES", "Bound", "Demand", "KernelRun", "RooflinePoint", "demanded", "place", "roofs_of"]

NO_JOULES: Final = Estimate.missing("no joules are known")

_FAR: Final = 0.5
"""Part of the roof below which a kernel is far from it."""
_RAMP_S: Final = 3e-6
"""Time at the roof below which a launch costs more than its work. In tests/data/h200-vllm-gptq.qmt, an H200, norms of
0.2 us of traffic take 2.0 to 2.4 us in a CUDA graph: a kernel starts, waits for its first bytes, and drains."""
_FEW_BLOCKS: Final = 0.5
"""Blocks per SM below which a grid leaves much of the machine without work."""


class Bound(str, Enum):
    """What holds a kernel back."""

    MEMORY = "memory"
    """DRAM's bandwidth is its lowest roof."""
    L2 = "l2"
    """Bandwidth of the L2 cache."""
    COMPUTE = "compute"
    """The tensor pipes' rate for its operands."""
    LATENCY = "latency"
    """It is far below every roof, and its launch is too short or its grid too small to come near."""
    UNKNOWN = "unknown"
    """Nothing tells what it had to do."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What launches asked of the machine; None where it is not known.

    Attributes:
        flops: Operations of tensor pipes; 0 for kernels that have none.
        operand: Type of operands that they run in, as `Roof` names it; None without operations.
        dram_bytes: Bytes between DRAM and the chip.
        write_share: Part of these that is written.
        l2_bytes: Bytes through L2.
        source: How the bytes are known: ``counters``, or ``work model``: the least that must move.
        least_bytes: What the work model says, whatever ``source`` is.
    """

    flops: float
    operand: str | None
    dram_bytes: float
    source: str
    write_share: float | None = None
    l2_bytes: float | None = None
    least_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class KernelRun:
    """Launches that are one point.

    Attributes:
        name: Kernel as the vendor names it, or what else the launches have in common.
        label: The same, shortened for a table.
        role: Place in the model, such as ``qkv_proj``; None if not known.
        op_family: What for.
        scheme: Number format as far as names tell.
        launches: How many.
        blocks: Thread blocks of a launch, of the most frequent grid; None if there is no grid.
        time_s: Time given to all launches.
        time_share: Of the busy time that was looked at.
        demand: Of all launches; None if nothing tells.
        unknown: Why ``demand`` is None.
        energy_j: Dynamic joules of all launches.
        static_j: Their part of idle and active power.
        is_resolved: Whether the run tells these joules apart from other kernels'; None where it is not asked.
    """

    name: str
    label: str
    role: str | None
    op_family: OpFamily
    scheme: str | None
    launches: int
    blocks: int | None
    time_s: Estimate
    time_share: float
    demand: Demand | None
    unknown: str | None = None
    energy_j: Estimate = NO_JOULES
    static_j: Estimate = NO_JOULES
    is_resolved: bool | None = None


@dataclass(frozen=True, slots=True)
class RooflinePoint:
    """A `KernelRun` and what the machine allows it.

    Attributes:
        run: The launches.
        bound: What holds them back.
        roof: Name of the lowest roof; None if none is known.
        floor_s: Least time of all launches by that roof; None likewise.
        floors_s: Least time by each roof that they meet.
        fraction: ``floor_s`` over the time.
        intensity: Operations per byte of DRAM traffic; None without either.
        flops_per_s, bytes_per_s: Reached; None where the demand is not known.
        attainable: Operations a second that the roofs allow at this intensity; None without operations.
        traffic: DRAM bytes counted over the least; None without counters or work model.
        energy_floor_j: Least dynamic joules by the power model.
        energy_fraction: That over the dynamic joules.
    """

    run: KernelRun
    bound: Bound
    roof: str | None
    floor_s: float | None
    floors_s: dict[str, float]
    fraction: Estimate
    intensity: float | None
    flops_per_s: float | None
    bytes_per_s: float | None
    attainable: float | None
    traffic: float | None
    energy_floor_j: Estimate
    energy_fraction: Estimate


def place(run: KernelRun, ceilings: DeviceCeilings, costs: EnergyCosts | None = None) -> RooflinePoint:
    """Put launches under the roofs of the machine that they ran on.

    Args:
        run: The launches.
        ceilings: Of the GPU.
        costs: Of its bytes and operations; None if no power model is known.
    """
    demand, time_s = run.demand, run.time_s.value
    roofs = {} if demand is None else roofs_of(demand, ceilings)
    floors = {} if demand is None else {name: demanded(demand, name) / roof.value for name, roof in roofs.items()}
    if demand is None or not time_s or not any(floors.values()):
        return _unknown(run, run.unknown or "no roof of this kernel is known")
    name = max(floors, key=lambda each: floors[each])
    fraction = _fraction(demanded(demand, name), roofs[name], run.time_s)
    floor_j = _floor_j(demand, costs)
    has_flops = demand.flops > 0
    intensity = demand.flops / demand.dram_bytes if has_flops and demand.dram_bytes else None
    return RooflinePoint(
        run=run,
        bound=_bound(run, name, floors[name], ceilings),
        roof=name,
        floor_s=floors[name],
        floors_s=floors,
        fraction=fraction,
        intensity=intensity,
        flops_per_s=demand.flops / time_s if has_flops else None,
        bytes_per_s=demand.dram_bytes / time_s,
        attainable=demand.flops / floors[name] if has_flops else None,
        traffic=demand.dram_bytes / demand.least_bytes if demand.source == "counters" and demand.least_bytes else None,
        energy_floor_j=floor_j,
        energy_fraction=_energy_fraction(floor_j, run.energy_j),
    )


def roofs_of(demand: Demand, ceilings: DeviceCeilings) -> dict[str, Roof]:
    """The roofs that a demand meets, by name."""
    dram = ceilings.dram(demand.write_share)
    l2 = ceilings.roofs.get("l2_read") if demand.l2_bytes else None
    operand = native_type(ceilings, demand.operand) if demand.operand is not None and demand.flops else None
    pipes = None if operand is None else ceilings.roofs[operand]
    return {roof.name: roof for roof in (dram, l2, pipes) if roof is not None}


def demanded(demand: Demand, roof: str) -> float:
    """Bytes or operations that go against a roof."""
    if roof.startswith("dram"):
        return demand.dram_bytes
    return demand.l2_bytes or 0.0 if roof.startswith("l2") else demand.flops


def _bound(run: KernelRun, roof: str, floor_s: float, ceilings: DeviceCeilings) -> Bound:
    is_far = floor_s < _FAR * (run.time_s.value or 0.0)
    is_short = floor_s < _RAMP_S * max(run.launches, 1)
    num_sms = 0 if ceilings.chip is None else ceilings.chip.num_sms
    is_small = run.blocks is not None and run.blocks < _FEW_BLOCKS * num_sms
    if is_far and (is_short or is_small):
        return Bound.LATENCY
    return Bound.MEMORY if roof.startswith("dram") else Bound.L2 if roof.startswith("l2") else Bound.COMPUTE


def _fraction(amount: float, roof: Roof, time_s: Estimate) -> Estimate:
    """Of the roof; the interval joins the roof's and the time's, each at its worst."""
    value = time_s.value or 0.0
    longest = value if time_s.high is None else time_s.high
    shortest = value if time_s.low is None else time_s.low
    method = f"measured time over {'a measured' if roof.is_measured else 'a datasheet'} roof"
    high = amount / roof.low / shortest if roof.low > 0 and shortest > 0 else None
    return Estimate(amount / roof.value / value, amount / roof.high / longest, high, method)


def _floor_j(demand: Demand, costs: EnergyCosts | None) -> Estimate:
    if costs is None:
        return Estimate.missing("no power model of this GPU is known")
    return costs.floor_j(demand.flops, demand.operand, demand.dram_bytes)


def _energy_fraction(floor_j: Estimate, energy_j: Estimate) -> Estimate:
    """Floor over joules; without an interval, as the same coefficients may stand behind both."""
    if floor_j.value is None:
        return floor_j
    if not energy_j.value:
        return Estimate.missing(energy_j.reason or "no joules were given to it")
    return Estimate(floor_j.value / energy_j.value, method=floor_j.method)


def _unknown(run: KernelRun, reason: str) -> RooflinePoint:
    missing = Estimate.missing(reason)
    return RooflinePoint(
        run=run,
        bound=Bound.UNKNOWN,
        roof=None,
        floor_s=None,
        floors_s={},
        fraction=missing,
        intensity=None,
        flops_per_s=None,
        bytes_per_s=None,
        attainable=None,
        traffic=None,
        energy_floor_j=missing,
        energy_fraction=missing,
    )
