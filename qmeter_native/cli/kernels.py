"""``qmeter-native kernels``: list, bench, tune."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from qmeter_native.errors import UsageError

if TYPE_CHECKING:
    from qmeter_native.benchmark.plan import BenchmarkPlan
    from qmeter_native.kernels.catalog import KernelFormat
    from qmeter_native.model.kernel_benchmark import KernelBenchmark

__all__ = ["kernels"]

_INTERRUPTED: Final = 130
_ALL: Final = "all"
_DEFAULT_FORMAT: Final = "W4A16-INT g128"
_TUNE_M: Final = "1,16,32,64,128,256,512,1024,2048,4096"

_EPILOG: Final = """\b
Examples:
  qmeter-native kernels list
  qmeter-native kernels bench --shapes llama-8b --m 1,16,256
  qmeter-native kernels tune --shapes llama-8b --budget 600

\b
Next: qmeter-native roofline BENCH.json
"""
_BENCH_EPILOG: Final = """\b
Examples:
  qmeter-native kernels bench
  qmeter-native kernels bench --formats "W8A8-FP,W8A8-INT" --shapes llama-70b,square --dtype bfloat16
  qmeter-native kernels bench --m 1,16 --energy -o bench.json --picture bench.svg
  qmeter-native kernels bench --no-peers --kernels weight_only_gemm --shapes 5120x5120
  qmeter-native kernels bench --show bench.json --show more.json

\b
Ctrl-C ends it and keeps what was measured; a second one keeps nothing.
Next: qmeter-native roofline BENCH.json
"""
_TUNE_EPILOG: Final = """\b
Examples:
  qmeter-native kernels tune --shapes llama-8b --budget 600
  qmeter-native kernels tune --formats all --shapes square --output sm_90.json

\b
Ctrl-C ends it; tables keep what was found, and the next run goes on from there.
Next: qmeter-native kernels bench
"""


@click.group(epilog=_EPILOG)
def kernels() -> None:
    """Time this project's quantized kernels beside their peers, and say what runs here."""


@kernels.command("list")
@click.option("--json", "is_json", is_flag=True, help="Print the list as JSON.")
def list_kernels(is_json: bool) -> None:
    """List formats, kernels and peers, and what runs here."""
    from qmeter_native.benchmark.gpu import find_capability
    from qmeter_native.benchmark.listing import kernel_listing

    listing = kernel_listing(find_capability())
    if is_json:
        click.echo(json.dumps(listing.to_dict(), indent=1, ensure_ascii=False))
        return
    from qmeter_native.reporters.console import make_console
    from qmeter_native.reporters.console.kernel_listing import print_listing

    print_listing(listing, make_console(sys.stdout), "qmeter-native kernels bench")


