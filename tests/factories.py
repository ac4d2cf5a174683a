"""Builders of captures for tests and benchmarks: `CaptureBuilder` by hand, `synthetic_capture` at any size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.model.activity_kind import ActivityKind
from qmeter_native.model.capture import Capture
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.manifest import DeviceInfo, EngineInfo, Manifest, ProcessInfo
from qmeter_native.model.phase import Phase
from qmeter_native.model.table import Table
from qmeter_native.model.tables import (
    EnergyTable,
    KernelClassTable,
    KernelTable,
    OutputTokenTable,
    PowerTable,
    PreemptionTable,
    RequestTable,
    StepRequestTable,
    StepTable,
    TraceWindowTable,
)
from qmeter_native.storage.schema import SCHEMA_VERSION

MARKER = "qmeter_step_marker"
GEMM = "nvjet_tst_128x64_64x8_2x1_v_bz_TNT"
ATTENTION = "void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128, 64, 128, 4, cutlass::bfloat16_t>>"
SAMPLING = "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::ArgMaxOps<float>>>"
T0 = 1_700_000_000_000_000_000
"""Start of hand-made captures: a plausible CLOCK_REALTIME, so that float rounding would show."""


def device(index: int = 0, **changes: Any) -> DeviceInfo:
    """A GPU with an energy counter and a known idle power of 100 W."""
    values: dict[str, Any] = {
        "kind": "cuda",
        "name": "NVIDIA Test",
        "uuid": f"GPU-{index}",
        "energy_source": "nvml_total_energy",
        "idle_power_w": 100.0,
        "idle_window_s": 1.0,
    }
    return DeviceInfo(index=index, **{**values, **changes})


def manifest(start_ns: int, end_ns: int, **changes: Any) -> Manifest:
    """A manifest whose measured window is the whole run; one device and one process unless said otherwise."""
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "qmeter_version": "0.0.0",
        "start_ns": start_ns,
        "end_ns": end_ns,
        "measure_start_ns": start_ns,
        "measure_end_ns": end_ns,
        "devices": (device(),),
        "processes": (ProcessInfo(0, "host", "boot", 100),),
    }
    return Manifest(**{**values, **changes})


@dataclass
class CaptureBuilder:
    """Collects rows, with times in nanoseconds after ``T0``; `build` makes the capture."""

    length_ns: int = 1_000
    changes: dict[str, Any] = field(default_factory=dict)
    rows: dict[type[Table], list[dict[str, Any]]] = field(default_factory=dict)
    classes: dict[tuple[str, int, int], int] = field(default_factory=dict)

    def add(self, table: type[Table], **values: Any) -> CaptureBuilder:
        """Add a row; columns that are not given are 0."""
        self.rows.setdefault(table, []).append(values)
        return self

    def kernel(self, start: int, end: int, name: str = GEMM, *, block_x: int = 128, **values: Any) -> CaptureBuilder:
        """Add a kernel, and its class if it is new."""
        kind = values.pop("kind", ActivityKind.KERNEL)
        class_id = self.classes.setdefault((name, block_x, kind), len(self.classes))
        values = {"stream": 7, "range_id": -1, **values}
        return self.add(KernelTable, start_ns=T0 + start, end_ns=T0 + end, class_id=class_id, **values)

    def marker(self, start: int, sequence: int, **values: Any) -> CaptureBuilder:
        """Add a step marker of 1 ns."""
        return self.kernel(start, start + 1, MARKER, block_x=1 + sequence % 1024, **values)

    def step(self, step: int, start: int, end: int, **values: Any) -> CaptureBuilder:
        """Add an engine step with its host interval."""
        return self.add(StepTable, step=step, start_ns=T0 + start, end_ns=T0 + end, **values)

    def ride(self, step: int, request: int, phase: Phase = Phase.DECODE, **values: Any) -> CaptureBuilder:
        """Add a request's part in a step: by default one token, sampled."""
        values = {"num_scheduled": 1, "num_sampled": 1, **values}
        return self.add(StepRequestTable, step=step, request=request, phase=phase, **values)

    def request(self, request: int, send: int, first: int, last: int, tokens: int = 2, **values: Any) -> CaptureBuilder:
        """Add a finished request."""
        values = {"name": f"r{request}", "error": "", "is_finished": True, "num_prompt_tokens": 4, **values}
        times = {"send_ns": T0 + send, "first_token_ns": T0 + first, "last_token_ns": T0 + last}
        return self.add(RequestTable, request=request, num_output_tokens=tokens, **times, **values)

    def tick(self, time: int, energy_uj: int, *, half_width: int = 0, **values: Any) -> CaptureBuilder:
        """Add an edge of the energy counter."""
        bracket = {"low_ns": T0 + time - half_width, "high_ns": T0 + time + half_width}
        return self.add(EnergyTable, energy_uj=energy_uj, **bracket, **values)

    def power(self, time: int, milliwatts: int, **values: Any) -> CaptureBuilder:
        """Add a power reading, of the driver's ring unless said otherwise."""
        values = {"source": EnergySource.NVML_POWER_SAMPLES, **values}
        return self.add(PowerTable, time_ns=T0 + time, power_mw=milliwatts, **values)

    def chunk(self, request: int, time: int, tokens: int = 1) -> CaptureBuilder:
        """Add a chunk of output."""
        return self.add(OutputTokenTable, request=request, time_ns=T0 + time, num_tokens=tokens)

    def traced(self, start: int, end: int, process: int = 0) -> CaptureBuilder:
        """Add a stretch of time in which a process's kernels were recorded; without any all of the time was."""
        return self.add(TraceWindowTable, start_ns=T0 + start, end_ns=T0 + end, process=process)

    def preemption(self, request: int, time: int) -> CaptureBuilder:
        """Put a request back into the queue."""
        return self.add(PreemptionTable, request=request, time_ns=T0 + time)

    def build(self) -> Capture:
        """The capture, with kernels sorted by start."""
        for name, block_x, kind in self.classes:
            grid = {"grid_x": 1, "grid_y": 1, "grid_z": 1}
            self.add(KernelClassTable, name=name, kind=kind, block_x=block_x, block_y=1, block_z=1, **grid)
        tables: dict[str, Any] = {kind.NAME: _table(kind, rows) for kind, rows in self.rows.items()}
        if "kernels" in tables:
            kernels = tables["kernels"]
            tables["kernels"] = kernels.take(np.argsort(kernels.start_ns, kind="stable"))
        return Capture(manifest(T0, T0 + self.length_ns, **self.changes), **tables)


