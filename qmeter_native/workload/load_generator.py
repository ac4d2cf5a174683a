"""Drives an engine with a workload, as its clients: sends on schedule, stamps what arrives."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np

from qmeter_native.engines.protocol import Engine, TokenChunk
from qmeter_native.errors import EngineError
from qmeter_native.model.tables import OutputTokenTable, RequestTable
from qmeter_native.units import ns_to_s
from qmeter_native.workload.prompts import prompts_of
from qmeter_native.workload.workload import Workload

__all__ = ["LoadResult", "Progress", "run_workload", "warm_up"]

_WARMUP_OUTPUT_LEN = 8
_POLL_S = 0.05  # how long a stop event can go unnoticed


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: requests sent and finished (of ``num_requests``) and output tokens received."""

    num_requests: int
    num_sent: int
    num_finished: int
    num_output_tokens: int


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the clients saw.

    Attributes:
        requests: One row a request that was sent, by number. ``send_ns`` is when it was due, not when the generator
            got to it, so that a late generator does not hide waiting time; the lag is in ``description``.
        output_tokens: One row a chunk, by request and time.
        description: Plain JSON: the workload, the lags of the load generator, and what was left undone.
        failure: Why the engine stopped, or failed its first failed request; None if it did neither.
    """

    requests: RequestTable
    output_tokens: OutputTokenTable
    description: dict[str, Any]
    failure: str | None


@dataclass(slots=True)
class _Client:
    """One request while it runs. ``chunks`` are ``[time, tokens]``."""

    name: str
    send_ns: int
    lag_ns: int
    num_prompt_tokens: int
    chunks: list[list[int]] = field(default_factory=list)
    is_finished: bool = False
    error: str = ""

    @property
    def is_over(self) -> bool:
        return self.is_finished or bool(self.error)

    @property
    def num_tokens(self) -> int:
        return sum(tokens for _, tokens in self.chunks)

    def settle(self, total_tokens: int) -> None:
        """Count with the last chunk what is missing from the engine's total, since nobody knows where it came."""
        if self.chunks:
            self.chunks[-1][1] = max(0, self.chunks[-1][1] + total_tokens - self.num_tokens)


def warm_up(engine: Engine, workload: Workload, stop: Event | None = None) -> None:
    """Answer ``workload.num_warmup`` requests whose steps are not reported (their numbers are negative).

    When ``stop`` is set the rest is given up.

    Raises:
        EngineError: The engine failed on one of them.
    """
    pending = set()
    prompts = prompts_of(workload, engine.vocabulary, workload.num_requests + workload.num_warmup)
    for position, prompt in enumerate(prompts[workload.num_requests :]):
        request = -1 - position
        engine.submit(request, prompt, min(workload.output_len, _WARMUP_OUTPUT_LEN))
        pending.add(request)
    while pending:
        if stop is not None and stop.is_set():
            for request in pending:
                engine.cancel(request)
            return
        chunk = engine.receive(_POLL_S)
        if chunk is not None and chunk.is_finished:
            if chunk.error:
                raise EngineError(f"the engine failed on a warm-up request: {chunk.error}")
            pending.discard(chunk.request)


