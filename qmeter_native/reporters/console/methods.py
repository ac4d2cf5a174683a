"""Quantization methods on a terminal. Formatting only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from qmeter_native.quantization.method_listing import MethodLine, MethodListing
from qmeter_native.quantization.method_memory import MethodMemory
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import INDENT, Column, fitted_table, plain
from qmeter_native.reporters.console.terminal import write
from qmeter_native.reporters.quantity import quantity

__all__ = ["print_method", "print_methods"]

_MARKS: Final = {"native": "✓", "fallback": "~", "absent": "–"}
_STATES: Final = {"native": "runs natively", "fallback": "falls back", "absent": "not here"}


def print_methods(listing: MethodListing, console: Console, next_command: str | None = None) -> None:
    """Print the table at the console's width, ending with the natural next command."""
    lines = listing.methods
    columns = [
        Column("", [_MARKS[line.state] for line in lines]),
        Column("--quantization", [line.name for line in lines], justify="left"),
        Column("scheme", [line.scheme for line in lines], justify="left"),
        Column("bits", [f"{line.bits_per_weight:.2f}" for line in lines], 2),
        Column("KV", [f"{line.kv_bits:.4g}" for line in lines], 3),
        Column("codes by", [line.algorithm + "*" * line.needs_calibration for line in lines], 4, "left"),
        Column("vLLM", [_vllm(line) for line in lines], 1, "left"),
        Column("embedded", [line.embedded_kernel or "torch" for line in lines], 5, "left", "dim"),
    ]
    table, _ = fitted_table(columns, console.width)
    gpu = "no GPU" if listing.gpu is None else f"{plain(listing.gpu)}, {listing.compute_capability}"
    reasons = dict.fromkeys(f"{_MARKS[line.state]} {line.reason}" for line in lines if line.reason)
    notes = [*reasons, "bits of a weight and of a cached element, scales included; * needs calibration text"]
    write(console, Section("Methods", [table], f"on {gpu}").parts())
    for note in notes:
        console.print(Text(" " * INDENT + note, "dim"))
    if next_command:
        console.print(Text(f"\nNext: {next_command}", "dim"), soft_wrap=True)  # a command is copied as one line


def print_method(line: MethodLine, memory: MethodMemory, commands: Mapping[str, str], console: Console) -> None:
    """Print what one method is, what serves it, and what a model takes with it."""
    sections = [
        Section(line.name, [_grid(_what(line))], line.scheme),
        Section("Served by", [_grid(_served(line))], ""),
        Section("Memory", [_grid(_memory(memory))], plain(memory.model)),
    ]
    write(console, [part for section in sections for part in section.parts()])
    console.print(Text("\nCommands"))
    for purpose, command in commands.items():
        console.print(Text(f"{' ' * INDENT}{purpose + ':':17} {command}"), soft_wrap=True)


def _what(line: MethodLine) -> list[tuple[str, str]]:
    text = "reads calibration text" if line.needs_calibration else "needs no calibration text"
    return [
        ("what", line.summary),
        ("codes by", f"{line.algorithm}, which {text}"),
        ("checkpoint", line.checkpoint),
        ("bits a weight", f"{line.bits_per_weight:.3f}, scales and zero points included"),
        ("bits of cache", f"{line.kv_bits:.4g} an element, scales included"),
        ("native from", f"compute capability {line.minimum}. {line.elsewhere}".strip()),
        ("here", _STATES[line.state] + (f": {line.reason}" if line.reason else "")),
    ]


def _served(line: MethodLine) -> list[tuple[str, str]]:
    rows = []
    if line.vllm_kernels:
        rows.append(("vLLM 0.26", _by_architecture(line.vllm_kernels)))
        if line.vllm_attention:
            rows.append(("attention", _by_architecture(line.vllm_attention)))
        if line.vllm_flags:
            rows.append(("flags", " ".join(line.vllm_flags)))
    if line.vllm_note:
        rows.append(("" if line.vllm_kernels else "vLLM 0.26", line.vllm_note))
    rows.append(("embedded", f"qmeter_native.kernels: {line.embedded_kernel}" if line.embedded_kernel else "torch"))
    if line.embedded_note:
        rows.append(("", line.embedded_note))
    return rows


def _memory(memory: MethodMemory) -> list[tuple[str, str]]:
    share = memory.num_quantized / memory.num_parameters
    return [
        ("weights", _beside(memory.weight_bytes, memory.plain_weight_bytes)),
        ("", f"{100 * share:.0f} % of the parameters by the bits above, all others in 16 bits"),
        ("a token's KV", _beside(memory.kv_bytes_per_token, memory.plain_kv_bytes_per_token)),
        ("", memory.kv_formula),
    ]


def _beside(found: int, plain_bytes: int) -> str:
    return f"{quantity(found, 'B')}, {found / plain_bytes:.3f} of {quantity(plain_bytes, 'B')} in 16 bits"


def _by_architecture(kernels: Mapping[str, tuple[str, ...]]) -> str:
    """Architectures with the same kernels stand together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for architecture, names in kernels.items():
        groups.setdefault(tuple(names), []).append(architecture)
    return "; ".join(f"{' or '.join(names)} on {', '.join(places)}" for names, places in groups.items())


def _vllm(line: MethodLine) -> str:
    if not line.vllm_kernels:
        return "no"
    if line.vllm_here is not None:
        return " or ".join(line.vllm_here)
    return "yes" if line.state == "absent" else "not on this GPU"


def _grid(rows: list[tuple[str, str]]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(width=INDENT)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row("", Text(name), Text(plain(value)))
    return table