def _measured_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that ``bench`` and ``tune`` share."""
    for option in (
        click.option("--seed", default=1, show_default=True, help="Of random weights and activations."),
        click.option("--budget", type=float, metavar="SECONDS", help="Begin no further point after this time."),
        click.option(
            "--dtype",
            type=click.Choice(["float16", "bfloat16"]),
            default="float16",
            show_default=True,
            help="Of activations, and of outputs where activations are quantized.",
        ),
        click.option(
            "--shapes",
            default="llama-8b",
            show_default=True,
            help="N and K: llama-8b, llama-70b, square, or NxK; several with commas.",
        ),
        click.option(
            "--formats",
            default=_DEFAULT_FORMAT,
            show_default=True,
            help="Labels of `kernels list` with commas, or all.",
        ),
        click.option("--device", default="cuda:0", show_default=True, help="The GPU, by CUDA's number."),
    ):
        command = option(command)
    return command


@kernels.command(epilog=_BENCH_EPILOG)
@_measured_options
@click.option("--m", "tokens", help="Numbers of tokens with commas.  [default: powers of two to 4096]")
@click.option("--kernels", "names", help="Ours, with commas.  [default: all that multiply the formats]")
@click.option("--peers", "peer_names", help="Of other projects, with commas.  [default: all that are here]")
@click.option("--no-peers", is_flag=True, help="Time ours only.")
@click.option("--vllm-ops", type=click.Path(path_type=Path), help="vLLM's _C_stable_libtorch.abi3.so.")
@click.option("--repeats", default=9, show_default=True, help="Bursts of each kernel at each point.")
@click.option("--energy", "has_energy", is_flag=True, help="Measure joules of a call too, in at most 40 rows.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Document to write.")
@click.option("--picture", type=click.Path(path_type=Path), help="SVG to write.")
@click.option("--show", type=click.Path(path_type=Path), multiple=True, help="Show documents instead of measuring.")
@click.option("--json", "is_json", is_flag=True, help="Print the document as JSON.")
def bench(output: Path | None, picture: Path | None, show: tuple[Path, ...], is_json: bool, **of_run: Any) -> None:
    """Time products of matrices, ours beside their peers.

    Times are of CUDA graphs over rotating copies of the weights, medians of bursts in turn; every product is checked
    before it is timed.
    """
    from qmeter_native.benchmark.document import joined, load_benchmark, save_benchmark

    if show:
        found, is_interrupted = joined([load_benchmark(path) for path in show]), False
    else:
        found, is_interrupted = _measured(output, **of_run)
    if output is not None:
        save_benchmark(found, output)
        click.echo(f"benchmark written to {output}", err=True)
    if picture is not None:
        _write_picture(found, picture)
    _print(found, is_json, output)
    sys.exit(_INTERRUPTED if is_interrupted else 0)


def _measured(
    output: Path | None,
    names: str | None,
    peer_names: str | None,
    no_peers: bool,
    vllm_ops: Path | None,
    device: str,
    **of_plan: Any,
) -> tuple[KernelBenchmark, bool]:
    from qmeter_native.benchmark.bench import choose_contenders, run_bench
    from qmeter_native.benchmark.document import save_benchmark
    from qmeter_native.benchmark.gpu import find_gpu
    from qmeter_native.cli.run_display import RunDisplay
    from qmeter_native.devices import check_writable

    if no_peers and peer_names is not None:
        raise UsageError("--peers does nothing with --no-peers", "Leave one of them out.")
    plan = _plan(device, **of_plan)
    if output is not None:
        check_writable(output)  # before minutes of measuring, not after
    gpu = find_gpu(device)
    chosen = choose_contenders(_split(names), [] if no_peers else _split(peer_names), vllm_ops)
    with RunDisplay() as display:

        def show(what: str, done: int, total: int) -> None:
            display.show_step("timing", f"{what} ({done + 1} of {total})", done, total)

        def keep(found: KernelBenchmark) -> None:
            if output is not None:
                save_benchmark(found, output)

        found = run_bench(gpu, plan, chosen, _command(), display.stop, show, keep)
        return found, display.is_interrupted


def _plan(
    device: str,
    formats: str,
    shapes: str,
    tokens: str | None,
    dtype: str,
    budget: float | None,
    seed: int,
    repeats: int = 9,
    has_energy: bool = False,
) -> BenchmarkPlan:
    """What is asked for, refused before the GPU is looked for; its cache decides how much weight is rotated."""
    from qmeter_native.benchmark.plan import BenchmarkPlan
    from qmeter_native.benchmark.shapes import DEFAULT_M, find_shapes, parse_m

    return BenchmarkPlan(
        formats=_formats(formats),
        shapes=find_shapes(shapes),
        tokens=DEFAULT_M if tokens is None else parse_m(tokens),
        dtype=dtype,
        num_repeats=repeats,
        has_energy=has_energy,
        budget_s=budget,
        seed=seed,
    )


def _formats(text: str) -> tuple[KernelFormat, ...]:
    from qmeter_native.kernels.catalog import FORMATS, format_named

    if text == _ALL:
        return FORMATS
    return tuple(dict.fromkeys(format_named(label.strip()) for label in text.split(",")))


def _split(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _command() -> str:
    """This command line, to measure it again."""
    import shlex

    return shlex.join(["qmeter-native", *sys.argv[1:]])


def _write_picture(found: KernelBenchmark, path: Path) -> None:
    from qmeter_native.benchmark.picture import benchmark_picture
    from qmeter_native.errors import BenchmarkError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(benchmark_picture(found), encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be written: {error.strerror}", "Choose another --picture.") from error
    click.echo(f"picture written to {path}", err=True)


def _print(found: KernelBenchmark, is_json: bool, output: Path | None) -> None:
    if is_json:
        from qmeter_native.model.kernel_benchmark import benchmark_to_dict

        click.echo(json.dumps(benchmark_to_dict(found), indent=1, ensure_ascii=False))
        return
    from qmeter_native.reporters.console import make_console
    from qmeter_native.reporters.console.kernel_benchmark import print_benchmark

    following = None if output is None else f"qmeter-native roofline {output}"
    print_benchmark(found, make_console(sys.stdout), following)


@kernels.command(epilog=_TUNE_EPILOG)
@_measured_options
@click.option("--m", "tokens", default=_TUNE_M, show_default=True, help="Numbers of tokens with commas.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Table to write.  [default: the user's, which is read]"
)
def tune(device: str, output: Path | None, **of_plan: Any) -> None:
    """Find our kernels' fastest tiles, and keep them.

    Kernels read the table of their architecture, sm_90.json, from $QMETER_KERNELS, else from qmeter-native/kernels in
    the user's cache, and then from the package.
    """
    from qmeter_native.benchmark.bench import run_tuning
    from qmeter_native.benchmark.gpu import find_gpu
    from qmeter_native.cli.run_display import RunDisplay
    from qmeter_native.kernels.autotune import TuningTable

    plan = _plan(device, **of_plan)
    gpu = find_gpu(device)
    major, _, minor = gpu.compute_capability.partition(".")
    table = TuningTable.of((int(major), int(minor)), output)
    with RunDisplay() as display:

        def show(what: str, done: int, total: int) -> None:
            display.show_step("tuning", f"{what} ({done + 1} of {total})", done, total)

        for row in run_tuning(gpu, plan, table, display.stop, show):
            click.echo(f"{row.kernel} {row.m}x{row.n}x{row.k}: {row.time_s * 1e6:.1f} µs, {row.config}")
        is_interrupted = display.is_interrupted
    click.echo(f"{len(table.rows)} rows in {table.path}", err=True)
    sys.exit(_INTERRUPTED if is_interrupted else 0)
