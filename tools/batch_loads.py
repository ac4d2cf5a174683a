"""Several batch sizes for one server, one after another, each with a counter phase of its own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Event, Thread
from typing import Any

import numpy as np

from qmeter_native.capture.counter_sampler import CounterOptions
from qmeter_native.capture.driving import RunStatus
from qmeter_native.capture.request_recorder import record_requests
from qmeter_native.capture.server_load import ServerLoad
from qmeter_native.capture.session import Session
from qmeter_native.engines.protocol import Engine, TokenChunk
from qmeter_native.errors import EngineError, QmeterError
from qmeter_native.model.tables import OutputTokenTable, RequestTable
from qmeter_native.workload.load_generator import LoadResult, run_workload, warm_up
from qmeter_native.workload.workload import Workload

__all__ = ["BatchLoads", "batch_range"]

_COUNTERS_AFTER_S = 3.0
_COUNTERS_S = 3.0
_REST_S = 1.5
"""Between batches: the sensor averages over 0.1 s, clocks settle in about a second."""


def batch_range(batch: int) -> str:
    """Name of the range in which a batch size is served."""
    return f"batch:{batch}"


@dataclass(frozen=True, slots=True)
class BatchLoads(ServerLoad):
    """Rounds of ``batch`` requests at once for at least ``seconds``, for each batch size, in ranges `batch_range`.

    Attributes:
        batches: Batch sizes, in order.
        seconds: Of each.
        has_counters: Whether each has a counter phase.
    """

    batches: Sequence[int] = (8, 32, 128)
    seconds: float = 15.0
    has_counters: bool = True

    def give(
        self, session: Session, engine: Engine, *, idle_s: float, stop: Event, observe: Callable[[RunStatus], None]
    ) -> None:
        """Serve all batches; the measured window is from the first's beginning to the last's end."""
        warm_up(engine, replace(self.workload, num_warmup=max(self.batches)), stop)
        if idle_s > 0:
            session.measure_idle(idle_s, stop.wait)
        session.begin()
        numbers = _Numbers()
        for batch in self.batches:
            print(f"batch {batch} …", file=sys.stderr, flush=True)
            phase = Thread(target=_count, args=(session,), name="counters") if self.has_counters else None
            with session.range(batch_range(batch)):
                if phase is not None:
                    phase.start()
                self._serve(session, engine, replace(self.workload, num_requests=batch), numbers, stop)
            if phase is not None:
                phase.join()
            stop.wait(_REST_S)
        session.end()

    def _serve(self, session: Session, engine: Engine, workload: Workload, numbers: _Numbers, stop: Event) -> None:
        end_s, seed = time.monotonic() + self.seconds, workload.seed
        while time.monotonic() < end_s and not stop.is_set():
            seed += 1
            result = run_workload(numbers.of(engine), replace(workload, seed=seed), stop=stop)
            record_requests(session.spool, *numbers.recorded(result))
            if result.failure is not None:
                raise EngineError(f"the workload was not done: {result.failure}")


def _count(session: Session) -> None:
    """Sample counters for a while; what fails is told, and the load goes on."""
    time.sleep(_COUNTERS_AFTER_S)
    try:
        with session.counting(session.state.devices[0].index, CounterOptions()) as sampler:
            sampler.start()
            time.sleep(_COUNTERS_S)
            sampler.stop()
    except QmeterError as error:
        print(f"no counters: {error}", file=sys.stderr, flush=True)
        session.warn("counters_absent", error.what)


class _Numbers:
    """Gives the requests of each workload numbers after those of the workloads before."""

    def __init__(self) -> None:
        self._next = 0

    def of(self, engine: Engine) -> Engine:
        """The engine, whose requests from 0 become the next ones."""
        return _Renumbered(engine, self._next)

    def recorded(self, result: LoadResult) -> tuple[RequestTable, OutputTokenTable]:
        """A result's tables with these numbers, which are used up."""
        first, self._next = self._next, self._next + len(result.requests)
        requests = {spec.name: getattr(result.requests, spec.name) for spec in RequestTable.columns()}
        chunks = {spec.name: getattr(result.output_tokens, spec.name) for spec in OutputTokenTable.columns()}
        return (
            RequestTable.from_columns(**requests | {"request": np.asarray(requests["request"]) + first}),
            OutputTokenTable.from_columns(**chunks | {"request": np.asarray(chunks["request"]) + first}),
        )


class _Renumbered:
    """An engine whose requests have other numbers for the engine than for its user."""

    def __init__(self, engine: Engine, first: int) -> None:
        self._engine, self._first = engine, first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def submit(self, request: int, prompt: Sequence[int], num_output_tokens: int) -> str:
        """See `Engine.submit`."""
        return self._engine.submit(request + self._first, prompt, num_output_tokens)

    def receive(self, timeout_s: float) -> TokenChunk | None:
        """See `Engine.receive`."""
        chunk = self._engine.receive(timeout_s)
        return None if chunk is None else replace(chunk, request=chunk.request - self._first)

    def cancel(self, request: int) -> None:
        """See `Engine.cancel`."""
        self._engine.cancel(request + self._first)
