"""``qmeter-native quantize``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from qmeter_native.quantization.method import Method
    from qmeter_native.quantization.quantize_checkpoint import QuantizedCheckpoint

__all__ = ["quantize"]

_EPILOG: Final = """\b
Examples:
  qmeter-native quantize --model builtin:stdlib-lm --quantization fp8 -o stdlib-fp8
  qmeter-native quantize --model builtin:stdlib-lm --quantization gptq -o stdlib-gptq
  qmeter-native quantize --model ./llama --quantization awq --calibration text.txt -o llama-awq
  qmeter-native quantize --model shape:llama-3.1-8b --quantization nvfp4 -o random-nvfp4

\b
Ctrl-C ends it and leaves nothing behind.
Next: qmeter-native trace --model FOLDER
"""


@click.command(epilog=_EPILOG)
@click.option("--model", required=True, help="Local folder, hub id, shape:NAME or builtin:stdlib-lm.")
@click.option("--quantization", required=True, metavar="NAME", help="The method, such as gptq, awq, fp8, nf4.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to create.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="UTF-8 text for methods that watch the model read.  [default for builtin:stdlib-lm: what it was trained on]",
)
@click.option("--sequences", default=128, show_default=True, help="Pieces of the calibration text.")
@click.option("--sequence-len", type=int, help="Tokens of a piece.  [default: the model's context, at most 2048]")
@click.option("--device", default="auto", show_default=True, help="Where to compute: auto, cpu, cuda:N.")
@click.option("--seed", default=0, show_default=True, help="Of the random weights of a shape.")
@click.option("--json", "is_json", is_flag=True, help="Print the result as JSON.")
def quantize(
    model: str,
    quantization: str,
    output: Path,
    calibration: Path | None,
    sequences: int,
    sequence_len: int | None,
    device: str,
    seed: int,
    is_json: bool,
) -> None:
    """Write a quantized checkpoint of a model that vLLM, transformers and the embedded engine load.

    Methods that need no calibration text go through a checkpoint tensor by tensor. The others need
    `pip install 'qmeter-native[quantize]'`.
    """
    from qmeter_native.quantization.methods import method_named

    method = method_named(quantization)
    _warn(method)
    written = _written(model, method, output, calibration, sequences, sequence_len, device, seed)
    if is_json:
        click.echo(json.dumps(written.to_dict(), indent=1, ensure_ascii=False))
        return
    from qmeter_native.reporters.console import make_console
    from qmeter_native.reporters.console.quantized_checkpoint import print_quantized

    print_quantized(written, make_console(sys.stdout), f"qmeter-native trace --model {output}")


def _written(
    model: str,
    method: Method,
    output: Path,
    calibration: Path | None,
    sequences: int,
    sequence_len: int | None,
    device: str,
    seed: int,
) -> QuantizedCheckpoint:
    from qmeter_native.cli.step_display import StepDisplay
    from qmeter_native.engines.model_source import resolve_model
    from qmeter_native.quantization.calibration_text import calibration_text
    from qmeter_native.quantization.quantize_checkpoint import quantize_checkpoint

    source = resolve_model(model)
    text = calibration_text(source, calibration, sequences, sequence_len)
    with StepDisplay() as display:
        return quantize_checkpoint(
            source, method, output, text, device=_device(device), seed=seed, progress=display.show
        )


def _device(name: str) -> str:
    """``auto`` is the first GPU, or the CPU."""
    import torch

    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _warn(method: Method) -> None:
    """Say so if no kernel of this project multiplies such weights on the GPU that is here."""
    from qmeter_native.benchmark.gpu import find_capability
    from qmeter_native.kernels.catalog import why_no_kernel

    found = find_capability()
    if found is None or method.format is None:
        return
    name, capability = found
    reason = why_no_kernel(method.format, capability)
    if reason is not None:
        click.echo(f"{name} does not multiply {method.scheme} natively: {reason}. {method.elsewhere}".strip(), err=True)
