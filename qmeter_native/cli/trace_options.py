"""The options of ``trace`` as objects of the packages that do the work, and its options by group for click."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from qmeter_native.capture.counter_sampler import CounterOptions
    from qmeter_native.capture.session import SessionOptions
    from qmeter_native.capture.trace_schedule import TraceTimes
    from qmeter_native.workload.workload import Workload

__all__ = [
    "collect_options",
    "command_options",
    "engine_options",
    "session_options",
    "trace_times",
    "workload",
    "workload_options",
]

_F = TypeVar("_F", bound=Callable[..., Any])


def _group(*options: Callable[[Any], Any]) -> Callable[[_F], _F]:
    def add(function: _F) -> _F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def _counter_time(text: str) -> float | str:
    """Seconds, or the word ``continuous``."""
    if text == "continuous":
        return text
    try:
        return float(click.FloatRange(min=0)(text))
    except click.BadParameter:
        raise click.BadParameter(f"{text!r} is neither a number of seconds nor `continuous`") from None


engine_options: Final = _group(
    click.option(
        "--engine",
        type=click.Choice(["transformers", "vllm", "openai"]),
        default="transformers",
        show_default=True,
        help="Embedded engine, a vLLM server started here, or a server that runs already.",
    ),
    click.option("--model", help="Local directory, hub id, shape:NAME or builtin:stdlib-lm."),
    click.option(
        "--quantization",
        default="none",
        show_default=True,
        help="Method that the embedded engine quantizes with; of a shape's weights for vLLM, else vLLM's own.",
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option("--dtype", default="auto", show_default=True, help="auto, float32, bfloat16 or float16."),
    click.option(
        "--cuda-graphs/--no-cuda-graphs", default=True, show_default=True, help="Replay CUDA graphs where possible."
    ),
    click.option(
        "--tensor-parallel", type=click.IntRange(min=1), default=1, show_default=True, help="GPUs of the vLLM server."
    ),
    click.option("--engine-args", default="", help="More arguments for `vllm serve`, as a shell takes them."),
)
"""Which engine, which model."""

workload_options: Final = _group(
    click.option("--requests", type=click.IntRange(min=1), default=16, show_default=True, help="Requests to send."),
    click.option(
        "--rate", type=click.FloatRange(min=0, min_open=True), help="Poisson arrivals a second.  [default: all at once]"
    ),
    click.option("--input-len", type=click.IntRange(min=1), default=128, show_default=True, help="Tokens of a prompt."),
    click.option(
        "--output-len", type=click.IntRange(min=1), default=32, show_default=True, help="Tokens of an answer."
    ),
    click.option("--concurrency", type=click.IntRange(min=1), help="Requests served at once.  [default: all, to 256]"),
    click.option("--seed", type=int, default=0, show_default=True, help="Of prompts, arrivals and random weights."),
    click.option(
        "--warmup", type=click.IntRange(min=0), default=2, show_default=True, help="Requests before the first counts."
    ),
    click.option("--base-url", help="Where the server listens.  [default: http://localhost:PORT]"),
    click.option("--port", type=click.IntRange(1, 65535), help="Port of the server.  [default: 8000]"),
    click.option(
        "--startup-timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        show_default=True,
        help="Seconds that a server may take to be healthy.",
    ),
)
"""What is sent; with a command, any of these makes it a server to wait for."""

collect_options: Final = _group(
    click.option(
        "--idle", "idle_s", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Seconds of idle power."
    ),
    click.option("--kernels/--no-kernels", default=True, show_default=True, help="Trace kernels."),
    click.option("--energy/--no-energy", default=True, show_default=True, help="Sample energy, power and clocks."),
    click.option(
        "--counters",
        type=_counter_time,
        metavar="SECONDS",
        default="0",
        help="Sample hardware counters for so many seconds, or `continuous`: all the time, but rarely. The GPU draws "
        "more power meanwhile.  [default: 0]",
    ),
    click.option(
        "--counters-after",
        type=click.FloatRange(min=0),
        default=1.0,
        show_default=True,
        help="Seconds from the start of the measured window to the first counter.",
    ),
    click.option(
        "--counter-interval",
        type=click.FloatRange(min=1),
        metavar="MICROSECONDS",
        help="Between two samples.  [default: 20; continuous 10000]",
    ),
    click.option("--cupti", "cupti_path", help="libcupti to use instead of the one that is found."),
)
"""What is collected."""

command_options: Final = _group(
    click.option(
        "--start-after", type=click.FloatRange(min=0), default=0.0, help="Trace from so many seconds on.  [default: 0]"
    ),
    click.option("--start-stopped", is_flag=True, help="Trace when told to: `ctl start`, or SIGUSR1."),
    click.option("--duration", type=click.FloatRange(min=0, min_open=True), help="Trace for so many seconds."),
    click.option("--duty", metavar="ON/PERIOD", help="Trace only ON of every PERIOD seconds, such as 0.2/2."),
    click.option(
        "--grace",
        type=click.FloatRange(min=0),
        default=10.0,
        show_default=True,
        help="Seconds to wait for processes that outlive the command.",
    ),
    click.option("--plugin/--no-plugin", default=True, show_default=True, help="Let vLLM tell its steps and requests."),
)
"""When a launched command is traced."""


def workload(settings: dict[str, Any]) -> Workload:
    """What to send."""
    from qmeter_native.workload.workload import Workload

    return Workload(
        num_requests=settings["requests"],
        arrival="burst" if settings["rate"] is None else "poisson",
        rate_hz=settings["rate"],
        input_len=settings["input_len"],
        output_len=settings["output_len"],
        seed=settings["seed"],
        num_warmup=settings["warmup"],
    )


def session_options(settings: dict[str, Any], device: str) -> SessionOptions:
    """What to collect, on ``device``."""
    from qmeter_native.capture.session import SessionOptions

    return SessionOptions(
        device=device.partition(":")[0],
        energy=settings["energy"],
        kernels=settings["kernels"],
        counters=_counter_options(settings),
        cupti_path=settings["cupti_path"],
    )


def _counter_options(settings: dict[str, Any]) -> CounterOptions | None:
    if not settings["counters"]:
        return None
    from qmeter_native.capture.counter_sampler import CounterOptions

    interval_us, is_continuous = settings["counter_interval"], settings["counters"] == "continuous"
    return CounterOptions(
        **({} if is_continuous else {"seconds": settings["counters"]}),
        after_s=settings["counters_after"],
        interval_s=None if interval_us is None else interval_us * 1e-6,
        is_continuous=is_continuous,
    )


def trace_times(settings: dict[str, Any]) -> TraceTimes:
    """When a launched command is traced."""
    from qmeter_native.capture.control import DutyCycle
    from qmeter_native.capture.trace_schedule import TraceTimes

    return TraceTimes(
        start_after_s=None if settings["start_stopped"] else settings["start_after"],
        duration_s=settings["duration"],
        duty=None if settings["duty"] is None else DutyCycle.parse(settings["duty"]),
    )
