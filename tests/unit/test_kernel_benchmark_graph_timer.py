"""Timing by graphs on a GPU that is made up: its launches have a gap, its calls take times that are known."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from qmeter_native.benchmark import energy  # noqa: E402
from qmeter_native.benchmark.energy import PacedMeter  # noqa: E402
from qmeter_native.benchmark.graph_timer import GraphTimer  # noqa: E402

GAP_S = 9e-6


class MadeUpGpu:
    """Advances a clock of its own by each call; captured calls advance it when their graph is replayed."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.captured: list[float] | None = None
        self.replays: list[tuple[float, int]] = []

    def call(self, seconds: float) -> Callable[[], None]:
        def launch() -> None:
            if self.captured is None:
                self.now_s += seconds
            else:
                self.captured.append(seconds)

        return launch

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpu = self

        class Event:
            def __init__(self, **options: Any) -> None:
                self.at_s = 0.0

            def record(self) -> None:
                self.at_s = gpu.now_s

            def query(self) -> bool:
                return True

            def synchronize(self) -> None:
                return

            def elapsed_time(self, end: Event) -> float:
                return (end.at_s - self.at_s) * 1e3

        class Graph:
            def __init__(self) -> None:
                self.calls: list[float] = []

            def replay(self) -> None:
                gpu.now_s += GAP_S + sum(self.calls)
                gpu.replays.append((self.calls[0], len(self.calls)))

        @contextlib.contextmanager
        def capture(graph: Graph, **options: Any) -> Iterator[None]:
            gpu.captured = graph.calls
            try:
                yield
            finally:
                gpu.captured = None

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph", capture)
        monkeypatch.setattr(torch.cuda, "device", lambda ordinal: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


class Clock:
    """Of an SM."""

    def mhz(self) -> float | None:
        return 1980.0


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> MadeUpGpu:
    made_up = MadeUpGpu()
    made_up.install(monkeypatch)
    return made_up


def timer() -> GraphTimer:
    return GraphTimer(0, Clock(), burst_s=0.01, rest_share=0.0, seed=1)  # type: ignore[arg-type]


def test_the_time_of_a_call_is_without_the_gap_of_the_graphs_launch(gpu: MadeUpGpu) -> None:
    launches = {"fast": [gpu.call(8e-6)] * 30, "slow": [gpu.call(3e-3)] * 2}

    timings = timer().time(launches, 9)

    assert timings["fast"].seconds == pytest.approx((8e-6,) * 9)
    assert timings["slow"].seconds == pytest.approx((3e-3,) * 9)


def test_bursts_are_equally_long_and_in_turn_in_orders_that_differ(gpu: MadeUpGpu) -> None:
    launches = {name: [gpu.call(seconds)] * 4 for name, seconds in (("a", 8e-6), ("b", 80e-6), ("c", 200e-6))}
    timer().time(launches, 12)

    bursts = gpu.replays[-3 * 12 * 3 :]  # three replays a burst: to warm up, once, twice
    orders = [tuple(seconds for seconds, _ in bursts[first : first + 9 : 3]) for first in range(0, len(bursts), 9)]
    lengths = {sum(seconds * count for seconds, count in bursts[at : at + 3]) for at in range(0, len(bursts), 3)}

    assert all(sorted(order) == [8e-6, 80e-6, 200e-6] for order in orders)
    assert len(set(orders)) > 2
    assert max(lengths) < 1.5 * min(lengths)


def test_every_copy_of_the_weights_is_used_equally_often(gpu: MadeUpGpu) -> None:
    used = [0] * 7

    def copy(number: int) -> Callable[[], None]:
        call = gpu.call(8e-6)

        def launch() -> None:
            used[number] += gpu.captured is not None
            call()

        return launch

    timer().time({"kernel": [copy(number) for number in range(7)]}, 9)

    assert len(set(used)) == 1


def test_a_kernel_that_fails_while_it_is_captured_leaves_the_others_timed(gpu: MadeUpGpu) -> None:
    def fails() -> None:
        if gpu.captured is not None:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    timings = timer().time({"bad": [fails], "good": [gpu.call(8e-6)]}, 9)

    assert timings["bad"].reason == "RuntimeError: operation not permitted when stream is capturing"
    assert timings["good"].seconds


def test_joules_of_a_paced_loop_are_those_of_its_calls(gpu: MadeUpGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_LOOP_S", 1.5), ("_SETTLE_S", 0.1), ("_REST_S", 0.4), ("_SLICE_S", 0.02)):
        monkeypatch.setattr(energy, name, seconds)
    began_s = time.monotonic()

    def read_mj() -> int:  # a call takes 2 ms of the made-up GPU and 0.5 J; 1 W without load, so that it ticks
        tick_s = (time.monotonic() - began_s) // 0.02 * 0.02
        return round((tick_s + 0.5 * gpu.now_s / 2e-3) * 1e3)

    meter = PacedMeter(0, read_mj, seed=1)
    found = meter.energy([gpu.call(2e-3), gpu.call(2e-3)], 2e-3)

    assert found.dynamic_j.value == pytest.approx(0.5, rel=0.3)
    assert meter.idle_w.value is not None
