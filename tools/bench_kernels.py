"""Kernels beside their peers on one GPU: ``kernels-h200.json`` and its picture.

    python tools/bench_kernels.py --folder /tmp/kernels --part w4a16-8b --vllm-ops _C_stable_libtorch.abi3.so
    python tools/bench_kernels.py --folder /tmp/kernels --analyse --out docs/results/kernels-h200.json

Each part fits into ten minutes of an H200 and leaves a document of ``qmeter-native kernels bench`` in the folder, kept
also when it is cut short; ``--analyse`` puts all of them together, without a GPU.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Event

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmeter_native.benchmark.document import joined, load_benchmark, save_benchmark  # noqa: E402
from qmeter_native.benchmark.picture import benchmark_picture  # noqa: E402
from qmeter_native.benchmark.plan import BenchmarkPlan  # noqa: E402
from qmeter_native.benchmark.shapes import DEFAULT_M, find_shapes  # noqa: E402
from qmeter_native.kernels.catalog import FORMATS, format_named  # noqa: E402
from qmeter_native.model.kernel_benchmark import KernelBenchmark, benchmark_to_dict  # noqa: E402
from tools.results import Metric, write_result  # noqa: E402

W4A16 = "W4A16-INT g128"
SOME_M = (1, 8, 16, 64, 256, 1024, 4096)
INT8 = ("W8A8-INT", "W8A8-INT asymmetric")
FP8 = ("W8A8-FP", "W8A8-FP tensor", "W8A8-FP b128")
OTHERS = tuple(form.label for form in FORMATS if form.label not in (W4A16, *INT8, *FP8))
NOTES = (
    "us is the median of a call's time over bursts in turn with the peers', us_low to us_high its 95 % interval; j the "
    "joules of a call with the idle power of its time; roof_fraction the least time that measured read bandwidth and "
    "peak rate allow over us.",
    "Metrics are ratios ours over peer, above 1 where ours is faster, the smallest over the stated M and all shapes; "
    "low and high are the interval of that one point, n the number of bursts of each kernel there.",
    "w4a16_vs_* take weight_only_linear, which dequantizes first where its table says so; w4a16_fused_* the fused "
    "kernel alone. w4a16_roof_16384_m1 is a fraction of the roof, no ratio.",
    "Activations of W8A8 and W4A8 are quantized before the timed part, for every kernel; torch._int_mm gives int32 "
    "sums without scales.",
)


@dataclass(frozen=True, slots=True)
class Part:
    """What one call measures."""

    formats: tuple[str, ...]
    shapes: str
    tokens: tuple[int, ...] = SOME_M
    dtype: str = "float16"
    has_energy: bool = False


PARTS = {
    "w4a16-8b": Part((W4A16,), "llama-8b", DEFAULT_M),
    "w4a16-70b": Part((W4A16,), "llama-70b", DEFAULT_M),
    "w4a16-square": Part((W4A16,), "square", DEFAULT_M),
    "w4a16-bf16": Part((W4A16,), "square", SOME_M, "bfloat16"),
    "int8": Part(INT8, "llama-8b,square"),
    "fp8": Part(FP8, "llama-8b,square", dtype="bfloat16"),
    "others": Part(OTHERS, "28672x4096,8192x8192"),
    "energy": Part((W4A16, "W8A8-INT"), "8192x8192", (1, 16, 1024), has_energy=True),
}


def measure(part: Part, budget_s: float, vllm_ops: Path | None, path: Path) -> None:
    """Time a part and write its document."""
    from qmeter_native.benchmark.bench import choose_contenders, run_bench
    from qmeter_native.benchmark.gpu import find_gpu

    plan = BenchmarkPlan(
        formats=tuple(format_named(label) for label in part.formats),
        shapes=find_shapes(part.shapes),
        tokens=part.tokens,
        dtype=part.dtype,
        has_energy=part.has_energy,
        budget_s=budget_s,
    )
    gpu, chosen = find_gpu("cuda:0"), choose_contenders(None, None, vllm_ops)
    started_s = time.monotonic()

    def show(what: str, done: int, total: int) -> None:
        print(f"{time.monotonic() - started_s:6.1f} s  {done + 1}/{total}  {what}", file=sys.stderr, flush=True)

    command = shlex.join(["python", "tools/bench_kernels.py", *sys.argv[1:]])
    found = run_bench(gpu, plan, chosen, command, Event(), show, lambda kept: save_benchmark(kept, path))
    save_benchmark(found, path)


def analyse(folder: Path, out: Path) -> None:
    """Put the folder's documents together as a result file, and draw them."""
    found = joined([load_benchmark(path) for path in sorted(folder.glob("*.json"))])
    rows = benchmark_to_dict(found)["rows"]
    missing = [f"{name}: {one.reason}." for name, one in found.metrics.items() if one.value is None]
    absent = [f"{entry.kernel} was not compared with: {entry.reason}." for entry in found.absent]
    write_result(
        out,
        "Quantized kernels and their peers",
        _metrics(found),
        device=found.device.name,
        command=f"python tools/bench_kernels.py --folder FOLDER --part {'|'.join(PARTS)}; --analyse",
        rows=rows,
        notes=[*NOTES, _software(found), *found.notes, *absent, *missing],
    )
    out.with_suffix(".svg").write_text(benchmark_picture(found), encoding="utf-8")


def _metrics(found: KernelBenchmark) -> dict[str, Metric]:
    return {
        name: Metric(one.value, "1", one.low, one.high, found.protocol.num_repeats)
        for name, one in found.metrics.items()
        if one.value is not None
    }


def _software(found: KernelBenchmark) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found.software.items())
    return f"Measured with {versions}; roof {found.roof.source}."


def main() -> None:
    """Measure a part, or put parts together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="of the parts' documents")
    parser.add_argument("--part", choices=PARTS, action="append", default=[], help="measure it; may be repeated")
    parser.add_argument("--budget", type=float, default=520.0, help="seconds of a part")
    parser.add_argument("--vllm-ops", type=Path, help="vLLM's library of operators")
    parser.add_argument("--analyse", action="store_true", help="put the folder's documents together")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "kernels-h200.json")
    arguments = parser.parse_args()
    for name in arguments.part:
        measure(PARTS[name], arguments.budget, arguments.vllm_ops, arguments.folder / f"{name}.json")
    if arguments.analyse:
        analyse(arguments.folder, arguments.out)


if __name__ == "__main__":
    main()
