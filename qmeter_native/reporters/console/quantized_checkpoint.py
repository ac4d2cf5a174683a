"""A checkpoint that was quantized, printed."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qmeter_native.quantization.quantize_checkpoint import QuantizedCheckpoint
from qmeter_native.reporters.quantity import quantity

__all__ = ["print_quantized"]


def print_quantized(written: QuantizedCheckpoint, console: Console, following: str) -> None:
    """Print what was written and where, and the command that comes next."""
    table = Table.grid(padding=(0, 2))
    for name, value in _rows(written):
        table.add_row(Text(name, "dim"), Text(value))
    console.print(table)
    console.print(Text(f"\nNext: {following}", "dim"), soft_wrap=True)  # a command is copied as one line


def _rows(written: QuantizedCheckpoint) -> list[tuple[str, str]]:
    bits = 8 * written.layers_num_bytes / max(written.num_weights, 1)
    rows = [
        ("checkpoint", written.folder),
        ("model", written.model),
        ("method", f"{written.quantization}: {written.scheme}, codes by {written.algorithm}"),
        ("layers", f"{written.num_layers} of {written.num_weights / 1e6:.1f} M weights, {bits:.2f} bits a weight"),
        ("size", quantity(written.num_bytes, "B")),
    ]
    if written.calibration is not None:
        text = written.calibration
        rows.append(("text", f"{text['num_sequences']} sequences of {text['sequence_len']} tokens: {text['name']}"))
    if written.weights_source == "random_codes":
        rows.append(("weights", "random: good for time and energy, worthless for quality"))
    return rows
