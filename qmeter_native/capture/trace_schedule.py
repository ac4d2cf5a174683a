"""When kernels of a launched command are recorded: from the start, later, for a while, in a duty cycle, on demand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import RLock

from qmeter_native.capture.control import ControlBlock, DutyCycle, TraceMode
from qmeter_native.errors import UsageError

__all__ = ["TraceSchedule", "TraceTimes"]


@dataclass(frozen=True, slots=True)
class TraceTimes:
    """When to record.

    Attributes:
        start_after_s: Seconds after the command's start; None: when told to (control socket or signal).
        duration_s: Seconds of tracing after which it stops for good, unless it is told to go on; None: no limit.
        duty: Record only a part of each period.
    """

    start_after_s: float | None = 0.0
    duration_s: float | None = None
    duty: DutyCycle | None = None

    def __post_init__(self) -> None:
        is_sound = (self.start_after_s or 0) >= 0 and (self.duration_s is None or self.duration_s > 0)  # NaN is neither
        if not is_sound:
            raise UsageError(
                "tracing cannot begin before the command or end before it begins", "Give positive seconds."
            )


class TraceSchedule:
    """Switches the control block by the clock (`tick`) and by command. Methods may be called from any thread."""

    def __init__(self, control: ControlBlock, times: TraceTimes) -> None:
        self._control = control
        self._times = times
        self._lock = RLock()
        self._created_s = time.monotonic()
        self._due_s = None if times.start_after_s is None else self._created_s + times.start_after_s
        self._end_s: float | None = None
        self.tick()

    @property
    def mode(self) -> TraceMode:
        """What the traced processes are told."""
        return self._control.mode

    @property
    def duty(self) -> DutyCycle | None:
        """The duty cycle that goes on, None if none does."""
        return self._control.duty

    @property
    def elapsed_s(self) -> float:
        """Seconds since the command's start."""
        return time.monotonic() - self._created_s

    def tick(self) -> None:
        """Do what is due."""
        with self._lock:
            now_s = time.monotonic()
            if self._due_s is not None and now_s >= self._due_s:
                self.start()
            if self._end_s is not None and now_s >= self._end_s:
                self.stop()

    def start(self, duty: DutyCycle | None = None) -> None:
        """Record from now on, in ``duty`` or the duty cycle that was given at first."""
        with self._lock:
            self._due_s = None
            self._end_s = None if self._times.duration_s is None else time.monotonic() + self._times.duration_s
            cycle = duty or self._times.duty
            self._control.run() if cycle is None else self._control.cycle(cycle)

    def stop(self) -> None:
        """Record no more."""
        with self._lock:
            self._due_s = self._end_s = None
            self._control.stop()

    def toggle(self) -> None:
        """Stop if recording, else start."""
        with self._lock:
            self.start() if self._control.mode is TraceMode.STOPPED else self.stop()
