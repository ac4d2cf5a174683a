"""Stamps of the requests in a vLLM scheduler."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from qmeter_native.capture.engine_recorder import EngineRecorder, EngineRequest
from qmeter_native.units import s_to_ns

__all__ = ["RequestLog"]

_CUT_OFF: Final = ("abort", "error")
"""vLLM's words for requests that did not get all of their output."""


@dataclass(slots=True)
class _Live:
    """A request that has not finished. ``request`` is vLLM's ``Request``."""

    request: Any
    number: int
    first_schedule_ns: int = 0
    first_token_ns: int = 0
    num_cached_tokens: int = 0


class RequestLog:
    """Follows requests from their arrival to their end and records each when it has ended.

    Args:
        recorder: Where they go.
    """

    def __init__(self, recorder: EngineRecorder) -> None:
        self._recorder = recorder
        self._live: dict[str, _Live] = {}
        self._without_token: dict[str, _Live] = {}
        recorder.at_close(self._cut_off)

    def arrived(self, request: Any) -> None:
        """A request was added; more input of one that is live already is no new request."""
        if request.request_id not in self._live:
            self._live[request.request_id] = _Live(request, self._recorder.number(request.request_id))

    def scheduled(self, output: Any) -> None:
        """A step was scheduled: vLLM's ``SchedulerOutput``."""
        now_ns = time.time_ns()
        for data in output.scheduled_new_reqs:
            live = self._live.get(data.req_id)
            if live is not None and live.first_schedule_ns == 0:
                live.first_schedule_ns = now_ns
                live.num_cached_tokens = data.num_computed_tokens
                self._without_token[data.req_id] = live
        for name in output.preempted_req_ids or ():
            live = self._live.get(name)
            if live is not None:
                self._recorder.preemption(live.number, now_ns)

    def sampled(self, time_ns: int, finished: Iterable[str]) -> None:
        """A step's output, which reached the scheduler at ``time_ns``, was processed.

        Args:
            time_ns: When.
            finished: Ids of requests that have finished, now or before.
        """
        for name, live in list(self._without_token.items()):
            if live.request.num_output_tokens > 0:
                live.first_token_ns = time_ns
                del self._without_token[name]
        self.finished(time_ns, finished)

    def finished(self, time_ns: int, names: Iterable[str]) -> None:
        """These requests have finished, by ``time_ns`` at the latest; those that were recorded are passed over."""
        for name in names:
            live = self._live.pop(name, None)
            if live is not None:
                self._without_token.pop(name, None)
                self._write(live, time_ns, live.request.get_finished_reason())

    def _cut_off(self) -> None:
        """The scheduler ends: what is live will not finish."""
        for live in self._live.values():
            self._write(live, 0, None)
        self._live.clear()
        self._without_token.clear()

    def _write(self, live: _Live, finish_ns: int, reason: Any) -> None:
        request, words = live.request, "" if reason is None else str(reason)
        self._recorder.request(
            EngineRequest(
                request=live.number,
                arrival_ns=s_to_ns(request.arrival_time),
                first_schedule_ns=live.first_schedule_ns,
                first_token_ns=live.first_token_ns,
                finish_ns=finish_ns,
                num_prompt_tokens=request.num_prompt_tokens,
                num_cached_tokens=live.num_cached_tokens,
                num_output_tokens=request.num_output_tokens,
                is_finished=bool(words) and words not in _CUT_OFF,
                reason=words,
            )
        )