def _table(kind: type[Table], rows: list[dict[str, Any]]) -> Table:
    names = [spec.name for spec in kind.columns()]
    return kind.from_columns(**{name: [row.get(name, 0) for row in rows] for name in names})


def capture_of_intervals(intervals: list[tuple[int, int, int]], length_ns: int = 1_000, **changes: Any) -> Capture:
    """A capture of kernels ``(start, end, stream)`` and nothing else."""
    builder = CaptureBuilder(length_ns, changes)
    for start, end, stream in intervals:
        builder.kernel(start, end, stream=stream)
    return builder.build()


# --- a large capture that looks like an LLM that decodes -------------------------------------------------------------

_LAYER = (  # name, mean ns, watts above idle
    ("void vllm::rms_norm_kernel<c10::BFloat16, 8>", 1_900, 180.0),
    (GEMM, 9_500, 430.0),
    ("void vllm::rotary_embedding_kernel<c10::BFloat16, true>", 1_600, 150.0),
    ("void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16, __nv_bfloat16, 0>", 1_500, 160.0),
    (ATTENTION, 7_800, 300.0),
    ("void flash::flash_fwd_splitkv_combine_kernel<Flash_fwd_kernel_traits<128, 64, 128, 4>>", 2_100, 170.0),
    ("nvjet_tst_64x8_64x16_4x1_v_bz_TNT", 6_200, 410.0),
    ("void vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8>", 2_000, 180.0),
    ("void marlin::Marlin<__nv_bfloat16, 1125899906909960, 256, 1, 8, 8, true, 4, 8, false>", 24_000, 380.0),
    ("void vllm::act_and_mul_kernel<c10::BFloat16, &vllm::silu_kernel>", 3_000, 210.0),
    ("nvjet_tst_128x64_64x8_2x1_v_bz_splitK_TNT", 14_000, 440.0),
    ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16>>", 1_700, 160.0),
)
_NUM_LAYERS = 32
_HEAD = (
    ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_bf16_128x128_64x3_tn_align8>", 180_000, 450.0),
    (SAMPLING, 40_000, 200.0),
)
_COPY = ("Memcpy DtoH", 2_500, 40.0)
KERNELS_PER_STEP = 400
_NUM_SLOTS = 64
_IDLE_W = 125.0
_TICK_NS = 100_000_000
_LEAD_NS = 2_000_000_000
_GENERATION = 160
"""Steps that a request lives in the synthetic capture; slots differ by up to 31 more."""


