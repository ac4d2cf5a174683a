"""The control block: 64 bytes that a launcher writes and every traced process maps. It says when to record kernels.

``csrc/inject/control_block.h`` is the other side: it looks every 20 ms, and is at the edge of a duty cycle in time.
"""

from __future__ import annotations

import mmap
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from qmeter_native.errors import CaptureError, UsageError
from qmeter_native.units import NS_PER_S

__all__ = ["CONTROL_FILE", "ControlBlock", "DutyCycle", "TraceMode"]

CONTROL_FILE: Final = "control"
"""Its name in the folder of spools."""

_LAYOUT: Final = struct.Struct("<4sIQIIqqq16x")
_MAGIC: Final = b"QMCB"
_VERSION: Final = 1
_GENERATION: Final = struct.Struct("<Q")
_GENERATION_OFFSET: Final = 8

_MIN_ON_S: Final = 0.02
"""Traced processes look at the block every 20 ms."""

_MAX_PERIOD_S: Final = 86400.0
"""Far beyond any use, and far below where nanoseconds overflow the block's 64 bits."""


class TraceMode(IntEnum):
    """Whether kernels are recorded. The integer is what the block holds."""

    STOPPED = 0
    RUNNING = 1
    DUTY_CYCLED = 2


@dataclass(frozen=True, slots=True)
class DutyCycle:
    """``on_s`` seconds recorded of every ``period_s``.

    Raises:
        UsageError: Stretches under 20 ms, or not shorter than the period; periods of more than a day.
    """

    on_s: float
    period_s: float

    def __post_init__(self) -> None:
        if not _MIN_ON_S <= self.on_s < self.period_s <= _MAX_PERIOD_S:
            raise UsageError(
                f"a duty cycle of {self.on_s:g} s of every {self.period_s:g} s makes no sense",
                "Give ON/PERIOD in seconds, such as 0.2/2: ON at least 0.02, PERIOD longer, and a day at most.",
            )

    @classmethod
    def parse(cls, text: str) -> DutyCycle:
        """From ``ON/PERIOD``, both in seconds.

        Raises:
            UsageError: It is no such text, or no duty cycle.
        """
        on, _, period = text.partition("/")
        try:
            return cls(float(on), float(period))
        except ValueError:
            raise UsageError(
                f"{text!r} is no duty cycle", "Give ON/PERIOD in seconds, such as 0.2/2: 0.2 s of every 2 s."
            ) from None


class ControlBlock:
    """The launcher's side: created = stopped. Writing is seen by all processes that map the file."""

    def __init__(self, path: Path) -> None:
        """Create the block as the file ``path``.

        Raises:
            CaptureError: It cannot be written.
        """
        try:
            path.write_bytes(_LAYOUT.pack(_MAGIC, _VERSION, 0, TraceMode.STOPPED, 0, 0, 0, 0))
            with path.open("r+b") as file:
                self._memory = mmap.mmap(file.fileno(), _LAYOUT.size)
        except OSError as error:
            raise CaptureError(f"{path} cannot be written: {error.strerror}", "Choose another --output.") from error
        self._generation = 0
        self.mode = TraceMode.STOPPED
        self.duty: DutyCycle | None = None

    def run(self) -> None:
        """Record from now on."""
        self._write(TraceMode.RUNNING, None)

    def stop(self) -> None:
        """Record no more."""
        self._write(TraceMode.STOPPED, None)

    def cycle(self, duty: DutyCycle) -> None:
        """Record a stretch from now on, and one of that length in every period."""
        self._write(TraceMode.DUTY_CYCLED, duty)

    def _write(self, mode: TraceMode, duty: DutyCycle | None) -> None:
        on_ns = 0 if duty is None else round(duty.on_s * NS_PER_S)
        period_ns = 0 if duty is None else round(duty.period_s * NS_PER_S)
        self._set_generation(self._generation + 1)  # odd: readers wait
        block = _LAYOUT.pack(_MAGIC, _VERSION, self._generation, mode, 0, on_ns, period_ns, time.time_ns())
        rest = _GENERATION_OFFSET + _GENERATION.size
        self._memory[rest:] = block[rest:]
        self._set_generation(self._generation + 1)
        self.mode, self.duty = mode, duty

    def _set_generation(self, generation: int) -> None:
        self._generation = generation
        _GENERATION.pack_into(self._memory, _GENERATION_OFFSET, generation)

    def close(self) -> None:
        """Unmap it. What it says last stays valid for those who map it."""
        self._memory.close()
