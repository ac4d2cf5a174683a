"""``qmeter-native export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qmeter_native.errors import UsageError

if TYPE_CHECKING:
    from qmeter_native.model.manifest import Manifest
    from qmeter_native.reporters.perfetto import Window

__all__ = ["export"]

_EPILOG: Final = """\b
Examples:
  qmeter-native export run.qmt --to perfetto
  qmeter-native export run.qmt --to perfetto --window 2:0.5 -o slice.perfetto-trace

Next: open the file at https://ui.perfetto.dev
"""
_SUFFIX: Final = ".perfetto-trace"


@click.command(epilog=_EPILOG)
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--to", "target", type=click.Choice(["perfetto"]), required=True, help="The format to write.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help=f"File to write.  [default: NAME{_SUFFIX}]")
@click.option("--window", metavar="START:DURATION", help="Seconds after the measurement began, and how many.")
def export(capture: Path, target: str, output: Path | None, window: str | None) -> None:
    """Write CAPTURE in the format of another tool.

    perfetto: kernels by device and stream, engine steps, requests with queue, prefill and decode, ranges, power and
    clocks, as a native trace for ui.perfetto.dev.
    """
    from qmeter_native.capture.open import open_capture
    from qmeter_native.reporters.perfetto import Window, write_perfetto
    from qmeter_native.reporters.quantity import count, quantity

    opened = open_capture(capture)
    part = Window() if window is None else _window(window, opened.manifest)
    written = write_perfetto(opened, output or Path(f"{capture.name.removesuffix('.qmt')}{_SUFFIX}"), part)
    counts = {
        "kernels": written.num_kernels,
        "steps": written.num_steps,
        "requests": written.num_requests,
        "ranges": written.num_ranges,
        "readings": written.num_readings,
    }
    held = ", ".join(f"{count(number)} {what}" for what, number in counts.items())
    click.echo(f"{written.path}: {quantity(written.num_bytes, 'B')}, {held}")
    click.echo("\nNext: open it at https://ui.perfetto.dev")


def _window(text: str, manifest: Manifest) -> Window:
    """``START:DURATION`` in seconds after the measurement began.

    Raises:
        UsageError: It is none, or lies outside the capture.
    """
    from qmeter_native.reporters.perfetto import Window
    from qmeter_native.units import ns_to_s, s_to_ns

    start, colon, duration = text.partition(":")
    try:
        start_ns, length_ns = s_to_ns(float(start)), s_to_ns(float(duration))
    except (ValueError, OverflowError):
        start_ns, length_ns = 0, 0
    if not colon or length_ns <= 0:
        raise UsageError(f"{text!r} is no window", "Write START:DURATION in seconds, such as --window 2:0.5.")
    first = manifest.measure_start_ns + start_ns
    if first >= manifest.end_ns or first + length_ns <= manifest.start_ns:
        begin, end = (ns_to_s(edge - manifest.measure_start_ns) for edge in (manifest.start_ns, manifest.end_ns))
        raise UsageError(
            f"the window {text} lies outside the capture", f"The capture spans {begin:.3f} to {end:.3f} s."
        )
    return Window(first, first + length_ns)