def synthetic_capture(num_kernels: int, seed: int = 0) -> Capture:
    """A capture of ``num_kernels`` kernels, rounded to whole steps of `KERNELS_PER_STEP` (at least one).

    64 requests decode at a time on one GPU, prefills mixed in; two markers a step; most kernels on stream 7, some
    beside it on stream 21, a copy on stream 13; counter ticks every 100 ms and power samples every 20 ms of the
    energy that the kernels' classes draw.
    """
    rng = np.random.default_rng(seed)
    num_steps = max(1, round(num_kernels / KERNELS_PER_STEP))
    template = _template()
    kernels, begin, end = _kernels(rng, num_steps, template)
    steps = _steps(num_steps, begin, end)
    rides = _rides(num_steps)
    requests, chunks = _requests(rides, begin, end)
    stop = int(end[-1]) + 1_000_000
    energy, power = _energy(kernels, template.watts, stop)
    return Capture(
        manifest(
            T0,
            stop + 3 * _TICK_NS,
            measure_start_ns=T0 + _LEAD_NS - 500_000,  # the first requests are sent 400 us before their step
            measure_end_ns=stop,
            devices=(device(idle_power_w=_IDLE_W, idle_window_s=2.0),),
            engine=EngineInfo("synthetic", "1", "shape:llama-3.1-8b", {"quantization": None}, {"quantization": None}),
        ),
        kernel_classes=_classes(template.names),
        kernels=kernels,
        steps=steps,
        step_requests=rides,
        requests=requests,
        output_tokens=chunks,
        energy=energy,
        power=power,
    )


@dataclass(frozen=True)
class _Template:
    """One step: its classes (names, watts above idle; the last is the marker's) and its kernels without markers."""

    names: list[str]
    watts: NDArray[Any]
    class_id: NDArray[Any]
    stream: NDArray[Any]
    mean_ns: NDArray[Any]


def _template() -> _Template:
    kinds = [*_LAYER, *_HEAD, _COPY]
    layers = [number for _ in range(_NUM_LAYERS) for number in range(len(_LAYER))]
    filler = [len(_LAYER) - 1] * (KERNELS_PER_STEP - 2 - len(layers) - len(_HEAD) - 1)
    class_id = np.array([*layers, *filler, len(_LAYER), len(_LAYER) + 1, len(_LAYER) + 2], "i4")
    stream = np.full(len(class_id), 7, "u4")
    stream[3 : len(layers) : len(_LAYER)] = 21
    stream[-1] = 13
    mean = np.array([kind[1] for kind in kinds], float)[class_id]
    return _Template([kind[0] for kind in kinds], np.array([kind[2] for kind in kinds] + [0.0]), class_id, stream, mean)


def _kernels(
    rng: np.random.Generator, num_steps: int, template: _Template
) -> tuple[KernelTable, NDArray[Any], NDArray[Any]]:
    """The kernels, and the begin and end of each step on the device. Stamps are multiples of 32 ns, as a GPU's are."""
    per_step = len(template.class_id) + 2
    marker = len(template.names)
    duration = np.empty((num_steps, per_step), "i8")
    jitter = rng.lognormal(0.0, 0.08, (num_steps, per_step - 2))
    duration[:, 1:-1] = (template.mean_ns * jitter).astype("i8") // 32 * 32
    duration[:, (0, -1)] = 1_024
    gap = rng.integers(10, 30, (num_steps, per_step)) * 32
    gap[:, 0] += rng.integers(2_000, 9_000, num_steps) * 32
    streams = np.concatenate([[7], template.stream, [7]]).astype("u4")
    is_side = streams != 7
    advance = np.where(is_side, 0, duration) + gap  # a kernel beside the engine's stream does not hold it up
    start = T0 + _LEAD_NS + np.cumsum(advance).reshape(advance.shape) - np.where(is_side, 0, duration)
    sequence = np.arange(2 * num_steps) % 1024
    classes = np.empty((num_steps, per_step), "i4")
    classes[:, 1:-1] = template.class_id
    classes[:, (0, -1)] = marker + sequence.reshape(num_steps, 2)
    node = np.broadcast_to(np.arange(per_step, dtype="u8") + 1_000_000, start.shape)
    order = np.argsort(start.ravel(), kind="stable")
    table = {
        "start_ns": start,
        "end_ns": start + duration,
        "class_id": classes,
        "stream": np.broadcast_to(streams, start.shape),
        "graph": np.full(start.shape, 3),
        "graph_node": node,
        "correlation": np.broadcast_to(1 + np.arange(num_steps)[:, None] * 3, start.shape),
        "copied_bytes": np.where(classes == marker - 1, 256, 0),
    }
    columns = {name: values.ravel()[order] for name, values in table.items()}
    rows = len(order)
    columns |= {"device": np.zeros(rows), "process": np.zeros(rows), "range_id": np.full(rows, -1)}
    return KernelTable.from_columns(**columns), start[:, 0], start[:, -1] + 1_024


