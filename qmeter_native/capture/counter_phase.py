"""A phase of a run in which hardware counters are sampled, on a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any, Final

from qmeter_native.capture.counter_sampler import CounterOptions, CounterSampler
from qmeter_native.errors import QmeterError
from qmeter_native.model.manifest import DeviceInfo, Validity

__all__ = ["CounterPhase", "CounterResult"]

_NO_TIME_S: Final = 0.01
"""Phases that end by so much before they should have been cut by nobody."""


@dataclass(slots=True)
class CounterResult:
    """How sampling went: what `Manifest.counters` holds of the device, and what limits it."""

    summary: dict[str, Any]
    notes: list[Validity] = field(default_factory=list)


class CounterPhase:
    """One GPU's phase. Whatever goes wrong is in the result: the run that is measured goes on.

    Args:
        enable: Opens the session of PM sampling, on the phase's thread.
        device: The GPU.
        options: When.
    """

    def __init__(self, enable: Callable[[], CounterSampler], device: DeviceInfo, options: CounterOptions) -> None:
        self._enable = enable
        self._subject = f"device {device.index}"
        self._options = options
        self._is_ending = Event()
        self._result = CounterResult({"absent_reason": "the measured window never began"})
        self._thread: Thread | None = None

    def begin(self) -> None:
        """The measured window begins now. Only the first call counts."""
        if self._thread is None and not self._is_ending.is_set():
            self._thread = Thread(target=self._run, name="qmeter-counters", daemon=True)
            self._thread.start()

    def ask_to_end(self) -> None:
        """The measured window ends: no more is sampled. Returns at once."""
        self._is_ending.set()

    def end(self) -> CounterResult:
        """Wait until what was sampled is decoded and the session is disabled. Idempotent."""
        self.ask_to_end()
        if self._thread is not None:
            self._thread.join()
        return self._result

    def _run(self) -> None:
        try:
            if not self._options.is_continuous and self._is_ending.wait(self._options.after_s):
                self._set_absent(
                    f"the measured window was over before its counter phase began, {self._options.after_s:g} s after "
                    "its start",
                    "Give the phase an earlier start, or the run more to do.",
                )
            else:
                self._sample(self._enable())
        except QmeterError as error:
            self._set_absent(error.what, error.hint)
        except Exception as error:  # on a thread nobody would hear of it
            self._set_absent(f"{type(error).__name__}: {error}", None)

    def _sample(self, sampler: CounterSampler) -> None:
        start_s = time.monotonic()
        try:
            sampler.start()
            self._is_ending.wait(None if self._options.is_continuous else self._options.seconds)
            sampled_s = time.monotonic() - start_s
            sampler.stop()
        finally:
            sampler.close()
        self._result = CounterResult(sampler.summary())
        if not self._options.is_continuous and sampled_s < self._options.seconds - _NO_TIME_S:
            self._note(
                "counters_cut",
                f"The measured window ended {sampled_s:.1f} s into its counter phase of {self._options.seconds:g} s.",
            )
        self._note_losses(self._result.summary)

    def _note_losses(self, summary: dict[str, Any]) -> None:
        if summary["error"]:
            self._note("counters_incomplete", f"Sampling of hardware counters failed in mid-phase: {summary['error']}")
        if not summary["samples"]:
            self._note("counters_absent", "No sample of hardware counters could be decoded.")
        elif summary["lost_samples"]:
            total = summary["samples"] + summary["lost_samples"]
            self._note(
                "counters_incomplete", f"Of {total} samples of hardware counters {summary['lost_samples']} were lost."
            )

    def _set_absent(self, reason: str, hint: str | None) -> None:
        self._result = CounterResult({"absent_reason": reason})
        self._note("counters_absent", f"No hardware counters were sampled: {reason}." + (f" {hint}" if hint else ""))

    def _note(self, code: str, message: str) -> None:
        self._result.notes.append(Validity(code, message, self._subject))
