"""Timing on a GPU by CUDA graphs of N and 2N calls, in bursts of equal length in random order, with rests between."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any, Final

from qmeter_native.benchmark.timer import Launch, Timing, call_seconds, num_launches
from qmeter_native.calibration.microbenchmark import SmClock

__all__ = ["GraphTimer"]

_CLOCK_PERIOD_S: Final = 0.001
_WARM_UP: Final = 3
"""First calls: they compile, choose algorithms, and load modules."""
_PILOT_CALLS: Final = 5


@dataclass(slots=True)
class _Graphs:
    """Captured calls of one kernel, and what was found of them so far."""

    once: Any
    twice: Any
    num_calls: int
    seconds: list[float] = field(default_factory=list)
    clocks: list[float] = field(default_factory=list)
    reason: str | None = None


class GraphTimer:
    """A `timer.Timer` of one GPU.

    Args:
        ordinal: CUDA's number of the GPU.
        clock: Reads its SM clock.
        burst_s: Of each kernel, the same for all, so that all meet the same clocks and temperature.
        rest_share: Rest after a burst over its length: a power limit takes some 100 ms of load to be felt.
        seed: Of the order of bursts.
    """

    def __init__(self, ordinal: int, clock: SmClock, burst_s: float, rest_share: float, seed: int) -> None:
        self._ordinal = ordinal
        self._clock = clock
        self._burst_s = burst_s
        self._rest_share = rest_share
        self._random = random.Random(seed)

    def time(self, launches: Mapping[str, Sequence[Launch]], num_repeats: int) -> dict[str, Timing]:
        """See `timer.Timer`."""
        import torch

        timings, graphs = {}, {}
        with torch.cuda.device(self._ordinal):
            for name, copies in launches.items():
                try:
                    graphs[name] = self._graphs(copies)
                except Exception as error:  # a kernel raises what it likes, and the others are to be timed
                    timings[name] = Timing((), reason=_first_line(error))
            for _ in range(num_repeats):
                for name in self._random.sample(list(graphs), len(graphs)):
                    self._burst(graphs[name])
        return timings | {name: _timing(one) for name, one in graphs.items()}

    def _graphs(self, copies: Sequence[Launch]) -> _Graphs:
        import torch

        for launch in islice(cycle(copies), _WARM_UP):
            launch()
        torch.cuda.synchronize()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for launch in islice(cycle(copies), _PILOT_CALLS):
            launch()
        end.record()
        end.synchronize()
        count = num_launches(begin.elapsed_time(end) / 1e3 / _PILOT_CALLS, len(copies), self._burst_s)
        graphs = _Graphs(_captured(copies, count), _captured(copies, 2 * count), count)
        self._fit(graphs, copies)
        return graphs

    def _fit(self, graphs: _Graphs, copies: Sequence[Launch]) -> None:
        """Capture again if the pilot misjudged the calls: outside of a graph short ones wait for the host."""
        graphs.once.replay()
        call_s = _elapsed(graphs.once)[0] / graphs.num_calls
        count = num_launches(call_s, len(copies), self._burst_s)
        if count > 1.25 * graphs.num_calls or count < 0.8 * graphs.num_calls:
            graphs.once, graphs.twice, graphs.num_calls = _captured(copies, count), _captured(copies, 2 * count), count

    def _burst(self, graphs: _Graphs) -> None:
        if graphs.reason is not None:
            return
        started_s = time.perf_counter()
        try:
            graphs.once.replay()
            once_s, _ = _elapsed(graphs.once, self._clock)
            twice_s, clocks = _elapsed(graphs.twice, self._clock)
        except RuntimeError as error:
            graphs.reason = _first_line(error)
            return
        seconds = call_seconds(once_s, twice_s, graphs.num_calls)
        if seconds is not None:
            graphs.seconds.append(seconds)
        graphs.clocks += clocks
        time.sleep(self._rest_share * (time.perf_counter() - started_s))


def _timing(graphs: _Graphs) -> Timing:
    if graphs.reason is not None or not graphs.seconds:
        return Timing((), reason=graphs.reason or "twice as many calls took no longer")
    return Timing(tuple(graphs.seconds), statistics.median(graphs.clocks) if graphs.clocks else None)


def _captured(copies: Sequence[Launch], count: int) -> Any:
    import torch

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads go on
        for launch in islice(cycle(copies), count):
            launch()
    return graph


def _elapsed(graph: Any, clock: SmClock | None = None) -> tuple[float, list[float]]:
    """Seconds of a replay, and SM clocks read meanwhile."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    readings = []
    while not end.query():
        mhz = None if clock is None else clock.mhz()
        if mhz is not None:
            readings.append(mhz)
        time.sleep(_CLOCK_PERIOD_S)
    return float(begin.elapsed_time(end)) / 1e3, readings


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
