"""A capture of a made-up GPU with known truth: random kernels, a power cap with clocks that react, leakage, a sensor.

Kernels run one after another in blocks of 0.4 s, each with a mixture and pauses of its own. A block that the cap holds
down starts at full clock for 0.1 s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qmeter_native.attribution.clock_law import ClockLaw
from qmeter_native.calibration.synthetic import synthetic_model
from qmeter_native.devices.gpu_database import chip_info
from qmeter_native.model.activity_kind import ActivityKind
from qmeter_native.model.capture import Capture
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.device_profile import SensorModel
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.power_model import PowerModel
from qmeter_native.model.tables import (
    ClockTable,
    CounterTable,
    CounterWindowTable,
    EnergyTable,
    KernelClassTable,
    KernelTable,
    PowerTable,
    ThrottleTable,
)
from qmeter_native.units import NS_PER_S
from tests.factories import T0, device, manifest
from tests.synthetic_gpu import CAP_W, Array, cap_clock

LEAD_S, REACTION_S, BLOCK_S = 1.0, 0.1, 0.4
TICK_S, EDGE_S, SAMPLE_S = 0.1, 0.001, 0.02
WINDOW_S, LAG_S = 0.05, 0.01
METER_W = 38.0
UNKNOWN = Estimate.missing("not calibrated")
SENSOR = SensorModel(
    tick_s=Estimate(TICK_S),
    power_sample_s=UNKNOWN,
    window_s=UNKNOWN,
    lag_s=UNKNOWN,
    counter_call_s=UNKNOWN,
    phase_error=UNKNOWN,
    window_error=0.001,
    counter_look_s=Estimate(TICK_S),
    counter_time_constant_s=Estimate(1000.0),
)
"""The made-up counter is an integral, which an H200's is not; of its power samples nothing is known."""
COUNTER_S = (1.5, 2.5)
COUNTER_INTERVAL_NS = 100_000
GRID_S = 0.01
THERMAL_S, KELVIN_PER_W, AMBIENT_C = 5.0, 0.05, 30.0


@dataclass(frozen=True)
class SyntheticRun:
    """A capture and what it was made of.

    Attributes:
        capture: What a run would have left.
        model: The calibrated model to give to the estimator: the chip's, give or take its errors.
        names: Kernel classes (C).
        class_j: float64 (C,), true dynamic joules in the measured window.
        active_j, idle_j: True joules of the active and of the idle chip.
        work: float64 (C, K), work of one launch.
    """

    capture: Capture
    model: PowerModel
    names: tuple[str, ...]
    class_j: Array
    active_j: float
    idle_j: float
    work: Array


