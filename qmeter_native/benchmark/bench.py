"""``kernels bench`` as a whole: from options and a GPU to a document, kept also when it is stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from threading import Event
from typing import Final

from qmeter_native.benchmark.contender import Contender
from qmeter_native.benchmark.energy import PacedMeter
from qmeter_native.benchmark.gpu import energy_counter, l2_bytes, software_versions
from qmeter_native.benchmark.graph_timer import GraphTimer
from qmeter_native.benchmark.metrics import benchmark_metrics
from qmeter_native.benchmark.ours import OURS, our_contenders
from qmeter_native.benchmark.peers import find_peers
from qmeter_native.benchmark.plan import BenchmarkPlan
from qmeter_native.benchmark.roof import find_roof
from qmeter_native.benchmark.run import Bench, Show, measure_rows, unable_contenders
from qmeter_native.benchmark.tuning import tune
from qmeter_native.calibration.gpu import Gpu
from qmeter_native.calibration.microbenchmark import SmClock
from qmeter_native.devices import find_profile
from qmeter_native.errors import UsageError
from qmeter_native.kernels.autotune import TunedRow, TuningTable
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.kernel_benchmark import (
    AbsentKernel,
    BenchmarkRow,
    Device,
    KernelBenchmark,
    Protocol,
)

__all__ = [
    "Chosen",
    "Keep",
    "choose_contenders",
    "document_of",
    "run_bench",
    "run_tuning",
]

_BURST_S: Final = 0.01
_REST_SHARE: Final = 4.0
"""A fifth of the time at load: an H200's power controller takes about 100 ms to bite, and never sees the cap."""

_TUNING_REST_SHARE: Final = 1.0
_L2_SIZES: Final = 4
_CLOCK_SPREAD: Final = 0.02
_KEEP_PERIOD_S: Final = 10.0

Keep = Callable[[KernelBenchmark], None]
"""Is given what there is from time to time, so that little is lost with the process."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Kernels to compare, and peers that are not here."""

    contenders: tuple[Contender, ...]
    absent: tuple[AbsentKernel, ...]


def choose_contenders(kernels: Sequence[str] | None, peers: Sequence[str] | None, vllm_ops: Path | None) -> Chosen:
    """Ours by name, and peers by name; None is all of them.

    Raises:
        UsageError: A name is unknown, or nothing is left.
    """
    unknown = [name for name in kernels or () if name not in OURS]
    if unknown:
        raise UsageError(f"there is no kernel {unknown[0]!r} of products", f"Choose of: {', '.join(OURS)}.")
    ours = [one for one in our_contenders() if kernels is None or one.name.removeprefix("qmeter.") in kernels]
    others, absent = find_peers(peers, vllm_ops)
    if not ours and not others:
        raise UsageError("no kernel is left to time", "Name some with --kernels or --peers.")
    return Chosen((*ours, *others), absent)


def run_bench(
    gpu: Gpu, plan: BenchmarkPlan, chosen: Chosen, command: str, stop: Event, show: Show, keep: Keep | None = None
) -> KernelBenchmark:
    """Measure a plan on a GPU.

    Args:
        gpu: Which.
        plan: What.
        chosen: Kernels.
        command: That this run was started with.
        stop: Ends the run after the point under way.
        show: Is told where the run is.
        keep: Is given a document of what there is about every ten seconds.
    """
    plan = replace(plan, working_set_bytes=_working_set_bytes(gpu))
    major, _, minor = gpu.compute_capability.partition(".")
    read_mj = energy_counter(gpu.uuid) if plan.has_energy else None
    meter = None if read_mj is None else PacedMeter(gpu.ordinal, read_mj, plan.seed)
    timer = GraphTimer(gpu.ordinal, SmClock(gpu.uuid), _BURST_S, _REST_SHARE, plan.seed)
    roof = find_roof(find_profile(gpu.uuid), gpu.chip)
    bench = Bench(f"cuda:{gpu.ordinal}", (int(major), int(minor)), chosen.contenders, timer, roof, meter)
    device = Device(gpu.name, gpu.uuid, gpu.compute_capability)

    rows: list[BenchmarkRow] = []
    notes = ["There is no energy counter: joules are missing."] if plan.has_energy and meter is None else []

    def document() -> KernelBenchmark:
        idle_w = meter.idle_w if meter is not None else Estimate.missing("energy was not measured")
        return document_of(plan, bench, chosen, device, command, rows, idle_w, notes)

    kept_s = time.monotonic()
    try:
        for row in measure_rows(plan, bench, stop, show):
            rows.append(row)
            if keep is not None and time.monotonic() - kept_s > _KEEP_PERIOD_S:
                keep(document())
                kept_s = time.monotonic()
    except RuntimeError as error:  # torch's: out of memory, or a kernel that broke CUDA's context for all that follow
        notes.append(f"The run ended early: {str(error).splitlines()[0]}")
    return document()


