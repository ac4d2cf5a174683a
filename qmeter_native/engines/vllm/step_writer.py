"""The steps of one vLLM worker, from the two calls that make a step: ``execute_model`` and ``sample_tokens``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from qmeter_native.capture.engine_recorder import EngineRecorder
from qmeter_native.engines.vllm.batch_rows import BatchRows

__all__ = ["StepWriter"]

_UNKNOWN: Final = -1


@dataclass(slots=True)
class _OpenStep:
    step: int
    start_ns: int
    stream: int
    output: Any
    num_padded: int = _UNKNOWN


class StepWriter:
    """Marks a worker's steps on its stream and records them.

    A worker runs the calls of its steps one after the other, however far the scheduler is ahead and however long the
    device takes: at most one step is open. What a step's record needs is computed when all of its kernels have been
    launched, while the device is busy with them.

    Args:
        recorder: Where steps go.
        device: CUDA ordinal of the worker's device.
        stream: The ``CUstream`` handle that the worker launches on now.
        has_preemptions: Record preemptions too; False if the scheduler does.
    """

    def __init__(
        self, recorder: EngineRecorder, device: int, stream: Callable[[], int], *, has_preemptions: bool
    ) -> None:
        self._recorder = recorder
        self._device = device
        self._stream = stream
        self._has_preemptions = has_preemptions
        self._batch = BatchRows(recorder.number)
        self._open: _OpenStep | None = None

    def begin(self, output: Any) -> None:
        """``execute_model`` was called with vLLM's ``SchedulerOutput``; without tokens it is no step."""
        if self._open is not None:  # it failed, or it was sampled by a call that nobody made
            self.end()
        start_ns = time.time_ns()
        self._batch.forget(output.finished_req_ids)
        if self._has_preemptions:
            for name in output.preempted_req_ids or ():
                self._recorder.preemption(self._batch.number_of(name), start_ns)
        if output.total_num_scheduled_tokens == 0:
            return
        is_marked = self._recorder.marker is not None
        step = _OpenStep(self._recorder.next_step(), start_ns, self._stream() if is_marked else 0, output)
        self._mark(step, 0)
        self._open = step

    def launched(self, num_padded: int | None) -> None:
        """``execute_model`` has returned, and sampling follows. ``num_padded`` is None if vLLM did not say it."""
        if self._open is not None and num_padded is not None:
            self._open.num_padded = num_padded

    def end(self) -> None:
        """All of the step's kernels have been launched."""
        step, self._open = self._open, None
        if step is None:
            return
        self._mark(step, 1)
        end_ns = time.time_ns()
        marker = self._recorder.marker
        self._recorder.step(
            step.step,
            step.start_ns,
            end_ns,
            device=self._device,
            num_markers=0 if marker is None or marker.failure is not None else 2,
            num_padded=step.num_padded,
            rows=self._batch.read(step.step, step.output),
        )

    def _mark(self, step: _OpenStep, edge: int) -> None:
        if self._recorder.marker is not None:
            self._recorder.marker(step.stream, 2 * step.step + edge)
