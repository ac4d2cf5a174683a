"""How well a served model's energy is explained and foretold: ``serving-energy-h200.json``.

    python tools/bench_serving_energy.py --captures /tmp/serving --out docs/results/serving-energy-h200.json

One vLLM server with Machete serves batches of 8, 32 and 128, another with Marlin for the same checkpoint serves 32;
each batch has a counter phase. Fitted at batch 32, the model foretells the energy per output token at 8 and 128, and
what it changes by when Marlin takes Machete's place. ``--analyse`` computes the result from the captures again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmeter_native.model.capture import Capture  # noqa: E402
from qmeter_native.storage.reader import read_capture  # noqa: E402
from tools.batch_loads import BatchLoads, batch_range  # noqa: E402
from tools.pm_sampling import fresh  # noqa: E402
from tools.results import Metric, write_result  # noqa: E402
from tools.serving_energy import ServedBatch, foretold, part_of, residuals, served_batch  # noqa: E402

FITTED: Final = 32
BATCHES: Final = (8, FITTED, 128)
BACKENDS: Final = {"machete": BATCHES, "marlin": (FITTED,)}
"""Captures, and the batches that each server is given."""
_PREFIX: Final = {"marlin": ("env", "VLLM_DISABLED_KERNELS=MacheteLinearKernel")}
_PORT: Final = 8000
NOTES: Final = (
    "raw_residual_p95: 95th percentile, over all windows without a counter phase, of |measured - model| / measured,"
    " each batch by the fit to its own windows, before any scaling.",
    "batch_transfer_error: the larger relative error of energy per output token at the other batches, predicted by the"
    " fit at batch 32 from counters (or shapes) of the other batch's kernels; their energy is not looked at.",
    "swap_error: |predicted - measured| change of energy per token when Marlin takes Machete's place at batch 32,"
    " over the measured change.",
)


def serve(path: Path, backend: str, arguments: argparse.Namespace) -> None:
    """Start a server, give it its batches, end it; leaves the capture ``path``."""
    from qmeter_native.capture.launch import LaunchOptions, launch
    from qmeter_native.capture.session import SessionOptions
    from qmeter_native.engines.vllm.command import serve_command, with_plugin
    from qmeter_native.model.manifest import EngineInfo
    from qmeter_native.quantization.checkpoint_cache import shape_checkpoint
    from qmeter_native.quantization.checkpoint_writer import WEIGHTS_SOURCE
    from qmeter_native.workload.workload import Workload

    folder = shape_checkpoint(arguments.model, arguments.quantization)
    plain = serve_command(str(folder), max_model_len=2048, port=_PORT, extra_args=["--max-num-seqs", str(max(BATCHES))])
    command, reason = with_plugin([*_PREFIX.get(backend, ()), *plain])
    workload = Workload(input_len=arguments.input_len, output_len=arguments.output_len)
    requested = {"quantization": arguments.quantization, "dtype": "auto", "backend": backend}
    options = LaunchOptions(
        command=tuple(command),
        session=SessionOptions(device="cuda", edge_period_s=0.2, counter_cpu_share=0.05),
        load=BatchLoads(
            f"http://localhost:{_PORT}",
            workload,
            batches=BACKENDS[backend],
            seconds=arguments.seconds,
            has_counters=arguments.counters,
        ),
        engine=EngineInfo("vllm", "", arguments.model, requested, {}, WEIGHTS_SOURCE),
        idle_s=3.0,
        log=True,
        notes=() if reason is None else (("no_plugin", reason),),
    )
    result = launch(path, options)
    if result.failure is not None:
        raise SystemExit(f"{backend}: {result.failure}")


def served(capture: Capture) -> dict[int, ServedBatch]:
    """The batches of a capture, by size."""
    sizes = [int(str(name).partition(":")[2]) for name in capture.ranges.name if str(name).startswith("batch:")]
    return {size: served_batch(part_of(capture, batch_range(size))) for size in sorted(sizes)}


def batch_row(backend: str, size: int, batch: ServedBatch) -> dict[str, Any]:
    """Raw figures of one batch."""
    missed = residuals(batch)
    return {
        "backend": backend,
        "batch": size,
        "j_per_token": batch.energy_j / max(batch.num_tokens, 1),
        "num_tokens": batch.num_tokens,
        "mode": batch.split.mode.value,
        "num_windows": len(missed),
        "raw_residuals": [round(float(one), 6) for one in missed],
        "resolved_share": batch.split.resolved_share,
    }


def transfer_metrics(batches: Mapping[int, ServedBatch], rows: list[dict[str, Any]]) -> dict[str, Metric]:
    """``batch_transfer_error``, and the error of each batch; adds rows."""
    errors = {}
    for size, batch in batches.items():
        if size == FITTED or FITTED not in batches:
            continue
        found = foretold(batches[FITTED], batch)
        errors[size] = found.error
        rows.append(
            {
                "transfer": f"{FITTED} to {size}",
                "measured_j_per_token": found.measured_j,
                "predicted_j_per_token": found.predicted_j,
                "standard_error": found.error_j,
                "share_of_known_kernels": found.known_share,
            }
        )
    metrics = {f"batch_transfer_error_b{size}": Metric(error, "1") for size, error in errors.items()}
    if errors:
        worst = max(errors.values())
        metrics["batch_transfer_error"] = Metric(worst, "1", min(errors.values()), worst, len(errors))
    return metrics


def swap_metrics(before: ServedBatch, after: ServedBatch, rows: list[dict[str, Any]]) -> dict[str, Metric]:
    """``swap_error``, with the interval that the sensor's errors leave it; adds a row."""
    found = foretold(before, after)
    before_j = before.energy_j / max(before.num_tokens, 1)
    measured_j, predicted_j = found.measured_j - before_j, found.predicted_j - before_j
    sensor_j = float(
        np.hypot(before.energy_error_j / max(before.num_tokens, 1), after.energy_error_j / max(after.num_tokens, 1))
    )
    rows.append(
        {
            "swap": "machete to marlin",
            "batch": FITTED,
            "measured_change_j_per_token": measured_j,
            "measured_standard_error": sensor_j,
            "predicted_change_j_per_token": predicted_j,
            "predicted_standard_error": found.error_j,
            "share_of_known_kernels": found.known_share,
        }
    )
    missed_j = abs(predicted_j - measured_j)
    metrics = {
        "swap_change": Metric(measured_j / before_j, "1"),
        "swap_error_of_whole": Metric(missed_j / found.measured_j, "1"),
    }
    if measured_j:
        error, slack = missed_j / abs(measured_j), 1.96 * sensor_j / abs(measured_j)
        metrics["swap_error"] = Metric(error, "1", max(error - slack, 0.0), error + slack)
    return metrics


