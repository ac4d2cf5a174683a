"""Traces an 8B-shaped model on a CUDA GPU and writes ``trace-h200.json`` and the capture behind it.

    python tools/bench_trace.py --out docs/results --repeats 3

Each repeat is one run of the command line in a process of its own; figures are the median of the repeats, with their
extremes as interval. Before each, the same workload is run with kernels and energy switched off: the difference is what
the meter costs. The capture of the last repeat is kept as ``OUT/h200-llama-3.1-8b.qmt.tar``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import qmeter_native  # noqa: E402
from qmeter_native.model.report import AttributionReport  # noqa: E402
from tools.results import Metric, write_result  # noqa: E402

MODEL = "shape:llama-3.1-8b"


def trace(path: Path, arguments: argparse.Namespace, *switches: str) -> AttributionReport:
    """One run of ``qmeter-native trace``. As many warm-up requests as requests: their CUDA graphs are captured then."""
    shutil.rmtree(path, ignore_errors=True)
    command = [sys.executable, "-m", "qmeter_native", "trace", "--model", MODEL, "--device", "cuda"]
    command += ["--requests", str(arguments.requests), "--concurrency", str(arguments.requests)]
    command += ["--input-len", str(arguments.input_len), "--output-len", str(arguments.output_len)]
    command += ["--idle", str(arguments.idle), "--warmup", str(arguments.requests), "--output", str(path)]
    subprocess.run([*command, *switches], check=True)
    return qmeter_native.report(path)


def figures(report: AttributionReport, bare: AttributionReport) -> dict[str, tuple[float, str]]:
    """The figures of one run by key, each with its unit; ``bare`` is the run beside it that measured nothing."""
    (time,) = report.balance.time
    (energy,) = report.balance.energy
    totals = report.totals
    return {
        "num_requests": (totals.num_finished, "1"),
        "num_kernels": (totals.num_kernels, "1"),
        "time_residual_ns": (time.residual_ns, "ns"),
        "energy_residual_j": (_known(energy.residual_j, energy.reason), "J"),
        "raw_residual_fraction": (_known(energy.raw_residual_fraction, energy.reason), "1"),
        "unassigned_time_share": (time.unassigned_share, "1"),
        "j_per_output_token": (_known(totals.j_per_output_token.value, totals.j_per_output_token.reason), "J"),
        "output_throughput": (totals.output_throughput, "token/s"),
        "mean_tpot_s": (_tpot(report), "s"),
        "average_power_w": (_known(totals.average_power_w.value, totals.average_power_w.reason), "W"),
        "overlapped_share": (time.overlapped_ns / time.busy_ns, "1"),
        "num_lost": (report.loss.total, "1"),
        "bare_tpot_s": (_tpot(bare), "s"),
        "tpot_overhead": (_tpot(report) / _tpot(bare) - 1, "1"),
    }


def _tpot(report: AttributionReport) -> float:
    return _known(report.totals.tpot_s.mean, "no output")


def _known(value: float | None, reason: str | None) -> float:
    if value is None:
        raise SystemExit(f"not measured: {reason}")
    return value


def merged(runs: list[dict[str, tuple[float, str]]]) -> dict[str, Metric]:
    """Median and extremes of each figure over the runs."""
    result = {}
    for key, (_, unit) in runs[0].items():
        values = [run[key][0] for run in runs]
        result[key] = Metric(statistics.median(values), unit, min(values), max(values), len(values))
    return result


def measure(arguments: argparse.Namespace) -> tuple[list[dict[str, tuple[float, str]]], AttributionReport]:
    """The figures of every repeat, and the last report; leaves the last capture in the output folder."""
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "h200-llama-3.1-8b.qmt"
        for repeat in range(arguments.repeats):
            bare = trace(path, arguments, "--no-kernels", "--no-energy")
            report = trace(path, arguments)
            print(f"repeat {repeat + 1} of {arguments.repeats}: {report.totals.num_kernels} kernels", file=sys.stderr)
            runs.append(figures(report, bare))
        with tarfile.open(arguments.out / f"{path.name}.tar", "w") as archive:
            archive.add(path, path.name)
    return runs, report


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=128)
    parser.add_argument("--idle", type=float, default=3.0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs, report = measure(arguments)
    write_result(
        arguments.out / "trace-h200.json",
        "trace-h200",
        merged(runs),
        device=report.devices[0].name,
        command=f"python tools/bench_trace.py --repeats {arguments.repeats} --requests {arguments.requests}"
        f" --input-len {arguments.input_len} --output-len {arguments.output_len} --idle {arguments.idle:g}",
        packages=("torch", "transformers", "nvidia-cuda-cupti"),
    )


if __name__ == "__main__":
    main()