def synthetic_run(
    seed: int, *, num_blocks: int = 30, num_classes: int = 8, has_counters: bool = True, watts: float = 1.0
) -> SyntheticRun:
    """Make a run of ``num_blocks`` blocks; ``watts`` multiplies kernels' joules: 2.8 reaches the cap."""
    rng = np.random.default_rng(seed)
    model = synthetic_model()
    mean_s = rng.lognormal(np.log(150e-6), 0.6, num_classes)
    use = rng.beta(1.0, 1.6, (num_classes, 5))
    use[:, -1] = rng.uniform(0.6, 1.0, num_classes)
    work = use * np.array([3.0e12, 6.0e12, 600e12, 1.0e12, 1.0]) * mean_s[:, None]
    scaled = {"coefficient": model.coefficient * watts, "covariance": model.covariance * watts**2}
    model = replace(model, window_error=0.001, **scaled)  # this chip follows the formula; its windows vary by little
    chip = replace(
        model,
        coefficient=np.maximum(rng.multivariate_normal(model.coefficient, model.covariance), 0.0),
        active_w=max(0.0, rng.normal(model.active_w, model.active_error_w)),
    )
    unit_j = work @ chip.coefficient * np.maximum(0.3, 1 + 0.1 * rng.standard_normal(num_classes))
    law = ClockLaw.of(chip, work[:, 0] * chip.coefficient[0] / (work @ chip.coefficient))
    schedule = _schedule(rng, num_blocks, mean_s, unit_j, law, chip)
    start_s, end_s, class_id, clock = schedule.kernels(rng, mean_s)
    unit_factor, active_factor = law.factors(clock)
    row = np.arange(len(class_id))
    dynamic_j = unit_j[class_id] * unit_factor[row, class_id]
    active_j = chip.active_w * active_factor * (end_s - start_s)
    stop_s = float(end_s[-1]) + 0.02
    power = _Power(start_s, end_s, dynamic_j + active_j, stop_s, chip, METER_W if has_counters else 0.0)
    names = tuple(f"synthetic_kernel_{number}" for number in range(num_classes))
    tables: dict[str, Any] = {
        "kernel_classes": _classes(names),
        "kernels": _kernels(start_s, end_s, class_id),
        "energy": _ticks(rng, power, stop_s),
        "power": _samples(rng, power, stop_s),
        "clocks": _clocks(schedule, power, stop_s),
        "throttles": _throttles(schedule, stop_s),
    }
    if has_counters:
        tables |= _counters(start_s, end_s, class_id, work)
    gpu = device(
        name="NVIDIA H200",
        idle_power_w=chip.idle_w + chip.idle_w_per_k * (AMBIENT_C - chip.idle_temperature_c),
        properties={"compute_capability": "9.0", "power_limit_mw": round(CAP_W * 1000)},
    )
    bounds = {"measure_start_ns": T0 + _ns(LEAD_S), "measure_end_ns": T0 + _ns(stop_s)}
    return SyntheticRun(
        capture=Capture(manifest(T0, T0 + _ns(stop_s + 0.5), devices=(gpu,), **bounds), **tables),
        model=model,
        names=names,
        class_j=np.bincount(class_id, dynamic_j, num_classes),
        active_j=float(active_j.sum()),
        idle_j=float(np.diff(power.idle_j(np.array([LEAD_S, stop_s])))[0]),
        work=work,
    )


@dataclass(frozen=True)
class _Schedule:
    """Stretches of time (B) with one mixture, duty and clock; ``parts`` (B, C) are of the time."""

    start_s: Array
    length_s: Array
    parts: Array
    clock: Array

    def clock_at(self, time_s: Array) -> Array:
        row = np.clip(np.searchsorted(self.start_s, time_s, "right") - 1, 0, len(self.clock) - 1)
        return np.asarray(self.clock[row])

    def kernels(self, rng: np.random.Generator, mean_s: Array) -> tuple[Array, Array, Array, Array]:
        """Start, end, class and clock of each kernel, in order of time."""
        classes, clocks, busy, pause = [], [], [], []
        for parts, length_s, clock in zip(self.parts, self.length_s, self.clock, strict=True):
            counts = rng.poisson(parts * length_s / mean_s * clock)
            order = rng.permutation(np.repeat(np.arange(len(mean_s)), counts))
            busy_s = mean_s[order] / clock
            classes.append(order)
            busy.append(busy_s)
            clocks.append(np.full(len(order), clock))
            weight = rng.exponential(1.0, len(order))
            pause.append(weight / weight.sum() * max(length_s - float(busy_s.sum()), 1e-6 * len(order)))
        busy_s, pause_s = np.concatenate(busy), np.concatenate(pause)
        end_s = LEAD_S + np.cumsum(busy_s + pause_s)
        return end_s - busy_s, end_s, np.concatenate(classes), np.concatenate(clocks)


def _schedule(
    rng: np.random.Generator, num_blocks: int, mean_s: Array, unit_j: Array, law: ClockLaw, model: PowerModel
) -> _Schedule:
    parts = rng.dirichlet(np.full(len(mean_s), 0.5), num_blocks) * rng.uniform(0.4, 0.95, (num_blocks, 1))
    settled = cap_clock(parts / mean_s, unit_j, parts.sum(axis=1), law, model)
    lengths = np.tile([REACTION_S, BLOCK_S - REACTION_S], num_blocks)
    clock = np.column_stack([np.ones(num_blocks), settled]).ravel()
    return _Schedule(LEAD_S + np.cumsum(lengths) - lengths, lengths, np.repeat(parts, 2, axis=0), clock)