def run_workload(
    engine: Engine,
    workload: Workload,
    *,
    stop: Event | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> LoadResult:
    """Send every request when it is due and receive until all are answered, ``stop`` is set or the engine fails.

    Args:
        engine: What to drive.
        workload: What to send.
        stop: When set, the rest is given up and what has been received is returned. Ctrl-C does the same.
        progress: Called after every chunk, and at least every 50 ms.
    """
    return _Run(engine, workload, stop or Event(), progress or (lambda _: None)).run()


class _Run:
    def __init__(self, engine: Engine, workload: Workload, stop: Event, progress: Callable[[Progress], None]) -> None:
        self._engine = engine
        self._workload = workload
        self._stop = stop
        self._progress = progress
        self._clients: list[_Client] = []
        self._num_over = 0  # finished or failed
        self._num_finished = 0
        self._num_tokens = 0

    def run(self) -> LoadResult:
        prompts = prompts_of(self._workload, self._engine.vocabulary, self._workload.num_requests)
        offsets_ns = self._workload.arrival_offsets_ns()
        self._engine.prepare(int(np.count_nonzero(offsets_ns == 0)))
        due_ns = time.time_ns() + offsets_ns
        failure = None
        try:
            while self._num_over < len(prompts) and not self._stop.is_set():
                while len(self._clients) < len(prompts) and time.time_ns() >= due_ns[len(self._clients)]:
                    self._send(prompts[len(self._clients)], int(due_ns[len(self._clients)]))
                chunk = self._engine.receive(self._wait_s(due_ns))
                if chunk is not None:
                    self._receive(chunk)
                self._report()
        except EngineError as error:
            failure = error.what
        except KeyboardInterrupt:
            self._stop.set()
        failure = failure or next((client.error for client in self._clients if client.error), None)
        for request, client in enumerate(self._clients):
            if not client.is_over:
                client.error = "interrupted" if self._stop.is_set() else f"given up: {failure}"
                self._engine.cancel(request)
        return self._result(failure)

    def _send(self, prompt: list[int], due_ns: int) -> None:
        lag_ns = time.time_ns() - due_ns
        request = len(self._clients)
        name = self._engine.submit(request, prompt, self._workload.output_len)
        self._clients.append(_Client(name, due_ns, lag_ns, len(prompt)))

    def _wait_s(self, due_ns: Any) -> float:
        if len(self._clients) == len(due_ns):
            return _POLL_S
        return float(min(_POLL_S, max(0.0, ns_to_s(int(due_ns[len(self._clients)]) - time.time_ns()))))

    def _receive(self, chunk: TokenChunk) -> None:
        client = self._clients[chunk.request]
        if chunk.num_tokens:
            client.chunks.append([chunk.time_ns, chunk.num_tokens])
            self._num_tokens += chunk.num_tokens
        if chunk.is_finished:
            if chunk.total_tokens is not None:
                self._num_tokens += chunk.total_tokens - client.num_tokens
                client.settle(chunk.total_tokens)
            client.is_finished, client.error = not chunk.error, chunk.error
            self._num_over += 1
            self._num_finished += client.is_finished

    def _report(self) -> None:
        sent, finished = len(self._clients), self._num_finished
        self._progress(Progress(self._workload.num_requests, sent, finished, self._num_tokens))

    def _result(self, failure: str | None) -> LoadResult:
        lags_s = [ns_to_s(client.lag_ns) for client in self._clients]
        description = {
            **self._workload.describe(),
            "num_sent": len(self._clients),
            "num_finished": self._num_finished,
            "is_interrupted": self._stop.is_set(),
            "schedule_lag_mean_s": float(np.mean(lags_s)) if lags_s else None,
            "schedule_lag_p99_s": float(np.percentile(lags_s, 99)) if lags_s else None,
            "schedule_lag_max_s": max(lags_s, default=None),
            **self._engine.take_lag(),
            "prompts": "held-out source" if self._engine.vocabulary.is_bytes else "random ids",
        }
        return LoadResult(self._request_table(), self._output_token_table(), description, failure)

    def _request_table(self) -> RequestTable:
        clients = self._clients
        return RequestTable.from_columns(
            request=range(len(clients)),
            name=[client.name for client in clients],
            send_ns=[client.send_ns for client in clients],
            first_token_ns=[client.chunks[0][0] if client.chunks else 0 for client in clients],
            last_token_ns=[client.chunks[-1][0] if client.chunks else 0 for client in clients],
            num_prompt_tokens=[client.num_prompt_tokens for client in clients],
            num_output_tokens=[client.num_tokens for client in clients],
            is_finished=[client.is_finished for client in clients],
            error=[client.error for client in clients],
        )

    def _output_token_table(self) -> OutputTokenTable:
        rows = [(request, *chunk) for request, client in enumerate(self._clients) for chunk in client.chunks]
        columns = np.array(rows, np.int64).reshape(-1, 3)
        return OutputTokenTable.from_columns(request=columns[:, 0], time_ns=columns[:, 1], num_tokens=columns[:, 2])
