"""A capture in memory: its manifest and all its tables."""

from __future__ import annotations

from dataclasses import dataclass, field

from qmeter_native.model.manifest import Manifest
from qmeter_native.model.tables import (
    ClockPairTable,
    ClockTable,
    CounterTable,
    CounterWindowTable,
    EnergyTable,
    EngineRequestTable,
    KernelClassTable,
    KernelTable,
    OutputTokenTable,
    PowerTable,
    PreemptionTable,
    RangeTable,
    RequestTable,
    StepRequestTable,
    StepTable,
    ThrottleTable,
    TraceWindowTable,
)

__all__ = ["Capture"]


@dataclass(frozen=True, slots=True)
class Capture:
    """Everything that was recorded in one run. Attribution is a pure function of it.

    ``kernels`` is sorted by ``start_ns``; ``steps`` by process and step.
    """

    manifest: Manifest
    kernel_classes: KernelClassTable = field(default_factory=KernelClassTable.empty)
    kernels: KernelTable = field(default_factory=KernelTable.empty)
    ranges: RangeTable = field(default_factory=RangeTable.empty)
    steps: StepTable = field(default_factory=StepTable.empty)
    step_requests: StepRequestTable = field(default_factory=StepRequestTable.empty)
    requests: RequestTable = field(default_factory=RequestTable.empty)
    output_tokens: OutputTokenTable = field(default_factory=OutputTokenTable.empty)
    energy: EnergyTable = field(default_factory=EnergyTable.empty)
    power: PowerTable = field(default_factory=PowerTable.empty)
    clocks: ClockTable = field(default_factory=ClockTable.empty)
    clock_pairs: ClockPairTable = field(default_factory=ClockPairTable.empty)
    trace_windows: TraceWindowTable = field(default_factory=TraceWindowTable.empty)
    engine_requests: EngineRequestTable = field(default_factory=EngineRequestTable.empty)
    preemptions: PreemptionTable = field(default_factory=PreemptionTable.empty)
    counters: CounterTable = field(default_factory=CounterTable.empty)
    counter_windows: CounterWindowTable = field(default_factory=CounterWindowTable.empty)
    throttles: ThrottleTable = field(default_factory=ThrottleTable.empty)
