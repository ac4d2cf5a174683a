"""Where an engine reports its steps. Implemented by `qmeter_native.capture` over the spool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from qmeter_native.model.phase import Phase

__all__ = ["EngineStep", "StepRequest", "StepSink"]


class StepRequest(NamedTuple):
    """What the scheduler gave one request in one step: a row of `StepRequestTable` without its step and process."""

    request: int
    phase: Phase
    num_scheduled: int
    num_cached: int
    num_draft: int
    num_sampled: int
    context_len: int


@dataclass(frozen=True, slots=True)
class EngineStep:
    """One forward pass of the engine. Times are nanoseconds of CLOCK_REALTIME.

    Attributes:
        step: Number, from 0, increasing by 1.
        start_ns: The scheduler was asked for the batch.
        end_ns: The call that ran it has returned; with synchronous batching the tokens are on the host then, and no
            client has received them yet.
        num_markers: Marker kernels launched, 0 or 2: numbers ``2 * step`` and ``2 * step + 1``.
        requests: One entry a request in the batch.
        num_padded: Tokens that the device computes, padding to a CUDA graph's size included; -1 = unknown.
    """

    step: int
    start_ns: int
    end_ns: int
    num_markers: int
    requests: tuple[StepRequest, ...]
    num_padded: int = -1


class StepSink(Protocol):
    """Receives the steps of one engine, on the engine's generation thread. Neither call may raise or wait.

    Attributes:
        marker: Launches a marker kernel: ``marker(stream, sequence)``, ``stream`` being a ``CUstream`` handle.
            None where steps need no markers (CPU).
    """

    @property
    def marker(self) -> Callable[[int, int], None] | None:
        """See the class."""

    def step(self, step: EngineStep) -> None:
        """A step has ended."""
