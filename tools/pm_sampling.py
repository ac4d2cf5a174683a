"""PM sampling inside a session, for the programs that measure what it costs and how true it is."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qmeter_native.capture.cupti_paths import cupti_search_dirs
from qmeter_native.capture.native import load_native, native_faults
from qmeter_native.devices.gpu_database import chip_info
from qmeter_native.devices.metric_sets import metric_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qmeter_native.capture.session import Session

__all__ = ["edge_load", "fresh", "open_sampler", "paced_load", "sampling"]

_LOADS = ("fp16_gemm_m128", "rms_norm", "copy")
_BURST_S = 0.0015
"""Of each load in a slot: three make a duty of 45 %, below any power limit."""
_SLOT_S = 0.010
_EDGE_KERNELS = 200
"""Of `edge_load`'s graphs: 13 ms a replay."""
_EDGE_KERNEL_S = (10e-6, 40e-6)
_EDGE_GAP_S = (10e-6, 60e-6)


def fresh(path: Path) -> Path:
    """The path of a capture, with what an earlier run left there removed."""
    shutil.rmtree(path, ignore_errors=True)
    return path


def open_sampler(
    session: Session, *, interval_ns: int, metrics: str = "energy", count: int | None = None, is_kept: bool = False
) -> Any:
    """A PM sampler of the session's first GPU, enabled and not started.

    Args:
        session: Whose GPU, and whose spool.
        interval_ns: Between samples.
        metrics: A metric set.
        count: Only so many of its metrics.
        is_kept: Write the samples into the session's spool.
    """
    device = session.state.devices[0]
    chip = chip_info(device.name)
    if chip is None:
        raise SystemExit(f"{device.name} is not in the table of GPUs")
    wanted = metric_set(chip.chip, metrics)[:count]
    with native_faults():
        return load_native().PmSampler(
            session.spool if is_kept else None,
            device=device.index,
            uuid=device.uuid,
            metrics=[(int(metric.quantity), metric.metric, metric.factor(chip.num_sms)) for metric in wanted],
            interval_ns=interval_ns,
            cupti_path=session.options.cupti_path,
            search_dirs=cupti_search_dirs(),
        )


@contextmanager
def sampling(session: Session, **options: Any) -> Iterator[Any]:
    """A sampler that is started, and closed at the end; options are `open_sampler`'s."""
    sampler = open_sampler(session, **options)
    try:
        sampler.start()
        yield sampler
        sampler.stop()
    finally:
        sampler.close()


def paced_load(device: int = 0) -> Any:
    """Steady work below the power limit: `LoadSlots` of a matrix product, a norm and a copy at a duty of 45 %."""
    from qmeter_native.calibration.load_kernels import all_loads
    from qmeter_native.calibration.load_slots import LoadSlots

    kernels = {kernel.name: kernel for kernel in reversed(all_loads()) if kernel.name in _LOADS}
    launches = {name: kernels[name].build(device) for name in _LOADS}
    counts = {name: max(1, round(_BURST_S / _launch_s(launch))) for name, launch in launches.items()}
    return LoadSlots(launches, counts, _SLOT_S, seed=0)


def edge_load(device: int = 0) -> Any:
    """Many sharp edges of SM activity: `LoadSlots` of short kernels of multiply-adds on all SMs, and gaps between them.

    A gap is a kernel of one thread that sleeps. Lengths of both are random, so that edges fall anywhere in samples. The
    slots' order is random too, so two kernels or two gaps may follow each other.
    """
    import random

    import torch

    from qmeter_native.calibration.load_slots import LoadSlots
    from qmeter_native.calibration.triton_kernels import fp32_fma

    chance = random.Random(0)
    num_programs = torch.cuda.get_device_properties(device).multi_processor_count
    values = torch.rand(num_programs * 2048, dtype=torch.float32, device=f"cuda:{device}")
    step_s = _launch_s(lambda: fp32_fma(values, num_programs, 8192)) / 8192
    cycle_s = _launch_s(lambda: torch.cuda._sleep(1_000_000)) / 1_000_000
    launches: dict[str, Any] = {}
    for number in range(_EDGE_KERNELS):
        steps, cycles = chance.uniform(*_EDGE_KERNEL_S) / step_s, chance.uniform(*_EDGE_GAP_S) / cycle_s
        launches[f"kernel {number}"] = partial(fp32_fma, values, num_programs, round(steps))
        launches[f"gap {number}"] = partial(torch.cuda._sleep, round(cycles))
    for launch in launches.values():
        launch()
    return LoadSlots(launches, dict.fromkeys(launches, 1), 0.0, seed=0)


def _launch_s(launch: Any, repeats: int = 20) -> float:
    """Mean seconds of a launch that follows itself."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for timed in (False, True):
        if timed:
            begin.record()
        for _ in range(repeats):
            launch()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3 / repeats
