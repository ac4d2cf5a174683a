"""What a capture says about itself: devices, processes, engine, losses, overhead."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["DeviceInfo", "EngineInfo", "LossReport", "Manifest", "ProcessInfo", "Validity"]


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One device of a capture.

    Attributes:
        index: Its number in this capture's tables.
        kind: ``cuda`` or ``cpu``.
        name: The vendor's name.
        uuid: NVML's UUID, or the host's name for a CPU.
        energy_source: ``nvml_total_energy``, ``nvml_power_samples``, ``rapl``, or None if there is none.
        energy_absent_reason: Why ``energy_source`` is None.
        idle_power_w: Power before the run with nothing on the device, in watts; None if not measured.
        idle_window_s: Length of the window in which ``idle_power_w`` was measured.
        properties: What else was read: driver, CUDA version, memory bytes, power limit, compute capability …
    """

    index: int
    kind: str
    name: str
    uuid: str
    energy_source: str | None = None
    energy_absent_reason: str | None = None
    idle_power_w: float | None = None
    idle_window_s: float | None = None
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One traced process.

    Attributes:
        index: Its number in this capture's tables.
        host: Host name.
        boot_id: Which boot of the host: pids repeat after one.
        pid: Process id.
        rank: Rank in a parallel group; None outside one.
        command: Its command line.
        gpu_uuids: NVML UUIDs of the GPUs that it sees, by CUDA ordinal; empty if it did not say.
        clock_offset_ns: CUPTI's clock less CLOCK_REALTIME, median of all readings; None if it was not measured.
        clock_offset_range_ns: Smallest and largest reading; None if it was not measured.
    """

    index: int
    host: str
    boot_id: str
    pid: int
    rank: int | None = None
    command: str = ""
    gpu_uuids: tuple[str, ...] = ()
    clock_offset_ns: int | None = None
    clock_offset_range_ns: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The serving engine as it was asked for and as it really ran.

    Attributes:
        name: ``transformers``, ``vllm``, ``openai`` …
        version: The engine's own.
        model: As the user named it.
        requested: What was asked for, plain JSON.
        effective: What really runs, plain JSON. Keys that attribution reads, each absent where unknown: ``hf_config``
            (the model's ``config.json``), ``quantization`` (method name), ``quantization_config``, ``dtype``,
            ``kv_cache_dtype``, ``tensor_parallel``, ``cudagraph_mode``, ``cudagraph_capture_sizes``,
            ``max_num_batched_tokens``, ``block_size``.
        weights_source: ``checkpoint`` (trained), ``random_codes`` (written by `qmeter_native.quantization` with random
            codes and sane scales: good for time and energy, not for quality), ``random`` (the engine's own random
            values), ``dummy`` (unset memory or near zeros: good for time alone, the energy is invalid); None unknown.
    """

    name: str
    version: str
    model: str
    requested: dict[str, Any] = field(default_factory=dict)
    effective: dict[str, Any] = field(default_factory=dict)
    weights_source: str | None = None


@dataclass(frozen=True, slots=True)
class LossReport:
    """What was lost, each a count of records unless its name says otherwise. Zero means counted and none lost."""

    dropped_records: int = 0
    zero_timestamps: int = 0
    reversed_timestamps: int = 0
    implausible_timestamps: int = 0
    unknown_records: int = 0
    spool_blocks_lost: int = 0
    spool_records_dropped: int = 0
    missed_samples: int = 0

    @property
    def total(self) -> int:
        """All losses together; 0 means that the capture is complete."""
        return (
            self.dropped_records
            + self.zero_timestamps
            + self.reversed_timestamps
            + self.implausible_timestamps
            + self.unknown_records
            + self.spool_blocks_lost
            + self.spool_records_dropped
            + self.missed_samples
        )


@dataclass(frozen=True, slots=True)
class Validity:
    """One thing that limits what a capture can prove.

    Attributes:
        code: Stable short name, such as ``energy_absent`` or ``interrupted``.
        message: What it means, in a sentence.
        subject: The device, process or table concerned; empty for the whole capture.
    """

    code: str
    message: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """``manifest.json`` of a capture.

    Attributes:
        schema_version: Version of the capture format.
        qmeter_version: Version of the program that wrote it.
        start_ns: Tracing began (CLOCK_REALTIME).
        end_ns: Tracing ended.
        measure_start_ns: The workload began; before it the idle power was measured. Attribution covers
            ``[measure_start_ns, measure_end_ns)``.
        measure_end_ns: The workload ended.
        devices: All devices, by index.
        processes: All traced processes, by index.
        engine: The engine, or None if a user's own code was traced.
        workload: The workload's own description, plain JSON.
        loss: What was lost.
        validity: What limits the capture.
        overhead: What the meter itself cost, in nanoseconds: CPU time of its threads (``sampler_cpu_ns``,
            ``decode_ns``), waiting in vendor calls (``sampler_blocked_ns``), CUPTI's callbacks (``callback_ns``).
        tracer: CUPTI's path and version, kinds traced; the profiler on a CPU.
        sampler: Rates, per-call costs, jitter and missed samples of the energy sampler.
        counters: How PM sampling went, by device index as text: metrics by quantity, interval, chip, samples, losses
            and costs; ``absent_reason`` where there is none.
        profiles: Calibrated device profiles that were found when the run began, by device index as text, as
            `devices.profile_to_dict` makes them; devices that were never calibrated have none.
        software: Versions of what ran: python, torch, transformers, driver …
    """

    schema_version: int
    qmeter_version: str
    start_ns: int
    end_ns: int
    measure_start_ns: int
    measure_end_ns: int
    devices: tuple[DeviceInfo, ...]
    processes: tuple[ProcessInfo, ...]
    engine: EngineInfo | None = None
    workload: dict[str, Any] = field(default_factory=dict)
    loss: LossReport = field(default_factory=LossReport)
    validity: tuple[Validity, ...] = ()
    overhead: dict[str, Any] = field(default_factory=dict)
    tracer: dict[str, Any] = field(default_factory=dict)
    sampler: dict[str, Any] = field(default_factory=dict)
    counters: dict[str, Any] = field(default_factory=dict)
    profiles: dict[str, Any] = field(default_factory=dict)
    software: dict[str, Any] = field(default_factory=dict)
