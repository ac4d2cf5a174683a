"""The tables of a capture. Times are nanoseconds of CLOCK_REALTIME; ids index other tables of the same capture.

A spool's records (`qmeter_native.storage.spool_records`) and the Parquet files of a capture both realise these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from qmeter_native.model.table import Table, column

__all__ = [
    "ClockPairTable",
    "ClockTable",
    "CounterTable",
    "CounterWindowTable",
    "EnergyTable",
    "EngineRequestTable",
    "KernelClassTable",
    "KernelTable",
    "OutputTokenTable",
    "PowerTable",
    "PreemptionTable",
    "RangeTable",
    "RequestIdTable",
    "RequestTable",
    "StepRequestTable",
    "StepTable",
    "ThrottleTable",
    "TraceWindowTable",
]

_Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class KernelClassTable(Table):
    """Dictionary of kernel classes: one row per name and launch configuration. Row number = ``class_id``."""

    NAME: ClassVar[str] = "kernel_classes"

    name: _Array = column("O", "demangled kernel name, operator name, or the memcpy's direction")
    kind: _Array = column("u1", "ActivityKind")
    grid_x: _Array = column("i4", "blocks; 0 where there is no grid")
    grid_y: _Array = column("i4", "blocks")
    grid_z: _Array = column("i4", "blocks")
    block_x: _Array = column("i4", "threads; 0 where there is no block")
    block_y: _Array = column("i4", "threads")
    block_z: _Array = column("i4", "threads")
    static_shared_bytes: _Array = column("i4", "static shared memory per block")
    dynamic_shared_bytes: _Array = column("i4", "dynamic shared memory per block")
    registers: _Array = column("i4", "registers per thread; 0 where unknown")


@dataclass(frozen=True, slots=True)
class KernelTable(Table):
    """One row per device activity: kernel, graph node, copy, memset or CPU operator. 56 bytes a row."""

    NAME: ClassVar[str] = "kernels"

    start_ns: _Array = column("i8", "start on the device")
    end_ns: _Array = column("i8", "end on the device; >= start_ns")
    class_id: _Array = column("i4", "row in kernel_classes")
    device: _Array = column("i2", "DeviceInfo.index")
    process: _Array = column("i2", "ProcessInfo.index")
    stream: _Array = column("u4", "CUDA stream id, or the thread on a CPU")
    graph: _Array = column("u4", "CUDA graph (exec) id, 0 outside graphs")
    graph_node: _Array = column("u8", "graph node id, 0 outside graphs")
    correlation: _Array = column("u4", "CUPTI correlation id; 0 where API records are off")
    range_id: _Array = column("i4", "row in ranges, -1 = none; nothing fills it yet")
    copied_bytes: _Array = column("u8", "bytes copied or set; 0 for kernels")


@dataclass(frozen=True, slots=True)
class RangeTable(Table):
    """One row per range (NVTX's word) that was closed or cut off."""

    NAME: ClassVar[str] = "ranges"

    start_ns: _Array = column("i8", "opened")
    end_ns: _Array = column("i8", "closed")
    name: _Array = column("O", "text")
    thread: _Array = column("u4", "thread id")
    depth: _Array = column("u2", "nesting depth, 0 = outermost")
    process: _Array = column("i2", "ProcessInfo.index")


@dataclass(frozen=True, slots=True)
class StepTable(Table):
    """One row per engine step (forward pass), in order of ``start_ns``.

    The host times bracket the engine's call. On CUDA the device runs the step's kernels later: two marker kernels
    (`qmeter_step_marker`) on the engine's stream, launched when the step begins and ends, bound it there.
    """

    NAME: ClassVar[str] = "steps"

    step: _Array = column("i8", "step number of that process, increasing")
    start_ns: _Array = column("i8", "host call begins")
    end_ns: _Array = column("i8", "host call has returned")
    process: _Array = column("i2", "ProcessInfo.index")
    device: _Array = column("i2", "DeviceInfo.index of the engine's stream")
    stream: _Array = column("u4", "CUDA stream id of the markers as CUPTI numbers it; 0 = unknown or CPU")
    num_markers: _Array = column("u1", "markers launched: 0 (CPU) or 2")
    num_padded: _Array = column(
        "i4", "tokens the device computed, padding to a CUDA graph's size included; -1 = unknown"
    )


@dataclass(frozen=True, slots=True)
class StepRequestTable(Table):
    """One row per request in a step: what the scheduler gave it there."""

    NAME: ClassVar[str] = "step_requests"

    step: _Array = column("i8", "StepTable.step")
    process: _Array = column("i2", "ProcessInfo.index")
    request: _Array = column("i4", "RequestTable.request")
    phase: _Array = column("u1", "Phase")
    num_scheduled: _Array = column("i4", "tokens computed in this step")
    num_cached: _Array = column("i4", "tokens taken from a prefix cache instead of being computed")
    num_draft: _Array = column("i4", "of the scheduled ones, speculative")
    num_sampled: _Array = column("i4", "sequences sampled: 0 for a chunk of a prompt that is not the last, else 1")
    context_len: _Array = column("i4", "tokens of the sequence in the KV cache before this step")


@dataclass(frozen=True, slots=True)
class RequestTable(Table):
    """One row per request, as its client saw it. Times are 0 where the event did not happen."""

    NAME: ClassVar[str] = "requests"

    request: _Array = column("i4", "number, from 0")
    name: _Array = column("O", "the engine's request id")
    send_ns: _Array = column("i8", "client sent it")
    first_token_ns: _Array = column("i8", "client received the first chunk")
    last_token_ns: _Array = column("i8", "client received the last chunk")
    num_prompt_tokens: _Array = column("i4", "input tokens")
    num_output_tokens: _Array = column("i4", "output tokens received")
    is_finished: _Array = column("?", "False if it failed or was cut off")
    error: _Array = column("O", "what went wrong, empty if nothing")


@dataclass(frozen=True, slots=True)
class OutputTokenTable(Table):
    """One row per chunk of output that a client received, in order of time within a request."""

    NAME: ClassVar[str] = "output_tokens"

    request: _Array = column("i4", "RequestTable.request")
    time_ns: _Array = column("i8", "received")
    num_tokens: _Array = column("i4", "tokens in the chunk")


@dataclass(frozen=True, slots=True)
class EnergyTable(Table):
    """One row per observed change (tick edge) of a cumulative energy counter, unwrapped."""

    NAME: ClassVar[str] = "energy"

    device: _Array = column("i2", "DeviceInfo.index")
    source: _Array = column("u1", "EnergySource")
    low_ns: _Array = column("i8", "latest time at which the old value was still read")
    high_ns: _Array = column("i8", "earliest time at which the new value was read; the edge lies in [low_ns, high_ns]")
    energy_uj: _Array = column("i8", "the new value, cumulative since the sampler's start")


@dataclass(frozen=True, slots=True)
class PowerTable(Table):
    """One row per power reading."""

    NAME: ClassVar[str] = "power"

    device: _Array = column("i2", "DeviceInfo.index")
    source: _Array = column("u1", "EnergySource")
    time_ns: _Array = column("i8", "when read; for NVML_POWER_SAMPLES the driver's own stamp")
    power_mw: _Array = column("i4", "milliwatts")


@dataclass(frozen=True, slots=True)
class ClockTable(Table):
    """One row per reading of clocks and temperature."""

    NAME: ClassVar[str] = "clocks"

    device: _Array = column("i2", "DeviceInfo.index")
    time_ns: _Array = column("i8", "when read")
    sm_mhz: _Array = column("i4", "SM clock; -1 = not readable")
    memory_mhz: _Array = column("i4", "memory clock; -1 = not readable")
    temperature_c: _Array = column("i2", "GPU temperature, degrees Celsius; -1 = not readable")
    throttle_reasons: _Array = column("u8", "NVML's clock event reasons bit mask")


@dataclass(frozen=True, slots=True)
class ClockPairTable(Table):
    """One row a second: the host's two clocks read together, so that steps of CLOCK_REALTIME can be seen."""

    NAME: ClassVar[str] = "clock_pairs"

    process: _Array = column("i2", "ProcessInfo.index")
    realtime_ns: _Array = column("i8", "CLOCK_REALTIME")
    monotonic_ns: _Array = column("i8", "CLOCK_MONOTONIC")


@dataclass(frozen=True, slots=True)
class TraceWindowTable(Table):
    """One row per stretch of time in which a process's kernels were recorded.

    Windows of a process do not overlap; adjacent ones are one window. A process without any was traced all the time.
    """

    NAME: ClassVar[str] = "trace_windows"

    process: _Array = column("i2", "ProcessInfo.index")
    start_ns: _Array = column("i8", "recording had begun")
    end_ns: _Array = column("i8", "recording was about to end, or was last known to go on")


@dataclass(frozen=True, slots=True)
class RequestIdTable(Table):
    """One row per request that a process knows, in spools only: joining gives requests one number in all tables."""

    NAME: ClassVar[str] = "request_ids"

    process: _Array = column("i2", "ProcessInfo.index")
    request: _Array = column("i4", "its number in that process's records")
    name: _Array = column("O", "the engine's request id")


@dataclass(frozen=True, slots=True)
class EngineRequestTable(Table):
    """One row per request, as the engine's scheduler saw it. Times are 0 where the event did not happen."""

    NAME: ClassVar[str] = "engine_requests"

    process: _Array = column("i2", "ProcessInfo.index")
    request: _Array = column("i4", "RequestTable.request")
    arrival_ns: _Array = column("i8", "the server's front end received it")
    first_schedule_ns: _Array = column("i8", "the first step with it was scheduled")
    first_token_ns: _Array = column("i8", "its first output token reached the scheduler")
    finish_ns: _Array = column("i8", "its last output token reached the scheduler")
    num_prompt_tokens: _Array = column("i4", "input tokens")
    num_cached_tokens: _Array = column("i4", "of these, found in the prefix cache")
    num_output_tokens: _Array = column("i4", "output tokens")
    is_finished: _Array = column("?", "False if it was aborted or still ran at the end")
    reason: _Array = column("O", "why it ended, the engine's word: stop, length, abort; empty if it did not")


@dataclass(frozen=True, slots=True)
class PreemptionTable(Table):
    """One row each time a running request was put back into the queue and lost its KV cache."""

    NAME: ClassVar[str] = "preemptions"

    process: _Array = column("i2", "ProcessInfo.index")
    request: _Array = column("i4", "RequestTable.request")
    time_ns: _Array = column("i8", "the step that it was dropped from was scheduled")


@dataclass(frozen=True, slots=True)
class CounterTable(Table):
    """One row per hardware counter and PM sample, in order of ``end_ns`` within a device and quantity."""

    NAME: ClassVar[str] = "counters"

    device: _Array = column("i2", "DeviceInfo.index")
    quantity: _Array = column("u1", "CounterQuantity")
    start_ns: _Array = column("i8", "the sample begins, by CUPTI's stamp, on the clock of kernels")
    end_ns: _Array = column("i8", "the sample ends; > start_ns")
    value: _Array = column("f8", "what the whole device did in the sample, in the quantity's unit")


@dataclass(frozen=True, slots=True)
class CounterWindowTable(Table):
    """One row per counter phase: a PM sampling session raises the device's power while it is merely enabled.

    Times are the host's: energy between ``enable_ns`` and ``disable_ns`` is in part the meter's.
    """

    NAME: ClassVar[str] = "counter_windows"

    device: _Array = column("i2", "DeviceInfo.index")
    enable_ns: _Array = column("i8", "the session was about to be set up")
    start_ns: _Array = column("i8", "samples begin")
    stop_ns: _Array = column("i8", "samples end")
    disable_ns: _Array = column("i8", "the session had been torn down")
    interval_ns: _Array = column("i8", "time between samples that was asked for; nominal with a SYSCLK trigger")
    num_samples: _Array = column("i8", "samples decoded")
    num_lost: _Array = column("i8", "samples missing in bursts; none were taken between them")


@dataclass(frozen=True, slots=True)
class ThrottleTable(Table):
    """One row per reading of NVML's cumulative throttle times, which only grow; differences count."""

    NAME: ClassVar[str] = "throttles"

    device: _Array = column("i2", "DeviceInfo.index")
    time_ns: _Array = column("i8", "when read")
    power_ns: _Array = column("i8", "clocks held down by a power limit, cumulative; -1 = not readable")
    thermal_ns: _Array = column("i8", "clocks held down by a thermal limit, cumulative; -1 = not readable")


TABLES: tuple[type[Table], ...] = (
    KernelClassTable,
    KernelTable,
    RangeTable,
    StepTable,
    StepRequestTable,
    RequestTable,
    OutputTokenTable,
    EnergyTable,
    PowerTable,
    ClockTable,
    ClockPairTable,
    TraceWindowTable,
    EngineRequestTable,
    PreemptionTable,
    CounterTable,
    CounterWindowTable,
    ThrottleTable,
)
"""Every table of a capture."""
