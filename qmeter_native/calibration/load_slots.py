"""Slots of load: CUDA graphs of a window's launches, replayed at the window's pace but never in step with a sensor.

Sensors sample power: an H200's energy counter every 20 ms, the mean of 31. A load that repeats every 20 ms is seen at
one phase only, and equal windows then differ by a third. So a paced slot is cut into pieces of some milliseconds that
run in random order, each before a gap of random length; on average launches and gaps are those of the plan.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qmeter_native.calibration.load_kernel import Launch

__all__ = ["LoadSlots"]

_NUM_ORDERS: Final = 3
"""Orders of a slot's launches: what runs before a kernel decides what it finds in L2."""
_PIECE_S: Final = 0.004
"""Of a paced slot with its gap: well below the 20 ms between two samples of a sensor, long against a replay's 10 us."""
_GAPS: Final = (0.5, 1.5)
"""Least and most of a gap over its mean."""
_MAX_AHEAD: Final = 2
"""Replays that wait on the GPU: one to run, one so that no gap opens."""
_SPIN_S: Final = 0.001
"""`time.sleep` may oversleep by some 0.1 ms."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a slot: its graph, how long the GPU is busy with it, and its mean gap; both 0 without pacing."""

    graph: Any
    busy_s: float = 0.0
    gap_s: float = 0.0


class LoadSlots:
    """The launches of one slot as CUDA graphs.

    Args:
        launches: By kind. Each must have been launched before: a graph cannot be captured of what compiles.
        counts: Launches a slot of each kind.
        slot_s: Mean time between two slots; 0 for no gap.
        seed: Of the launches' order and the gaps.

    Raises whatever torch raises at a capture.
    """

    def __init__(self, launches: Mapping[str, Launch], counts: Mapping[str, int], slot_s: float, seed: int) -> None:
        import torch

        self._slot_s = slot_s
        self._random = random.Random(seed)
        order = [launches[name] for name, count in counts.items() for _ in range(count)]
        num_pieces = min(len(order), max(1, round(slot_s / _PIECE_S)))
        self._slots = [self._cut(order, num_pieces) for _ in range(_NUM_ORDERS)]
        if slot_s > 0:
            self._slots = [_with_gaps(pieces, slot_s) for pieces in self._slots]
        self._left: list[_Piece] = []
        self._events: deque[Any] = deque(torch.cuda.Event(blocking=True) for _ in range(_MAX_AHEAD))
        self._deadline_s = time.perf_counter()
        self._num_begun = 0
        self._num_replays = 0

    @property
    def num_replays(self) -> int:
        """Slots begun so far."""
        return self._num_begun

    def run(self, seconds: float) -> float:
        """Replay for so long; the pace goes on from call to call. Returns: the seconds it took."""
        start_s = time.perf_counter()
        while time.perf_counter() - start_s < seconds:
            piece = self._next()
            self._wait(piece)
            self._replay(piece)
        return time.perf_counter() - start_s

    def _cut(self, order: list[Launch], num_pieces: int) -> list[_Piece]:
        """A slot in a random order, in pieces of about as many launches."""
        self._random.shuffle(order)
        cuts = [round(len(order) * number / num_pieces) for number in range(num_pieces + 1)]
        return [_Piece(_captured(order[first:last])) for first, last in itertools.pairwise(cuts)]

    def _next(self) -> _Piece:
        """Of the slot that has begun, else of a new one: a random one, in random order."""
        if not self._left:
            self._left = self._random.sample(slot := self._random.choice(self._slots), len(slot))
            self._num_begun += 1
        return self._left.pop()

    def _replay(self, piece: _Piece) -> None:
        event = self._events[0]
        if self._num_replays >= _MAX_AHEAD:
            event.synchronize()
        piece.graph.replay()
        event.record()
        self._events.rotate(-1)
        self._num_replays += 1

    def _wait(self, piece: _Piece) -> None:
        """Until the piece begins. More than a slot's delay is not made up for."""
        if self._slot_s <= 0:
            return
        now_s = time.perf_counter()
        if self._deadline_s - now_s > _SPIN_S:
            time.sleep(self._deadline_s - now_s - _SPIN_S)
        while time.perf_counter() < self._deadline_s:
            pass
        self._deadline_s = max(self._deadline_s, time.perf_counter() - self._slot_s)
        self._deadline_s += piece.busy_s + piece.gap_s * self._random.uniform(*_GAPS)


def _captured(order: Sequence[Launch]) -> Any:
    import torch

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # others' threads, such as CUPTI's, go on
        for launch in order:
            launch()
    return graph


def _with_gaps(pieces: Sequence[_Piece], slot_s: float) -> list[_Piece]:
    """The pieces with their time on the GPU, which is measured, and what is left of the slot in proportion to it."""
    for piece in pieces:  # clocks rise, and launches find in L2 what they will find
        piece.graph.replay()
    times_s = [_seconds(piece.graph) for piece in pieces]
    gap_share = max(slot_s / sum(times_s) - 1, 0.0)
    return [_Piece(piece.graph, time_s, gap_share * time_s) for piece, time_s in zip(pieces, times_s, strict=True)]


def _seconds(graph: Any) -> float:
    """How long a replay takes."""
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