def run_tuning(gpu: Gpu, plan: BenchmarkPlan, table: TuningTable, stop: Event, show: Show) -> Iterator[TunedRow]:
    """Tune a plan's products on a GPU; rests are shorter, since candidates are compared with each other only."""
    timer = GraphTimer(gpu.ordinal, SmClock(gpu.uuid), _BURST_S, _TUNING_REST_SHARE, plan.seed)
    plan = replace(plan, working_set_bytes=_working_set_bytes(gpu))
    yield from tune(plan, f"cuda:{gpu.ordinal}", timer, table, stop, show)


def _working_set_bytes(gpu: Gpu) -> int:
    """So many bytes of weights that they are gone from the second-level cache when their turn comes again."""
    return _L2_SIZES * l2_bytes(gpu.ordinal) + 1


def document_of(
    plan: BenchmarkPlan,
    bench: Bench,
    chosen: Chosen,
    device: Device,
    command: str,
    rows: Sequence[BenchmarkRow],
    idle_w: Estimate,
    notes: Sequence[str] = (),
) -> KernelBenchmark:
    """What was measured, as a document."""
    unable = [AbsentKernel(name, reason) for name, reason in unable_contenders(plan, bench).items()]
    found = KernelBenchmark(
        date=datetime.now(timezone.utc).date().isoformat(),
        command=command,
        device=device,
        software=software_versions(),
        roof=bench.roof,
        protocol=Protocol(plan.num_repeats, _BURST_S, _REST_SHARE, plan.working_set_bytes, plan.seed),
        idle_w=idle_w,
        rows=tuple(rows),
        absent=(*chosen.absent, *unable),
        num_points=plan.num_points,
        metrics=benchmark_metrics(rows),
        notes=(*notes, *_roof_notes(bench), *_clock_notes(rows)),
    )
    if found.num_measured == plan.num_points:
        return found
    stopped = f"Only {found.num_measured} of {plan.num_points} points were measured: it was stopped or out of time."
    return replace(found, notes=(stopped, *found.notes))


def _roof_notes(bench: Bench) -> list[str]:
    if bench.roof.source == "datasheet":
        return ["The roof is the datasheet's, which no kernel reaches: `qmeter-native calibrate` measures this GPU's."]
    return [] if bench.roof.source == "measured" else ["The roof of this GPU is not known; calibrate it."]


def _clock_notes(rows: Sequence[BenchmarkRow]) -> list[str]:
    clocks = [row.clock_mhz for row in rows if row.clock_mhz is not None]
    if not clocks:
        return ["The SM clock could not be read."] if rows else []
    low, high = min(clocks), max(clocks)
    if low >= high * (1 - _CLOCK_SPREAD):
        return []
    slow = next(row for row in rows if row.clock_mhz == low)
    return [
        f"The SM clock was {low:.0f} to {high:.0f} MHz, lowest for {slow.kernel} at {slow.format} "
        f"M={slow.m} N={slow.n} K={slow.k}: a limit was felt there."
    ]
