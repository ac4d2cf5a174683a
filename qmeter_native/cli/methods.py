"""``qmeter-native methods``: the registry of quantization methods, and one of them explained."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from qmeter_native.quantization.method import Method

__all__ = ["methods"]

_EPILOG: Final = """\b
Examples:
  qmeter-native methods
  qmeter-native methods show fp8-block
  qmeter-native methods show qoq --model shape:llama-2-70b
  qmeter-native methods --json

\b
Next: qmeter-native quantize --model builtin:stdlib-lm --quantization gptq -o stdlib-gptq
"""
_SHOW_EPILOG: Final = """\b
Examples:
  qmeter-native methods show gptq
  qmeter-native methods show kv4 --model shape:llama-3.1-70b
  qmeter-native methods show nvfp4 --json
"""


@click.group(invoke_without_command=True, epilog=_EPILOG)
@click.option("--json", "is_json", is_flag=True, help="Print the table as JSON.")
@click.pass_context
def methods(context: click.Context, is_json: bool) -> None:
    """List quantization methods: who serves each, what it takes, and whether this GPU runs it natively.

    ✓ natively, ~ it runs in other formats, – not here.
    """
    if context.invoked_subcommand is not None:
        return
    from qmeter_native.benchmark.gpu import find_capability
    from qmeter_native.quantization.method_listing import method_listing

    listing = method_listing(find_capability())
    if is_json:
        click.echo(json.dumps(listing.to_dict(), indent=1, ensure_ascii=False))
        return
    from qmeter_native.reporters.console import make_console
    from qmeter_native.reporters.console.methods import print_methods

    print_methods(listing, make_console(sys.stdout), "qmeter-native methods show gptq")


@methods.command(epilog=_SHOW_EPILOG)
@click.argument("name")
@click.option("--model", default="shape:llama-3.1-8b", show_default=True, help="Whose memory is told.")
@click.option("--json", "is_json", is_flag=True, help="Print it as JSON.")
def show(name: str, model: str, is_json: bool) -> None:
    """Explain one method: formats, who serves it, the memory that a model takes, and its commands."""
    from qmeter_native.benchmark.gpu import find_capability
    from qmeter_native.engines.model_source import resolve_model
    from qmeter_native.quantization.method_listing import method_line
    from qmeter_native.quantization.method_memory import method_memory
    from qmeter_native.quantization.methods import method_named

    method = method_named(name)
    gpu = find_capability()
    line = method_line(method, None if gpu is None else gpu[1])
    memory, commands = method_memory(method, resolve_model(model)), _commands(method, model)
    if is_json:
        document = {**line.to_dict(), "memory": memory.to_dict(), "commands": commands}
        click.echo(json.dumps(document, indent=1, ensure_ascii=False))
        return
    from qmeter_native.reporters.console import make_console
    from qmeter_native.reporters.console.methods import print_method

    print_method(line, memory, commands, make_console(sys.stdout))


def _commands(method: Method, model: str) -> dict[str, str]:
    """What a user does with a method, by purpose; what cannot be done is left out."""
    option = "" if method.name == "none" else f" --quantization {method.name}"
    found = {}
    if method.config:
        text = (
            " --calibration TEXT" if method.needs_calibration and not model.startswith(("builtin:", "shape:")) else ""
        )
        found["quantize"] = f"qmeter-native quantize --model {model}{option}{text} -o {method.name}-checkpoint"
    if method.vllm is not None:
        found["trace with vLLM"] = f"qmeter-native trace --engine vllm --model {model}{option}"
    found["trace embedded"] = f"qmeter-native trace --model {model}{option}"
    if option:
        found["quality"] = f"qmeter-native quality --model builtin:stdlib-lm{option}"
    return found
