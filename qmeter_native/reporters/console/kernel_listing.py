"""Formats, kernels and peers on a terminal. Formatting only."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from qmeter_native.benchmark.listing import KernelListing
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, plain
from qmeter_native.reporters.console.terminal import write
from qmeter_native.reporters.quantity import count

__all__ = ["print_listing"]


def print_listing(listing: KernelListing, console: Console, next_command: str | None = None) -> None:
    """Print ``listing`` at the console's width, ending with the natural next command."""
    width = console.width
    sections = [_formats(listing, width), _kernels(listing, width), _peers(listing, width)]
    write(console, [part for section in sections for part in section.parts()])
    if next_command:
        console.print(Text(f"\nNext: {next_command}", "dim"), soft_wrap=True)  # a command is copied as one line


def _formats(listing: KernelListing, width: int) -> Section:
    lines = listing.formats
    columns = [
        Column("", [line.label for line in lines], justify="left"),
        Column("bits", [f"{line.bits:.2f}" for line in lines], 2),
        Column("activations", [" ".join(line.activations) for line in lines], 3, "left"),
        Column("kernels", [" ".join(line.kernels) for line in lines], 1, "left"),
        Column("found as", [line.checkpoints for line in lines], 4, "left", "dim", "cut"),
    ]
    return Section("Formats", [fitted_table(columns, width)[0]], "bits of a weight with its scales")


def _kernels(listing: KernelListing, width: int) -> Section:
    lines = listing.kernels
    columns = [
        Column("", [_mark(line.why_not) for line in lines]),
        Column("", [line.name for line in lines], justify="left"),
        Column("from", [line.minimum for line in lines], 1),
        Column("formats", [count(len(line.formats)) for line in lines], 2),
        Column("called by", [line.served_by for line in lines], 3, "left", "dim"),
        Column("", [line.why_not or "runs here" for line in lines], 0, "left", flexible="cut"),
    ]
    gpu = "no GPU" if listing.gpu is None else f"{plain(listing.gpu)}, {listing.compute_capability}"
    return Section("Kernels", [fitted_table(columns, width)[0]], f"on {gpu}; from this compute capability on")


def _peers(listing: KernelListing, width: int) -> Section:
    lines = listing.peers
    columns = [
        Column("", [_mark(line.why_not) for line in lines]),
        Column("", [line.name for line in lines], justify="left"),
        Column("formats", [count(len(line.formats)) if line.formats else "" for line in lines], 1),
        Column("", [plain(line.why_not or "is here") for line in lines], 0, "left", flexible="cut"),
    ]
    return Section("Peers", [fitted_table(columns, width)[0]], "that `kernels bench` compares with")


def _mark(why_not: str | None) -> str:
    return "✓" if why_not is None else "–"
