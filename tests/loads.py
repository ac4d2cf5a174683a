"""Captures of load windows on a made-up GPU whose kernels cost known joules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.calibration.load_plan import SETTLE_S, LoadPlan, PilotLoad, PlanOptions, plan_loads
from qmeter_native.calibration.load_window import LoadWindow, WindowRole
from qmeter_native.model.capture import Capture
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.power_model import PowerFeature
from qmeter_native.model.tables import ClockTable, EnergyTable, KernelClassTable, KernelTable, RangeTable, ThrottleTable
from tests.factories import T0, manifest

_Array = NDArray[Any]

IDLE_W = 120.0
ACTIVE_W = 60.0
CLOCK_MHZ = 1900
_TICK_NS = 100_000_000


@dataclass(frozen=True)
class MadeUpLoad:
    """A kernel's time, and its joules as sums of bytes and FLOPs."""

    time_s: float
    gigabytes: float
    teraflop: float

    @property
    def unit_j(self) -> float:
        """At 60 pJ a byte and 0.5 pJ a FLOP."""
        return self.gigabytes * 0.060 + self.teraflop * 0.5

    @property
    def work(self) -> dict[str, float]:
        """As a manifest says it."""
        return {PowerFeature.DRAM_BYTES.value: self.gigabytes * 1e9, PowerFeature.FP16_FLOP.value: self.teraflop * 1e12}


def made_up_loads(num_kinds: int = 6) -> dict[str, MadeUpLoad]:
    """Kinds of 0.4 to 1.2 ms that draw 300 to 650 W alone."""
    random = np.random.default_rng(3)
    loads = {}
    for number in range(num_kinds):
        time_s = float(random.uniform(0.4e-3, 1.2e-3))
        watts, share = random.uniform(150, 450), random.uniform(0.1, 0.9)
        joules = watts * time_s
        loads[f"kind{number}"] = MadeUpLoad(time_s, joules * share / 0.060, joules * (1 - share) / 0.5)
    return loads


def made_up_plan(loads: dict[str, MadeUpLoad], **options: Any) -> LoadPlan:
    """A short plan for them."""
    pilots = {
        name: PilotLoad(load.time_s, IDLE_W + ACTIVE_W + load.unit_j / load.time_s) for name, load in loads.items()
    }
    values = {"window_s": 1.0, "soak_s": 1.0, "num_mixtures": 10, "num_capped": 2, "num_interventions": 3, **options}
    return plan_loads(pilots, IDLE_W, PlanOptions(**values))


def load_capture(loads: dict[str, MadeUpLoad], plan: LoadPlan, *, throttled: str = "") -> Capture:
    """The capture that running ``plan`` leaves; the power limit holds clocks down in windows of group ``throttled``."""
    names = list(loads)
    begin_s, kernels, ranges, held = 1.0, [], [], []
    for window in plan.windows:
        start_s, end_s = begin_s + SETTLE_S, begin_s + SETTLE_S + window.length_s
        kernels += _launches(window, loads, names, begin_s, end_s)
        ranges.append((start_s, end_s, window.range_name))
        if window.group == throttled and throttled:
            held.append((start_s, end_s))
        begin_s = end_s + 0.05
    start_s, end_s, kind = (np.array(column) for column in zip(*kernels, strict=True))
    length_ns = round((begin_s + 1.0) * 1e9)
    kinds = {
        name: {"class": f"{name} <1x1x1, 128x1x1, 0>", "quantized": number == 0, "work": load.work}
        for number, (name, load) in enumerate(loads.items())
    }
    return Capture(
        manifest(T0, T0 + length_ns, workload={"name": "loads", "kinds": kinds}),
        kernel_classes=_classes(names),
        kernels=_kernels(start_s, end_s, kind.astype(int)),
        ranges=_ranges(ranges),
        energy=_energy(start_s, end_s, np.array([loads[names[k]].unit_j for k in kind.astype(int)]), length_ns),
        clocks=_clocks(length_ns),
        throttles=_throttles(held, length_ns),
    )


