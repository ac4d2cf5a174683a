"""``qmeter-native trace``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from qmeter_native.errors import CaptureError, EngineError

if TYPE_CHECKING:
    from qmeter_native.capture.serving import ServingOptions, ServingResult

__all__ = ["trace"]

_INTERRUPTED: Final = 130
_MAX_CONCURRENCY: Final = 256
"""Requests served at once unless the user says otherwise."""

_EPILOG: Final = """\b
Examples:
  qmeter-native trace --model builtin:stdlib-lm
  qmeter-native trace --model shape:llama-3.1-8b --device cuda --requests 64 --output llama.qmt
  qmeter-native trace --model ./my-checkpoint --requests 100 --rate 5 --input-len 512 --output-len 128
  qmeter-native trace --model shape:qwen3-0.6b --json > qwen.json

\b
Ctrl-C ends the run and keeps what it has; a second Ctrl-C ends the program.
Next: qmeter-native report NAME.qmt
"""


@click.command(epilog=_EPILOG)
@click.option("--model", required=True, help="Local directory, hub id, shape:NAME or builtin:stdlib-lm.")
@click.option("--output", type=click.Path(path_type=Path), help="Capture to create.  [default: MODEL-TIME.qmt]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16.")
@click.option("--requests", type=click.IntRange(min=1), default=16, show_default=True, help="Requests to send.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Poisson arrivals a second.  [default: all at once]"
)
@click.option("--input-len", type=click.IntRange(min=1), default=128, show_default=True, help="Tokens of a prompt.")
@click.option("--output-len", type=click.IntRange(min=1), default=32, show_default=True, help="Tokens of an answer.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Requests served at once.  [default: all, up to 256]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of prompts, arrivals and random weights.")
@click.option(
    "--warmup", type=click.IntRange(min=0), default=2, show_default=True, help="Requests before the first counts."
)
@click.option(
    "--idle", "idle_s", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Seconds of idle power."
)
@click.option(
    "--cuda-graphs/--no-cuda-graphs", default=True, show_default=True, help="Replay CUDA graphs where possible."
)
@click.option("--kernels/--no-kernels", default=True, show_default=True, help="Trace kernels.")
@click.option("--energy/--no-energy", default=True, show_default=True, help="Sample energy, power and clocks.")
@click.option("--cupti", "cupti_path", help="libcupti to use instead of the one that is found.")
@click.option("--json", "is_json", is_flag=True, help="Print the report as JSON.")
def trace(output: Path | None, is_json: bool, **settings: Any) -> None:
    """Serve a workload through the embedded engine and record who spent the time and the joules.

    Needs `pip install 'qmeter-native[engine]'`. Writes a capture, a directory NAME.qmt, and prints its report.
    """
    from qmeter_native.attribution.report import attribute
    from qmeter_native.capture.serving import serve
    from qmeter_native.cli.report_output import write_report
    from qmeter_native.cli.run_display import RunDisplay

    options = _options(settings)
    path = output or _default_output(settings["model"])
    with RunDisplay() as display:
        result = serve(path, options, stop=display.stop, observe=display.show)
    report = attribute(result.capture, path.name)
    write_report(report, is_json=is_json, next_command=f"qmeter-native report {path}")
    _check_written(path, result)
    if result.failure is not None:
        raise EngineError(
            f"the engine stopped before the workload was done: {result.failure}",
            f"What was captured until then is in {path}.",
        )
    if display.is_interrupted:
        sys.exit(_INTERRUPTED)


def _check_written(path: Path, result: ServingResult) -> None:
    from qmeter_native.capture.finalize import WRITE_FAILED

    for entry in result.capture.manifest.validity:
        if entry.code == WRITE_FAILED:
            raise CaptureError(
                f"{path} is not complete. {entry.message}",
                "Free some space and trace again. What was captured until then can be read.",
            )


def _options(settings: dict[str, Any]) -> ServingOptions:
    from qmeter_native.capture.serving import ServingOptions
    from qmeter_native.capture.session import SessionOptions
    from qmeter_native.engines.device_choice import chosen_device
    from qmeter_native.engines.options import EngineOptions
    from qmeter_native.workload.workload import Workload

    workload = Workload(
        num_requests=settings["requests"],
        arrival="burst" if settings["rate"] is None else "poisson",
        rate_hz=settings["rate"],
        input_len=settings["input_len"],
        output_len=settings["output_len"],
        seed=settings["seed"],
        num_warmup=settings["warmup"],
    )
    device = chosen_device(settings["device"])
    engine = EngineOptions(
        model=settings["model"],
        device=device,
        dtype=settings["dtype"],
        max_concurrency=settings["concurrency"] or min(settings["requests"], _MAX_CONCURRENCY),
        max_context_len=workload.context_len,
        cuda_graphs=settings["cuda_graphs"],
        seed=settings["seed"],
    )
    session = SessionOptions(
        device=device.partition(":")[0],
        energy=settings["energy"],
        kernels=settings["kernels"],
        cupti_path=settings["cupti_path"],
    )
    return ServingOptions(engine, workload, session, settings["idle_s"])


def _default_output(model: str) -> Path:
    """``MODEL-YYYYMMDD-HHMMSS.qmt``, with the model's name reduced to what file systems like."""
    import re
    import time

    name = re.sub(r"[^\w.-]+", "-", model.rpartition(":")[2].rstrip("/").rpartition("/")[2]) or "capture"
    return Path(f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.qmt")
