"""The registry of loads, and which of them run as one kernel on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from qmeter_native.calibration.load_kernel import LoadKernel
from qmeter_native.calibration.load_kernels_gemm import gemm_loads
from qmeter_native.calibration.load_kernels_memory import attention_loads, elementwise_loads, microbenchmark_loads
from qmeter_native.model.capture import Capture
from qmeter_native.model.tables import KernelClassTable
from qmeter_native.units import ns_to_s

__all__ = ["LoadCheck", "all_loads", "check_loads", "chosen_loads", "class_key", "trace_loads"]

_NUM_LAUNCHES: Final = 4
"""Launches of a load in its check: enough to see a kernel that only every other launch needs."""
_RANGE: Final = "check:"


@dataclass(frozen=True, slots=True)
class LoadCheck:
    """What one load turned out to launch.

    Attributes:
        kernel: The load.
        class_key: `class_key` of its kernel; empty if it is left out.
        time_s: Median time of a launch alone, on a GPU that has not warmed up.
        reason: Why it is left out; None if it runs as one kernel.
    """

    kernel: LoadKernel
    class_key: str = ""
    time_s: float = 0.0
    reason: str | None = None


def all_loads() -> list[LoadKernel]:
    """Every load. Several may have one name: the first that passes its check stands for it."""
    return [*gemm_loads(), *attention_loads(), *elementwise_loads(), *microbenchmark_loads()]


def class_key(classes: KernelClassTable, row: int) -> str:
    """A kernel class's name and launch configuration, the same in every capture."""
    grid = (classes.grid_x[row], classes.grid_y[row], classes.grid_z[row])
    block = (classes.block_x[row], classes.block_y[row], classes.block_z[row])
    sizes = ["x".join(str(int(size)) for size in sizes) for sizes in (grid, block)]
    shared = int(classes.static_shared_bytes[row]) + int(classes.dynamic_shared_bytes[row])
    return f"{classes.name[row]} <{sizes[0]}, {sizes[1]}, {shared}>"


def trace_loads(
    kernels: Sequence[LoadKernel], device: int, session: Any, progress: Callable[[str], None]
) -> dict[int, str]:
    """Launch each load a few times, alone, in a range that `check_loads` finds; its data are dropped afterwards.

    Args:
        kernels: Which.
        device: CUDA ordinal.
        session: A `qmeter_native.capture.session.Session` that traces kernels.
        progress: Is told each name.

    Returns: by position in ``kernels``, why it could not be built or launched.
    """
    failures = {}
    for position, kernel in enumerate(kernels):
        progress(f"{kernel.name} ({kernel.shape})")
        try:
            _trace_load(kernel, device, session, f"{_RANGE}{position}")
        except Exception as error:  # whatever torch, triton or the driver do not like: left out, with its reason
            failures[position] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return failures


def _trace_load(kernel: LoadKernel, device: int, session: Any, name: str) -> None:
    import torch

    with torch.cuda.device(device):
        launch = kernel.build(device)
        launch()  # compiles, and sets up what later launches share
        torch.cuda.synchronize()
        with session.range(name):
            for _ in range(_NUM_LAUNCHES):
                launch()
            torch.cuda.synchronize()
        del launch
        torch.cuda.empty_cache()


def check_loads(capture: Capture, kernels: Sequence[LoadKernel], failures: Mapping[int, str]) -> list[LoadCheck]:
    """What each load launched, from the capture that `trace_loads` ran in."""
    ranges = {str(name): row for row, name in enumerate(capture.ranges.name)}
    checks = []
    for position, kernel in enumerate(kernels):
        row = ranges.get(f"{_RANGE}{position}")
        if position in failures or row is None:
            checks.append(LoadCheck(kernel, reason=failures.get(position, "nothing was traced")))
        else:
            checks.append(_check(capture, kernel, row))
    return checks


def _check(capture: Capture, kernel: LoadKernel, row: int) -> LoadCheck:
    kernels, start_ns, end_ns = capture.kernels, capture.ranges.start_ns[row], capture.ranges.end_ns[row]
    inside = np.flatnonzero((kernels.start_ns >= start_ns) & (kernels.end_ns <= end_ns))
    keys = [class_key(capture.kernel_classes, int(class_id)) for class_id in kernels.class_id[inside]]
    if len(inside) != _NUM_LAUNCHES or len(set(keys)) != 1:
        return LoadCheck(
            kernel, reason=f"{_NUM_LAUNCHES} launches ran {len(inside)} kernels: {'; '.join(sorted(set(keys)))}"
        )
    times = kernels.end_ns[inside] - kernels.start_ns[inside]
    return LoadCheck(kernel, keys[0], ns_to_s(float(np.median(times))))


def chosen_loads(checks: Sequence[LoadCheck]) -> tuple[list[LoadCheck], dict[str, str]]:
    """The first load of each name that runs as one kernel of a class of its own, and why names have none."""
    chosen: dict[str, LoadCheck] = {}
    reasons: dict[str, str] = {}
    for check in checks:
        name = check.kernel.name
        twin = next((other for other in chosen.values() if other.class_key == check.class_key), None)
        if name in chosen:
            continue
        if check.reason is not None:
            reasons[name] = check.reason
        elif twin is not None:
            reasons[name] = f"it runs the same kernel with the same grid as {twin.kernel.name}"
        else:
            chosen[name] = check
    return list(chosen.values()), {name: reason for name, reason in reasons.items() if name not in chosen}
