"""Slots of load: CUDA graphs of a window's launches, replayed at the window's pace."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from qmeter_native.calibration.load_kernel import Launch

__all__ = ["LoadSlots"]

_NUM_GRAPHS: Final = 3
"""Graphs of one slot, each in an order of its own: what runs before a kernel decides what it finds in L2."""
_MAX_AHEAD: Final = 2
"""Replays that wait on the GPU: one to run, one so that no gap opens."""
_SPIN_S: Final = 0.001
"""`time.sleep` may oversleep by some 0.1 ms."""


class LoadSlots:
    """The launches of one slot as CUDA graphs.

    Args:
        launches: By kind. Each must have been launched before: a graph cannot be captured of what compiles.
        counts: Launches a slot of each kind.
        slot_s: A replay begins so long after the one before; 0 for no gap.
        seed: Of the launches' order.

    Raises whatever torch raises at a capture.
    """

    def __init__(self, launches: Mapping[str, Launch], counts: Mapping[str, int], slot_s: float, seed: int) -> None:
        import torch

        self._slot_s = slot_s
        self._graphs = deque(
            _captured([launches[name] for name, count in counts.items() for _ in range(count)], seed + number)
            for number in range(_NUM_GRAPHS)
        )
        self._events: deque[Any] = deque(torch.cuda.Event(blocking=True) for _ in range(_MAX_AHEAD))
        self._deadline_s = time.perf_counter()
        self._num_replays = 0

    @property
    def num_replays(self) -> int:
        """Slots begun so far."""
        return self._num_replays

    def run(self, seconds: float) -> float:
        """Replay for so long; the pace goes on from call to call. Returns: the seconds it took."""
        start_s = time.perf_counter()
        while time.perf_counter() - start_s < seconds:
            self._wait()
            self._replay()
        return time.perf_counter() - start_s

    def _replay(self) -> None:
        event = self._events[0]
        if self._num_replays >= _MAX_AHEAD:
            event.synchronize()
        self._graphs[0].replay()
        event.record()
        self._graphs.rotate(-1)
        self._events.rotate(-1)
        self._num_replays += 1

    def _wait(self) -> None:
        """Until the next slot begins. One that is late moves those after it: none is made up for."""
        if self._slot_s <= 0:
            return
        now_s = time.perf_counter()
        if self._deadline_s - now_s > _SPIN_S:
            time.sleep(self._deadline_s - now_s - _SPIN_S)
        while time.perf_counter() < self._deadline_s:
            pass
        self._deadline_s = max(self._deadline_s, time.perf_counter() - self._slot_s) + self._slot_s


def _captured(order: list[Launch], seed: int) -> Any:
    import torch

    random.Random(seed).shuffle(order)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # others' threads, such as CUPTI's, go on
        for launch in order:
            launch()
    return graph