def _launches(
    window: LoadWindow, loads: dict[str, MadeUpLoad], names: list[str], begin_s: float, end_s: float
) -> list[tuple[float, float, int]]:
    if window.role is WindowRole.IDLE:
        return []
    rows, slot_begin_s = [], begin_s
    while slot_begin_s < end_s:
        now_s = slot_begin_s
        for name, count in window.counts.items():
            for _ in range(count):
                rows.append((now_s, now_s + loads[name].time_s, names.index(name)))
                now_s += loads[name].time_s
        slot_begin_s = max(now_s, slot_begin_s + window.slot_s)
    return rows


def _classes(names: list[str]) -> KernelClassTable:
    columns: dict[str, Any] = {spec.name: np.zeros(len(names)) for spec in KernelClassTable.columns()}
    ones = {f"{part}_{axis}": np.ones(len(names)) for part in ("grid", "block") for axis in "xyz"}
    return KernelClassTable.from_columns(**{**columns, **ones, "block_x": np.full(len(names), 128), "name": names})


def _kernels(start_s: _Array, end_s: _Array, kind: _Array) -> KernelTable:
    columns: dict[str, Any] = {spec.name: np.zeros(len(kind)) for spec in KernelTable.columns()}
    times = {"start_ns": T0 + np.rint(start_s * 1e9).astype("i8"), "end_ns": T0 + np.rint(end_s * 1e9).astype("i8")}
    return KernelTable.from_columns(**{**columns, **times, "class_id": kind})


def _ranges(ranges: list[tuple[float, float, str]]) -> RangeTable:
    columns: dict[str, Any] = {spec.name: np.zeros(len(ranges)) for spec in RangeTable.columns()}
    start_s, end_s, names = zip(*ranges, strict=True)
    times = {"start_ns": T0 + np.rint(np.array(start_s) * 1e9).astype("i8")}
    times["end_ns"] = T0 + np.rint(np.array(end_s) * 1e9).astype("i8")
    return RangeTable.from_columns(**{**columns, **times, "name": list(names)})


def _energy(start_s: _Array, end_s: _Array, unit_j: _Array, length_ns: int) -> EnergyTable:
    """Ticks of the true energy every 100 ms."""
    tick_s = np.arange(0, length_ns + 1, _TICK_NS) / 1e9
    times = np.column_stack([start_s, end_s]).ravel()
    kernel_j = unit_j + ACTIVE_W * (end_s - start_s)
    total = np.repeat(np.cumsum(kernel_j), 2)
    total[::2] -= kernel_j
    energy_j = IDLE_W * tick_s + np.interp(tick_s, times, total)
    rows = len(tick_s)
    tick_ns = T0 + np.rint(tick_s * 1e9).astype("i8")
    return EnergyTable.from_columns(
        device=np.zeros(rows),
        source=np.full(rows, EnergySource.NVML_TOTAL_ENERGY),
        low_ns=tick_ns - 500_000,
        high_ns=tick_ns + 500_000,
        energy_uj=np.rint(energy_j * 1e6),
    )


def _clocks(length_ns: int) -> ClockTable:
    time_ns = T0 + np.arange(0, length_ns, _TICK_NS)
    columns: dict[str, Any] = {spec.name: np.zeros(len(time_ns)) for spec in ClockTable.columns()}
    known = {"time_ns": time_ns, "sm_mhz": np.full(len(time_ns), CLOCK_MHZ), "temperature_c": np.full(len(time_ns), 50)}
    return ClockTable.from_columns(**{**columns, **known})


def _throttles(held: list[tuple[float, float]], length_ns: int) -> ThrottleTable:
    time_ns = np.arange(0, length_ns, _TICK_NS)
    power_ns = np.zeros(len(time_ns))
    for start_s, end_s in held:
        power_ns += np.clip(time_ns - start_s * 1e9, 0, (end_s - start_s) * 1e9)
    zeros = np.zeros(len(time_ns))
    return ThrottleTable.from_columns(device=zeros, time_ns=T0 + time_ns, power_ns=power_ns, thermal_ns=zeros)