def _classes(names: list[str]) -> KernelClassTable:
    """The template's classes, then 1024 classes of markers."""
    builder = CaptureBuilder()
    for name in names:
        kind = ActivityKind.MEMCPY if name.startswith("Memcpy") else ActivityKind.KERNEL
        builder.kernel(0, 0, name, kind=kind)
    for sequence in range(1024):
        builder.marker(0, sequence)
    return builder.build().kernel_classes


def _steps(num_steps: int, begin: NDArray[Any], end: NDArray[Any]) -> StepTable:
    """Host calls run one step ahead of the device."""
    host = begin - 150_000
    zeros, number = np.zeros(num_steps), np.arange(num_steps)
    return StepTable.from_columns(
        step=number,
        start_ns=host,
        end_ns=host + 100_000,
        process=zeros,
        device=zeros,
        stream=zeros + 7,
        num_markers=zeros + 2,
        num_padded=zeros - 1,
    )


def _rides(num_steps: int) -> StepRequestTable:
    step, slot = (grid.ravel() for grid in np.meshgrid(np.arange(num_steps), np.arange(_NUM_SLOTS), indexing="ij"))
    life = _GENERATION + slot % 32
    age = step + slot * 7
    position = age % life
    request = slot + _NUM_SLOTS * (age // life)
    is_first = position == 0
    zeros = np.zeros(len(step))
    return StepRequestTable.from_columns(
        step=step,
        process=zeros,
        request=np.unique(request, return_inverse=True)[1],
        phase=np.where(is_first, Phase.PREFILL, Phase.DECODE),
        num_scheduled=np.where(is_first, 512, 1),
        num_cached=zeros,
        num_draft=zeros,
        num_sampled=zeros + 1,
        context_len=np.where(is_first, 0, 511 + position),
    )


def _requests(rides: StepRequestTable, begin: NDArray[Any], end: NDArray[Any]) -> tuple[RequestTable, OutputTokenTable]:
    request, first_row = np.unique(rides.request, return_index=True)
    count = np.bincount(rides.request)
    last_step = np.zeros(len(request), "i8")
    np.maximum.at(last_step, rides.request, rides.step)
    first_step = rides.step[first_row]
    requests = RequestTable.from_columns(
        request=request,
        name=[f"request-{number}" for number in request],
        send_ns=begin[first_step] - 400_000,
        first_token_ns=end[first_step] + 50_000,
        last_token_ns=end[last_step] + 50_000,
        num_prompt_tokens=np.full(len(request), 512),
        num_output_tokens=count,
        is_finished=last_step < len(begin) - 1,
        error=np.full(len(request), "", object),
    )
    order = np.argsort(rides.request, kind="stable")
    chunks = OutputTokenTable.from_columns(
        request=rides.request[order], time_ns=end[rides.step[order]] + 50_000, num_tokens=np.ones(len(order))
    )
    return requests, chunks


def _energy(kernels: KernelTable, watts: NDArray[Any], stop: int) -> tuple[EnergyTable, PowerTable]:
    """Ticks of the energy that each class draws above idle while it runs (beside others too), and power samples."""
    kind = np.minimum(kernels.class_id, len(watts) - 1)
    drawn_uj = np.cumsum((kernels.end_ns - kernels.start_ns) * watts[kind] / 1e3)

    def energy_uj(time: NDArray[Any]) -> NDArray[Any]:
        active = np.interp(time - T0, kernels.start_ns - T0, drawn_uj - drawn_uj[0], left=0.0)
        total: NDArray[Any] = (time - T0) * _IDLE_W / 1e3 + active
        return total

    tick = np.arange(T0 + 37_000_000, stop + 3 * _TICK_NS, _TICK_NS)
    sample = np.arange(T0 + 11_000_000, stop + 3 * _TICK_NS, _TICK_NS // 5)
    zeros = np.zeros(len(tick))
    energy = EnergyTable.from_columns(
        device=zeros, source=zeros, low_ns=tick - 1_000_000, high_ns=tick + 1_000_000, energy_uj=energy_uj(tick).round()
    )
    power_mw = np.diff(energy_uj(sample)) / (_TICK_NS // 5) * 1e6
    power = PowerTable.from_columns(
        device=np.zeros(len(power_mw)),
        source=np.full(len(power_mw), EnergySource.NVML_POWER_SAMPLES),
        time_ns=sample[1:],
        power_mw=power_mw,
    )
    return energy, power
