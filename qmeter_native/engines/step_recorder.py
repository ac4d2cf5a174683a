"""Records the steps of transformers' continuous batching.

The seam is two methods of the batch processor's parts, wrapped on the instances: ``scheduler.schedule_batch``, which
returns what the next step computes, and ``inputs_and_outputs.retrieve_device_outputs``, which is called when all of a
step's kernels have been launched and which waits for them unless batching is asynchronous.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qmeter_native.engines.step_sink import EngineStep, StepRequest, StepSink
from qmeter_native.errors import EngineError
from qmeter_native.model.phase import Phase

__all__ = ["StepRecorder"]


@dataclass(frozen=True, slots=True)
class _OpenStep:
    start_ns: int
    requests: tuple[StepRequest, ...]


class StepRecorder:
    """Reports each step of one batch processor to a sink, on the generation thread.

    A step that holds a request with a negative number (warm-up) is not reported and launches no marker.

    Args:
        processor: transformers' ``ContinuousBatchProcessor``.
        sink: Where steps go.
        request_number: The number behind an engine's request id.
        before_step: Called between steps, before the next batch is asked for.

    Raises:
        EngineError: This version of transformers lacks a method of the seam.
    """

    def __init__(
        self,
        processor: Any,
        sink: StepSink,
        request_number: Callable[[str], int],
        before_step: Callable[[], None] | None = None,
    ) -> None:
        self._sink = sink
        self._request_number = request_number
        self._before_step = before_step
        self._num_steps = 0
        self._open: _OpenStep | None = None
        self._context_lens: dict[str, int] = {}  # of each request after its last step
        self._schedule = _method(processor, "scheduler", "schedule_batch")
        self._retrieve = _method(processor, "inputs_and_outputs", "retrieve_device_outputs")
        self._stream: int | None = None
        if sink.marker is not None:
            self._stream = _method(processor, "inputs_and_outputs", "compute_stream").cuda_stream
        processor.scheduler.schedule_batch = self._schedule_batch
        processor.inputs_and_outputs.retrieve_device_outputs = self._retrieve_device_outputs

    def _schedule_batch(self, *args: Any, **kwargs: Any) -> Any:
        if self._before_step is not None:
            self._before_step()
        start_ns = time.time_ns()
        scheduled = self._schedule(*args, **kwargs)
        requests = tuple(self._request_row(future) for future in scheduled[0] or ())
        if requests and all(row.request >= 0 for row in requests):
            self._open = _OpenStep(start_ns, requests)
            self._mark(2 * self._num_steps)
        return scheduled

    def _retrieve_device_outputs(self) -> None:
        step, self._open = self._open, None
        if step is None:
            self._retrieve()
            return
        self._mark(2 * self._num_steps + 1)
        self._retrieve()
        num_markers = 0 if self._stream is None else 2
        self._sink.step(EngineStep(self._num_steps, step.start_ns, time.time_ns(), num_markers, step.requests))
        self._num_steps += 1

    def _mark(self, sequence: int) -> None:
        if self._sink.marker is not None and self._stream is not None:
            self._sink.marker(self._stream, sequence)

    def _request_row(self, future: Any) -> StepRequest:
        """What the scheduler decided for one request; ``position_offset`` is its length in the KV cache before."""
        state, context_len = future.state, future.state.position_offset
        computed = self._context_lens.get(state.request_id, 0)
        if context_len < computed:  # preempted: its blocks were dropped, and it is computed anew
            computed = 0
        self._context_lens[state.request_id] = context_len + future.query_length
        return StepRequest(
            request=self._request_number(state.request_id),
            phase=Phase.PREFILL if context_len < len(state.initial_tokens) else Phase.DECODE,
            num_scheduled=future.query_length,
            num_cached=context_len - computed,
            num_draft=0,
            num_sampled=int(future.has_new_token),
            context_len=context_len,
        )


def _method(processor: Any, part: str, name: str) -> Any:
    """The attribute ``name`` of a part of the batch processor."""
    found = getattr(getattr(processor, part, None), name, None)
    if found is None:
        import transformers

        raise EngineError(
            f"transformers {transformers.__version__} has no {part}.{name} in its continuous batching",
            "Use a version from 5.17 to 5.23, with which this engine was tested.",
        )
    return found
