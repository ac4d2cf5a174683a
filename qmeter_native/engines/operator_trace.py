"""Kernels of a CPU: the working operators of torch.profiler's event tree, on every thread.

Operators call operators: ``aten::linear`` calls ``aten::mm``, which calls ``aten::resolve_conj`` and then multiplies
for itself. Neither all events (they overlap) nor the leaves (the product would be lost: it is ``aten::mm``'s own time)
are what the CPU worked on. The rule: an operator counts, with all of its time, if at least half of it is its own;
otherwise those that it called are looked at instead. Operators that count never overlap on one thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.errors import MissingExtraError

__all__ = ["OperatorBatch", "OperatorTrace", "working_operators"]

_MAX_EVENTS = 250_000  # kept inside the profiler before it is cycled; an event takes about 1.7 kB there
_FIRST_CYCLE_STEPS = 64


@dataclass(frozen=True, slots=True)
class OperatorBatch:
    """Working operators in order of ``start_ns``, one array entry each.

    Attributes:
        names: Dictionary of operator names (``aten::addmm``).
        name: Position in ``names`` (int32).
        start_ns: CLOCK_REALTIME (int64).
        end_ns: CLOCK_REALTIME, at or after ``start_ns`` (int64).
        thread: The profiler's number of the thread (uint32).
    """

    names: tuple[str, ...]
    name: NDArray[np.int32]
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    thread: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.name)


class OperatorTrace:
    """Constructed = profiling. Give `before_step` to the engine, so that memory stays bounded in a long run.

    The profiler is stopped, read and started again between two steps when about 250 000 events are in it. The engine
    waits meanwhile (about 10 µs an event); `pause_ns` says how long in all. Nothing that runs between steps is lost.

    Args:
        receive: Called with each batch of operators, on the thread that calls `before_step` or `close`.
        max_events: Events, working or not, after which the profiler is cycled.

    Raises:
        MissingExtraError: torch is not installed.
    """

    def __init__(self, receive: Callable[[OperatorBatch], None], max_events: int = _MAX_EVENTS) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else libkineto announces each start and stop on stderr
        self._receive = receive
        self._max_events = max_events
        self._steps_left = _FIRST_CYCLE_STEPS
        self._num_steps = 0
        self.num_events = 0
        self.num_operators = 0
        self.pause_ns = 0
        self._profiler: Any = _start_profiler()

    def before_step(self) -> None:
        """To be called between steps; hands over what there is when enough has been collected."""
        self._num_steps += 1
        self._steps_left -= 1
        if self._steps_left > 0:
            return
        begin_ns = time.monotonic_ns()
        self._hand_over()
        self._profiler = _start_profiler()
        self.pause_ns += time.monotonic_ns() - begin_ns
        events_per_step = max(1.0, self.num_events / self._num_steps)
        self._steps_left = max(1, int(self._max_events / events_per_step))

    def close(self) -> None:
        """Stop profiling and hand over the rest. Idempotent."""
        if self._profiler is not None:
            self._hand_over()

    def _hand_over(self) -> None:
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        events = profiler.profiler.kineto_results.events()
        batch = _operators_of(events)
        self.num_events += len(events)
        self.num_operators += len(batch)
        self._receive(batch)


def working_operators(
    start_ns: NDArray[np.int64], end_ns: NDArray[np.int64], thread: NDArray[Any]
) -> NDArray[np.int64]:
    """Positions of the events that count, in order of thread and time.

    Args:
        start_ns: Starts. Events of one thread are nested or apart, as calls are.
        end_ns: Ends.
        thread: Thread of each event.
    """
    order = np.lexsort((-end_ns, start_ns, thread))
    events = list(zip(start_ns[order].tolist(), end_ns[order].tolist(), thread[order].tolist(), strict=True))
    own_ns = [end - start for start, end, _ in events]
    callers: list[int] = []
    for number, (start, end, of_thread) in enumerate(events):
        while callers and (events[callers[-1]][2] != of_thread or events[callers[-1]][1] < end):
            callers.pop()
        if callers:
            own_ns[callers[-1]] -= end - start
        callers.append(number)
    counting = []
    counted: tuple[int, int] | None = None  # thread and end of the last operator that counts
    for number, (start, end, of_thread) in enumerate(events):
        is_inside = counted is not None and counted[0] == of_thread and end <= counted[1]
        if not is_inside and 2 * own_ns[number] >= end - start:
            counting.append(number)
            counted = (of_thread, end)
    return np.asarray(order[counting], np.int64)


def _start_profiler() -> Any:
    try:
        from torch.profiler import ProfilerActivity, _ExperimentalConfig, profile
    except ImportError as error:
        raise MissingExtraError(
            "the kernels of a CPU are traced by torch, which is not installed", "pip install 'qmeter-native[engine]'"
        ) from error
    profiler = profile(
        activities=[ProfilerActivity.CPU], experimental_config=_ExperimentalConfig(profile_all_threads=True)
    )
    profiler.start()
    return profiler


def _operators_of(events: list[Any]) -> OperatorBatch:
    """The working operators among the profiler's events; annotations (`record_function`) are no operators."""
    operators = [event for event in events if not event.is_user_annotation()]
    start_ns = np.array([event.start_ns() for event in operators], np.int64)
    end_ns = start_ns + np.array([event.duration_ns() for event in operators], np.int64)
    thread = np.array([event.start_thread_id() for event in operators], np.uint32)
    rows = working_operators(start_ns, end_ns, thread)
    rows = rows[np.argsort(start_ns[rows], kind="stable")]
    numbers: dict[str, int] = {}
    name = np.array([numbers.setdefault(operators[row].name(), len(numbers)) for row in rows], np.int32)
    return OperatorBatch(tuple(numbers), name, start_ns[rows], end_ns[rows], thread[rows])
