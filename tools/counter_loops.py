"""Loops of one kernel each, for comparing counters: imported by ``bench_counters.py``, and run under Nsight Compute.

    ncu --profile-from-start off … python tools/counter_loops.py --only 0,4 --launches 12

Every loop goes through data of at least four times L2, so that what it reads comes from DRAM. The profiler is on during
``--launches`` launches of each loop, after as many without as its data take.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from qmeter_native.calibration.load_kernel import Launch, LoadKernel, num_sets, random_half, rotating
from qmeter_native.calibration.load_kernels import all_loads
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.power_model import PowerFeature

__all__ = ["WARMUP", "loops"]

WARMUP = 60
"""Launches before any is looked at: the most sets of data that a loop goes through, and a few more."""
_LOADS = (
    "fp16_gemm_m16",
    "fp16_gemm_m128",
    "fp8_gemm_m16",
    "int8_gemm_m32",
    "w4a16_gemm_m16",
    "attention_prefill",
    "attention_decode",
    "rms_norm",
    "silu_and_mul",
    "quantize_fp8",
)
_MIB = 1 << 20
_DATA = "normal 16-bit numbers, or what was made of them: here bytes count, not bits"


def loops() -> list[LoadKernel]:
    """Every loop; of calibration's loads that have one name, all: the first that runs as one kernel stands for it."""
    elementwise = [_loop(f"negate_{mib}mib", 2 * mib, partial(_negate, mib)) for mib in (8, 16, 32, 128, 512)]
    return [
        *elementwise,
        _loop("add_64mib", 3 * 64, partial(_add, 64)),
        _loop("fill_32mib", 32, partial(_fill, 32)),
        _loop("softmax_64mib", 2 * 64, partial(_softmax, 64)),
        *(_gemm(m, n, k) for m, n, k in ((16, 4096, 4096), (32, 6144, 4096), (16, 14336, 4096))),
        *(load for load in all_loads() if load.name in _LOADS),
    ]


def _loop(name: str, mib: float, build: Callable[[int], Launch]) -> LoadKernel:
    work = {PowerFeature.DRAM_BYTES: float(mib * _MIB)}
    return LoadKernel(name, OpFamily.MEMORY, f"{mib:g} MiB moved", work, build, _DATA)


def _negate(mib: int, device: int) -> Launch:
    """Reads a buffer and writes another."""
    import torch

    buffers = [random_half(device, mib * _MIB // 2) for _ in range(num_sets(device, mib * _MIB) + 1)]
    pairs = zip(buffers, buffers[1:] + buffers[:1], strict=True)
    return rotating([partial(torch.neg, source, out=target) for source, target in pairs])


def _add(mib: int, device: int) -> Launch:
    import torch

    sets = [[random_half(device, mib * _MIB // 2) for _ in range(3)] for _ in range(num_sets(device, 3 * mib * _MIB))]
    return rotating([partial(torch.add, one, other, out=out) for one, other, out in sets])


def _fill(mib: int, device: int) -> Launch:
    buffers = [random_half(device, mib * _MIB // 2) for _ in range(num_sets(device, mib * _MIB))]
    return rotating([partial(buffer.fill_, 0.37) for buffer in buffers])


def _softmax(mib: int, device: int) -> Launch:
    import torch

    rows, columns = mib * _MIB // 2 // 4096, 4096
    sets = [
        (random_half(device, rows, columns), random_half(device, rows, columns))
        for _ in range(num_sets(device, 2 * mib * _MIB))
    ]
    return rotating([partial(torch.softmax, source, -1, out=target) for source, target in sets])


def _gemm(m: int, n: int, k: int) -> LoadKernel:
    moved = 2.0 * (m * k + n * k + m * n)

    def build(device: int) -> Launch:
        import torch

        x, out = random_half(device, m, k), random_half(device, m, n)
        weights = [random_half(device, n, k, scale=k**-0.5) for _ in range(num_sets(device, 2 * n * k))]
        return rotating([partial(torch.mm, x, weight.t(), out=out) for weight in weights])

    work = {PowerFeature.DRAM_BYTES: moved}
    return LoadKernel(f"gemm_{m}x{n}x{k}", OpFamily.GEMM, f"M={m} N={n} K={k}", work, build, _DATA)


def _run(loop: LoadKernel, device: int, launches: int) -> None:
    import torch

    launch: Any = loop.build(device)
    for _ in range(WARMUP):
        launch()
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    for _ in range(launches):
        launch()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()
    del launch
    torch.cuda.empty_cache()


def main(words: Sequence[str] | None = None) -> None:
    """Run the loops that are asked for, in their order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", required=True, help="positions in the list of loops, comma separated")
    parser.add_argument("--launches", type=int, default=12)
    arguments = parser.parse_args(words)
    every = loops()
    for position in map(int, arguments.only.split(",")):
        print(every[position].name, flush=True)
        _run(every[position], 0, arguments.launches)


if __name__ == "__main__":
    main()