class _Power:
    """True cumulative joules of the board."""

    def __init__(
        self, start_s: Array, end_s: Array, kernel_j: Array, stop_s: float, model: PowerModel, meter_w: float
    ) -> None:
        self._edge_s = np.column_stack([start_s, end_s]).ravel()
        self._edge_j = np.column_stack([np.cumsum(kernel_j) - kernel_j, np.cumsum(kernel_j)]).ravel()
        self._meter_w = meter_w
        self._grid_s = np.arange(-0.2, stop_s + 1.0, GRID_S)
        load_w = np.diff(self._kernels_j(self._grid_s), append=self._edge_j[-1]) / GRID_S + model.idle_w
        self._celsius = np.empty(len(self._grid_s))
        warmth = 0.0
        for number, watts in enumerate(load_w - model.idle_w):
            warmth += GRID_S / THERMAL_S * (KELVIN_PER_W * watts - warmth)
            self._celsius[number] = AMBIENT_C + warmth
        self._idle_j = np.cumsum(model.idle_at(self._celsius)) * GRID_S

    def _kernels_j(self, time_s: Array) -> Array:
        return np.interp(time_s, self._edge_s, self._edge_j)

    def idle_j(self, time_s: Array) -> Array:
        return np.interp(time_s, self._grid_s, self._idle_j)

    def celsius(self, time_s: Array) -> Array:
        return np.interp(time_s, self._grid_s, self._celsius)

    def total_j(self, time_s: Array) -> Array:
        metered = np.clip(time_s, COUNTER_S[0] - 0.4, COUNTER_S[1] + 0.1)
        return np.asarray(self._kernels_j(time_s) + self.idle_j(time_s) + self._meter_w * metered)


def _ns(time_s: Any) -> Any:
    return np.rint(np.asarray(time_s) * NS_PER_S).astype(np.int64)


def _classes(names: tuple[str, ...]) -> KernelClassTable:
    sizes = {f"{kind}_{axis}": np.ones(len(names)) for kind in ("grid", "block") for axis in "xyz"}
    rest = ("static_shared_bytes", "dynamic_shared_bytes", "registers")
    kind = np.full(len(names), ActivityKind.KERNEL)
    return KernelClassTable.from_columns(
        name=list(names), kind=kind, **sizes, **{column: np.zeros(len(names)) for column in rest}
    )


def _kernels(start_s: Array, end_s: Array, class_id: Array) -> KernelTable:
    zeros = np.zeros(len(class_id))
    return KernelTable.from_columns(
        start_ns=T0 + _ns(start_s),
        end_ns=T0 + _ns(end_s),
        class_id=class_id,
        stream=zeros + 7,
        range_id=zeros - 1,
        **dict.fromkeys(("device", "process", "graph", "graph_node", "correlation", "copied_bytes"), zeros),
    )


def _ticks(rng: np.random.Generator, power: _Power, stop_s: float) -> EnergyTable:
    """Edges every 100 ms, each seen in a bracket of 2 ms somewhere around it."""
    tick_s = np.arange(0.037, stop_s + 0.3, TICK_S)
    seen_s = tick_s + rng.uniform(-EDGE_S, EDGE_S, len(tick_s))
    zeros = np.zeros(len(tick_s))
    return EnergyTable.from_columns(
        device=zeros,
        source=zeros + EnergySource.NVML_TOTAL_ENERGY,
        low_ns=T0 + _ns(seen_s - EDGE_S),
        high_ns=T0 + _ns(seen_s + EDGE_S),
        energy_uj=np.rint((power.total_j(tick_s) - power.total_j(tick_s[:1])) * 1e3) * 1e3,
    )