def analyse(captures: Mapping[str, Capture]) -> tuple[dict[str, Metric], list[dict[str, Any]]]:
    """Metrics and rows of the captures, by backend."""
    runs = {backend: served(capture) for backend, capture in captures.items()}
    rows = [batch_row(backend, size, batch) for backend, run in runs.items() for size, batch in run.items()]
    missed = np.concatenate([residuals(batch) for run in runs.values() for batch in run.values()])
    metrics = {
        "raw_residual_p95": Metric(
            float(np.percentile(missed, 95)), "1", float(missed.min()), float(missed.max()), len(missed)
        ),
        "raw_residual_median": Metric.of_repeats(missed.tolist(), "1"),
    }
    metrics |= {
        f"{row['backend']}_b{row['batch']}_j_per_token": Metric(row["j_per_token"], "J", n=row["num_windows"])
        for row in rows
    }
    metrics |= transfer_metrics(runs.get("machete", {}), rows)
    if FITTED in runs.get("machete", {}) and FITTED in runs.get("marlin", {}):
        metrics |= swap_metrics(runs["machete"][FITTED], runs["marlin"][FITTED], rows)
    return metrics, rows


def main(words: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", type=Path, required=True, help="folder for captures, or with them")
    parser.add_argument("--out", type=Path, default=Path("docs/results/serving-energy-h200.json"))
    parser.add_argument("--model", default="shape:llama-3.1-8b")
    parser.add_argument("--quantization", default="gptq")
    parser.add_argument("--backends", nargs="*", choices=list(BACKENDS), default=list(BACKENDS))
    parser.add_argument("--seconds", type=float, default=20.0, help="of each batch")
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=512)
    parser.add_argument("--counters", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--analyse", action="store_true", help="measure nothing")
    arguments = parser.parse_args(words)
    arguments.captures.mkdir(parents=True, exist_ok=True)
    paths = {backend: arguments.captures / f"{backend}.qmt" for backend in arguments.backends}
    if not arguments.analyse:
        for backend, path in paths.items():
            serve(fresh(path), backend, arguments)
    captures = {backend: read_capture(path) for backend, path in paths.items() if path.exists()}
    metrics, rows = analyse(captures)
    for key, metric in metrics.items():
        print(f"{key:32} {metric.value:12.6g} {metric.unit}")
    write_result(
        arguments.out,
        arguments.out.stem,
        metrics,
        device=next(iter(captures.values())).manifest.devices[0].name,
        command="python tools/bench_serving_energy.py " + " ".join(sys.argv[1:]),
        packages=("torch", "vllm", "nvidia-cuda-cupti"),
        rows=rows,
        notes=NOTES,
    )


if __name__ == "__main__":
    main()
