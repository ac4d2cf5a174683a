"""A kernel benchmark: what products of matrices took, beside their peers and their roof, and its JSON document.

History of the document: 1, first version. ``kernel_benchmark.schema.json`` beside this module is its JSON schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from qmeter_native.errors import BenchmarkError
from qmeter_native.model.estimate import Estimate

__all__ = [
    "BENCHMARK_FORMAT",
    "BENCHMARK_SCHEMA_VERSION",
    "AbsentKernel",
    "BenchmarkRow",
    "Device",
    "KernelBenchmark",
    "Protocol",
    "Roof",
    "benchmark_from_dict",
    "benchmark_to_dict",
]

BENCHMARK_FORMAT: Final = "qmeter-native kernel benchmark"
BENCHMARK_SCHEMA_VERSION: Final = 1

_NOT_ASKED: Final = Estimate.missing("energy was not asked for at this point")
"""Of energy: a loop of seconds a point is more than a sweep has time for."""

_MICRO: Final = 1e6


@dataclass(frozen=True, slots=True)
class Device:
    """The GPU: the vendor's name, NVML's UUID, and the compute capability such as ``9.0``."""

    name: str
    uuid: str
    compute_capability: str


@dataclass(frozen=True, slots=True)
class Roof:
    """What the GPU can reach.

    Attributes:
        source: ``measured`` (by calibration) or ``datasheet``.
        read_bytes_s: DRAM, reading; None if not known.
        op_s: By type of operands, as `model.device_profile.Ceiling` names them.
    """

    source: str
    read_bytes_s: float | None
    op_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How times were taken.

    Attributes:
        num_repeats: Bursts of each kernel at each point.
        burst_s: Length of a burst, the same for every kernel.
        rest_share: Rest after a burst over its length.
        working_set_bytes: Least that the copies of a weight take together.
        seed: Of data and order.
    """

    num_repeats: int
    burst_s: float
    rest_share: float
    working_set_bytes: int
    seed: int


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One kernel on one product ``[M, K] @ [N, K]^T``.

    Attributes:
        format: Of the weights and activations that were asked for, such as ``W4A16-INT g128``.
        m, n, k: Rows of activations, outputs, inputs.
        kernel: Name; those of this project begin with ``qmeter.``.
        dtype: Type of the 16-bit side: activations, or outputs where activations are quantized.
        time_s: A call: median and 95 % interval over the repeats, or why it was not timed.
        roof_s: The least that the machine's roof allows; None if the roof is not known.
        bound: ``memory`` or ``compute``: which of the two is that; None likewise.
        clock_mhz: Median SM clock during the bursts; None if not read.
        energy_j: A call, with the idle power of the time it takes.
        dynamic_j: A call, above idle power.
        error: Largest distance from the product in double precision over the bound of the format; at most 1 is right.
    """

    format: str
    m: int
    n: int
    k: int
    kernel: str
    dtype: str
    time_s: Estimate
    roof_s: float | None = None
    bound: str | None = None
    clock_mhz: float | None = None
    energy_j: Estimate = _NOT_ASKED
    dynamic_j: Estimate = _NOT_ASKED
    error: float | None = None

    @property
    def roof_fraction(self) -> float | None:
        """``roof_s`` over the time; None without either."""
        return None if self.roof_s is None or self.time_s.value is None else self.roof_s / self.time_s.value

    @property
    def is_ours(self) -> bool:
        """Whether this project has the kernel."""
        return self.kernel.startswith("qmeter.")

    @property
    def point(self) -> tuple[str, int, int, int]:
        """Format and sizes: rows of one point can be compared."""
        return self.format, self.m, self.n, self.k


@dataclass(frozen=True, slots=True)
class AbsentKernel:
    """A peer that could not be compared with, and why."""

    kernel: str
    reason: str


@dataclass(frozen=True, slots=True)
class KernelBenchmark:
    """What a run of the benchmark found.

    Attributes:
        date: ISO 8601.
        command: That measures it again.
        device: The GPU.
        software: Versions by package.
        roof: That ``roof_s`` was computed from.
        protocol: Of the times.
        idle_w: Power of the GPU before anything ran.
        rows: Every kernel at every point, also those that could not be timed.
        absent: Peers that are not here.
        num_points: Points that were planned; a run that was stopped has fewer.
        metrics: Speed ratios ours over peer, above 1 where ours is faster; see `benchmark.metrics`.
        notes: What weakens it, in sentences.
    """

    date: str
    command: str
    device: Device
    software: Mapping[str, str]
    roof: Roof
    protocol: Protocol
    idle_w: Estimate
    rows: tuple[BenchmarkRow, ...]
    absent: tuple[AbsentKernel, ...] = ()
    num_points: int = 0
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def num_measured(self) -> int:
        """Points with rows."""
        return len({row.point for row in self.rows})


def benchmark_to_dict(benchmark: KernelBenchmark) -> dict[str, Any]:
    """Plain JSON; `benchmark_from_dict` reads it."""
    return {
        "document": BENCHMARK_FORMAT,
        "schema_version": BENCHMARK_SCHEMA_VERSION,
        "date": benchmark.date,
        "command": benchmark.command,
        "device": asdict(benchmark.device),
        "software": dict(benchmark.software),
        "roof": {**asdict(benchmark.roof), "op_s": dict(benchmark.roof.op_s)},
        "protocol": asdict(benchmark.protocol),
        "idle_w": benchmark.idle_w.to_dict(),
        "num_points": benchmark.num_points,
        "metrics": {name: estimate.to_dict() for name, estimate in benchmark.metrics.items()},
        "absent": [asdict(entry) for entry in benchmark.absent],
        "notes": list(benchmark.notes),
        "rows": [_row_to_dict(row) for row in benchmark.rows],
    }


def benchmark_from_dict(document: Any, where: str = "the document") -> KernelBenchmark:
    """The benchmark that a JSON document holds.

    Args:
        document: What `benchmark_to_dict` made, or anything else.
        where: Its file, for messages.

    Raises:
        BenchmarkError: It is something else, damaged, or of a newer version.
    """
    if not isinstance(document, dict) or document.get("document") != BENCHMARK_FORMAT:
        raise BenchmarkError(f"{where} is no kernel benchmark", "`qmeter-native kernels bench -o FILE.json` makes one.")
    version = document.get("schema_version")
    if version != BENCHMARK_SCHEMA_VERSION:
        raise BenchmarkError(
            f"{where} has schema version {version}, and this version reads {BENCHMARK_SCHEMA_VERSION}",
            "Update qmeter-native.",
        )
    try:
        return _benchmark(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BenchmarkError(f"{where} is damaged: {error!r}", "Run `qmeter-native kernels bench` again.") from error


def _benchmark(document: Mapping[str, Any]) -> KernelBenchmark:
    return KernelBenchmark(
        date=document["date"],
        command=document["command"],
        device=Device(**document["device"]),
        software=document["software"],
        roof=Roof(**document["roof"]),
        protocol=Protocol(**document["protocol"]),
        idle_w=Estimate(**document["idle_w"]),
        rows=tuple(_row(row) for row in document["rows"]),
        absent=tuple(AbsentKernel(**entry) for entry in document["absent"]),
        num_points=document["num_points"],
        metrics={name: Estimate(**estimate) for name, estimate in document["metrics"].items()},
        notes=tuple(document["notes"]),
    )


def _row_to_dict(row: BenchmarkRow) -> dict[str, Any]:
    """Times in microseconds, as kernels are spoken of."""
    return {
        "format": row.format,
        "m": row.m,
        "n": row.n,
        "k": row.k,
        "kernel": row.kernel,
        "dtype": row.dtype,
        "us": _micro(row.time_s.value),
        "us_low": _micro(row.time_s.low),
        "us_high": _micro(row.time_s.high),
        "us_reason": row.time_s.reason,
        "roof_us": _micro(row.roof_s),
        "bound": row.bound,
        "roof_fraction": row.roof_fraction,
        "clock_mhz": row.clock_mhz,
        "j": row.energy_j.value,
        "j_low": row.energy_j.low,
        "j_high": row.energy_j.high,
        "j_dynamic": row.dynamic_j.value,
        "j_dynamic_low": row.dynamic_j.low,
        "j_dynamic_high": row.dynamic_j.high,
        "j_reason": row.energy_j.reason,
        "error": row.error,
    }


def _row(fields: Mapping[str, Any]) -> BenchmarkRow:
    us = [_seconds(fields[name]) for name in ("us", "us_low", "us_high")]
    joules = [fields[name] for name in ("j", "j_low", "j_high")]
    dynamic = [fields[name] for name in ("j_dynamic", "j_dynamic_low", "j_dynamic_high")]
    return BenchmarkRow(
        **{name: fields[name] for name in ("format", "m", "n", "k", "kernel", "dtype", "bound", "clock_mhz", "error")},
        time_s=Estimate(us[0], us[1], us[2], reason=fields["us_reason"]),
        roof_s=_seconds(fields["roof_us"]),
        energy_j=Estimate(joules[0], joules[1], joules[2], reason=fields["j_reason"]),
        dynamic_j=Estimate(dynamic[0], dynamic[1], dynamic[2], reason=fields["j_reason"]),
    )


def _micro(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * _MICRO


def _seconds(micro: float | None) -> float | None:
    return None if micro is None else micro / _MICRO
