"""A capture as a native Perfetto trace, which ui.perfetto.dev opens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qmeter_native.errors import CaptureError, UsageError
from qmeter_native.model.capture import Capture
from qmeter_native.reporters.perfetto.kernels import kernel_slices
from qmeter_native.reporters.perfetto.packets import Readings, Slices
from qmeter_native.reporters.perfetto.readings import clock_readings, counter_readings, power_readings
from qmeter_native.reporters.perfetto.serving import range_slices, request_slices, step_slices
from qmeter_native.reporters.perfetto.stage import Stage
from qmeter_native.reporters.perfetto.window import Window

__all__ = ["MAX_BYTES", "PerfettoTrace", "Window", "write_perfetto"]

MAX_BYTES: Final = 1_000_000_000
"""About what ui.perfetto.dev opens in a browser tab."""
_CHUNK_ROWS: Final = 1 << 16
"""Rows encoded at a time: about 15 MB."""


@dataclass(frozen=True, slots=True)
class PerfettoTrace:
    """What was written, and how much of each kind."""

    path: Path
    num_bytes: int
    num_kernels: int
    num_steps: int
    num_requests: int
    num_ranges: int
    num_readings: int


def write_perfetto(capture: Capture, path: Path, window: Window) -> PerfettoTrace:
    """Write the part of ``capture`` that touches ``window`` to ``path``, replacing what is there.

    Raises:
        UsageError: The trace would be larger than `MAX_BYTES`.
        CaptureError: ``path`` cannot be written.
    """
    stage = Stage.of(capture, window)
    readings = [*power_readings(stage), *counter_readings(stage), *clock_readings(stage)]
    steps, kernels = step_slices(stage), kernel_slices(stage)
    (requests, num_requests), ranges = request_slices(stage), range_slices(stage)
    parts: list[Slices | Readings] = [*readings, steps, kernels, requests, ranges]
    _check_size(parts)
    unfinished = path.with_name(f"{path.name}.part")
    try:
        with unfinished.open("wb") as file:
            file.writelines(_chunks(stage, parts))
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise CaptureError(f"{path} cannot be written: {error.strerror}", "Name another file with -o.") from error
    return PerfettoTrace(
        path,
        path.stat().st_size,
        num_kernels=len(kernels),
        num_steps=len(steps),
        num_requests=num_requests,
        num_ranges=len(ranges),
        num_readings=sum(len(part) for part in readings),
    )


def _chunks(stage: Stage, parts: list[Slices | Readings]) -> Iterator[bytes]:
    yield stage.tracks.packets()
    yield stage.texts.packet()
    for part in parts:
        for first in range(0, len(part), _CHUNK_ROWS):
            yield part.encoded(slice(first, first + _CHUNK_ROWS)).tobytes()


def _check_size(parts: list[Slices | Readings]) -> None:
    """Refuse what no browser would open, before anything is written. Rows of a part are of one length."""
    size = sum(len(part) * part.encoded(slice(0, 1)).shape[1] for part in parts if len(part))
    if size > MAX_BYTES:
        raise UsageError(
            f"the trace would be {size / 1e9:.1f} GB; ui.perfetto.dev opens up to about {MAX_BYTES / 1e9:.0f} GB",
            "Export a part of the run with --window START:DURATION, in seconds.",
        )
