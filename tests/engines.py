"""A step sink that keeps what it gets, and an engine that answers from a script."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from qmeter_native.engines.protocol import TokenChunk, Vocabulary
from qmeter_native.engines.step_sink import EngineStep, StepRequest
from qmeter_native.errors import EngineError
from qmeter_native.model.manifest import EngineInfo


@dataclass
class KeepingSink:
    """Keeps every step."""

    steps: list[EngineStep] = field(default_factory=list)
    marker: Callable[[int, int], None] | None = None

    def step(self, step: EngineStep) -> None:
        self.steps.append(step)

    def rows_of(self, request: int) -> list[StepRequest]:
        """What one request was given, in order of steps."""
        return [row for step in self.steps for row in step.requests if row.request == request]


class ScriptedEngine:
    """Answers each request with one token per `receive`, in turn; can break after a number of tokens.

    ``total_tokens`` is what it says at the end of each request.
    """

    info = EngineInfo("scripted", "1", "none")

    def __init__(
        self, vocabulary: Vocabulary | None = None, breaks_after: int | None = None, total_tokens: int | None = None
    ) -> None:
        self.vocabulary = vocabulary or Vocabulary(100, frozenset({0, 1}))
        self.breaks_after = breaks_after
        self.total_tokens = total_tokens
        self.num_prepared = 0
        self.prompts: dict[int, list[int]] = {}
        self.cancelled: list[int] = []
        self.submitted_ns: list[int] = []
        self._pending: deque[tuple[int, int]] = deque()
        self._num_sent = 0

    def submit(self, request: int, prompt: Sequence[int], num_output_tokens: int) -> str:
        self.prompts[request] = list(prompt)
        self.submitted_ns.append(time.time_ns())
        self._pending.append((request, num_output_tokens))
        return f"scripted-{request}"

    def receive(self, timeout_s: float) -> TokenChunk | None:
        if self._num_sent == self.breaks_after:
            raise EngineError("the engine has stopped: out of script")
        if not self._pending:
            time.sleep(timeout_s)
            return None
        request, num_left = self._pending.popleft()
        if num_left > 1:
            self._pending.append((request, num_left - 1))
        self._num_sent += 1
        return TokenChunk(request, time.time_ns(), 1, num_left == 1, tokens=(7,), total_tokens=self.total_tokens)

    def cancel(self, request: int) -> None:
        self.cancelled.append(request)
        self._pending = deque(pair for pair in self._pending if pair[0] != request)

    def prepare(self, num_at_once: int) -> None:
        self.num_prepared = num_at_once

    def take_lag(self) -> dict[str, Any]:
        return {"write_lag_max_s": 0.25}

    def close(self) -> None:
        self._pending.clear()