def _samples(rng: np.random.Generator, power: _Power, stop_s: float) -> PowerTable:
    """The driver's: means over a window, late, with 2 W of noise."""
    time_s = np.arange(0.111, stop_s + 0.3, SAMPLE_S)
    mean_w = (power.total_j(time_s - LAG_S) - power.total_j(time_s - LAG_S - WINDOW_S)) / WINDOW_S
    return PowerTable.from_columns(
        device=np.zeros(len(time_s)),
        source=np.full(len(time_s), EnergySource.NVML_POWER_SAMPLES),
        time_ns=T0 + _ns(time_s),
        power_mw=np.rint((mean_w + rng.normal(0, 2, len(time_s))) * 1e3),
    )


def _clocks(schedule: _Schedule, power: _Power, stop_s: float) -> ClockTable:
    time_s = np.arange(0.02, stop_s, 0.02)
    clock = schedule.clock_at(time_s)
    return ClockTable.from_columns(
        device=np.zeros(len(time_s)),
        time_ns=T0 + _ns(time_s),
        sm_mhz=np.rint(1980 * clock),
        memory_mhz=np.full(len(time_s), 3201),
        temperature_c=np.rint(power.celsius(time_s)),
        throttle_reasons=np.where(clock < 1, 0x4, 0),
    )


def _throttles(schedule: _Schedule, stop_s: float) -> ThrottleTable:
    time_s = np.arange(0.05, stop_s + 0.1, 0.1)
    grid_s = np.arange(0.0, stop_s + 0.2, 0.001)
    held_s = np.cumsum(schedule.clock_at(grid_s) < 1) * 0.001
    return ThrottleTable.from_columns(
        device=np.zeros(len(time_s)),
        time_ns=T0 + _ns(time_s),
        power_ns=_ns(np.interp(time_s, grid_s, held_s)),
        thermal_ns=np.zeros(len(time_s)),
    )


def _counters(start_s: Array, end_s: Array, class_id: Array, work: Array) -> dict[str, Any]:
    """A counter phase: counts of all quantities in samples of 100 us, as the kernels' work says."""
    chip = chip_info("NVIDIA H200", "9.0")
    assert chip is not None
    dram, l2, flop, instructions, seconds = work.T
    cycle = chip.num_sms * chip.boost_mhz * 1e6
    per_launch = {
        CounterQuantity.DRAM_READ_BYTES: 0.7 * dram,
        CounterQuantity.DRAM_WRITE_BYTES: 0.3 * dram,
        CounterQuantity.L2_SECTORS: l2 / 32,
        CounterQuantity.SM_ACTIVE_CYCLES: seconds * cycle,
        CounterQuantity.INSTRUCTIONS: instructions,
        CounterQuantity.TENSOR_HMMA_CYCLES: flop / chip.flop_per_sm_cycle["fp16"],
        CounterQuantity.TENSOR_CYCLES: flop / chip.flop_per_sm_cycle["fp16"],
    }
    edge_ns = np.arange(_ns(COUNTER_S[0]), _ns(COUNTER_S[1]) + 1, COUNTER_INTERVAL_NS)
    bound_s = np.column_stack([start_s, end_s]).ravel()
    values = []
    for count in per_launch.values():
        launch = count[class_id]
        running = np.column_stack([np.cumsum(launch) - launch, np.cumsum(launch)]).ravel()
        values.append(np.diff(np.interp(edge_ns / NS_PER_S, bound_s, running)))
    size, number = len(edge_ns) - 1, len(values)
    table = CounterTable.from_columns(
        device=np.zeros(size * number),
        quantity=np.repeat([int(quantity) for quantity in per_launch], size),
        start_ns=T0 + np.tile(edge_ns[:-1], number),
        end_ns=T0 + np.tile(edge_ns[1:], number),
        value=np.concatenate(values),
    )
    phase = CounterWindowTable.from_columns(
        device=[0],
        enable_ns=[T0 + _ns(COUNTER_S[0] - 0.4)],
        start_ns=[T0 + int(edge_ns[0])],
        stop_ns=[T0 + int(edge_ns[-1])],
        disable_ns=[T0 + _ns(COUNTER_S[1] + 0.1)],
        interval_ns=[COUNTER_INTERVAL_NS],
        num_samples=[size],
        num_lost=[0],
    )
    return {"counters": table, "counter_windows": phase}
