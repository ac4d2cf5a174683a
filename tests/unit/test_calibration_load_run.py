"""Loads run in slots at their pace, each window a range of the session; without a GPU by a torch that only counts."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from qmeter_native.calibration import load_run, load_slots
from qmeter_native.calibration.load_plan import IDLE_SETTLE_S, SETTLE_S, LoadPlan
from qmeter_native.calibration.load_run import count_loads, pilot_loads, power_w, run_loads
from qmeter_native.calibration.load_slots import LoadSlots
from qmeter_native.calibration.load_window import LoadWindow, WindowRole
from qmeter_native.errors import DeviceError


class Machine:
    """A clock that only sleeping, waiting for the GPU and looking at it move; and a GPU that is busy for a while."""

    def __init__(self, busy_s: float = 0.004) -> None:
        self.now_s = 100.0
        self.busy_s = busy_s
        self.free_at_s = 0.0
        self.captured: list[list[str]] = []
        self.launched: list[str] = []
        self.replays_s: list[float] = []
        self.log: list[str] = []

    def perf_counter(self) -> float:
        self.now_s += 1e-6
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def replay(self) -> None:
        self.replays_s.append(self.now_s)
        self.free_at_s = max(self.free_at_s, self.now_s) + self.busy_s

    def synchronize(self, *_: object) -> None:
        self.now_s = max(self.now_s, self.free_at_s)
        self.log.append("synchronize")

    @contextmanager
    def capture(self, graph: Any, **_: object) -> Iterator[None]:
        begin = len(self.launched)
        yield
        self.captured.append(self.launched[begin:])

    def event(self, **_: object) -> Any:
        event = SimpleNamespace(done_s=0.0)
        event.record = lambda: setattr(event, "done_s", max(self.free_at_s, self.now_s))
        event.synchronize = lambda: setattr(self, "now_s", max(self.now_s, event.done_s))
        event.elapsed_time = lambda end: 1e3 * (end.done_s - event.done_s)
        return event


class FakeSession:
    """Keeps ranges with the times at which they began and ended."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.ranges: list[tuple[str, float, float]] = []
        self.state = SimpleNamespace(cuda_devices=[3])
        self.power_mw: int | None = 400_000

    @contextmanager
    def range(self, name: str) -> Iterator[None]:
        begin_s = self._machine.now_s
        try:
            yield
        finally:
            self.ranges.append((name, begin_s, self._machine.now_s))

    def live(self) -> list[dict[str, Any]]:
        return [{"index": 3, "power_mw": self.power_mw}]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    cuda = SimpleNamespace(
        CUDAGraph=lambda: SimpleNamespace(replay=machine.replay),
        Event=machine.event,
        device=lambda _: nullcontext(),
        graph=machine.capture,
        synchronize=machine.synchronize,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    clock = SimpleNamespace(perf_counter=machine.perf_counter, sleep=machine.sleep)
    monkeypatch.setattr(load_slots, "time", clock)
    monkeypatch.setattr(load_run, "time", clock)
    return machine


def launches(machine: Machine) -> dict[str, Any]:
    return {name: lambda name=name: machine.launched.append(name) for name in ("gemm", "copy")}


def window(number: int, role: WindowRole = WindowRole.MIXTURE, slot_s: float = 0.02) -> LoadWindow:
    return LoadWindow(
        number, role, 1.0, slot_s, {} if role is WindowRole.IDLE else {"gemm": 3, "copy": 2}, f"g{number}"
    )


def test_a_slot_has_the_planned_launches_in_several_orders(machine: Machine) -> None:
    LoadSlots(launches(machine), {"gemm": 7, "copy": 5}, 0.0, seed=1)
    assert len(machine.captured) >= 2
    assert all(sorted(order) == ["copy"] * 5 + ["gemm"] * 7 for order in machine.captured)
    assert len({tuple(order) for order in machine.captured}) > 1


def test_a_paced_slot_is_cut_into_pieces_that_together_have_its_launches(machine: Machine) -> None:
    LoadSlots(launches(machine), {"gemm": 7, "copy": 5}, 0.02, seed=1)
    assert len(machine.captured) % 5 == 0
    for first in range(0, len(machine.captured), 5):
        slot = [name for piece in machine.captured[first : first + 5] for name in piece]
        assert sorted(slot) == ["copy"] * 5 + ["gemm"] * 7


def test_pieces_keep_the_planned_pace_on_average_from_call_to_call(machine: Machine) -> None:
    machine.busy_s = 0.002
    slots = LoadSlots(launches(machine), {"gemm": 10}, 0.02, seed=1)
    machine.replays_s.clear()
    slots.run(1.0)
    slots.run(1.0)
    assert slots.num_replays == pytest.approx(100, rel=0.04)
    assert len(machine.replays_s) == pytest.approx(500, rel=0.04)


def test_gaps_vary_by_half_of_their_mean_so_that_no_pattern_repeats(machine: Machine) -> None:
    machine.busy_s = 0.002
    slots = LoadSlots(launches(machine), {"gemm": 10}, 0.02, seed=1)
    machine.replays_s.clear()
    slots.run(2.0)
    starts = machine.replays_s
    gaps = [later - earlier - machine.busy_s for earlier, later in itertools.pairwise(starts)]
    assert min(gaps) == pytest.approx(0.001, abs=1e-4)
    assert max(gaps) == pytest.approx(0.003, abs=1e-4)
    phases = [start / 0.02 % 1 for start in starts]
    assert all(sum(step / 5 <= phase < (step + 1) / 5 for phase in phases) > len(phases) / 8 for step in range(5))


def test_a_launch_as_long_as_its_slot_is_a_piece(machine: Machine) -> None:
    machine.busy_s = 0.018
    slots = LoadSlots(launches(machine), {"gemm": 1}, 0.04, seed=1)
    machine.replays_s.clear()
    slots.run(2.0)
    assert slots.num_replays == len(machine.replays_s) == pytest.approx(50, abs=3)


def test_a_slot_that_is_late_is_not_made_up_for(machine: Machine) -> None:
    slots = LoadSlots(launches(machine), {"gemm": 1}, 0.02, seed=1)
    slots.run(0.1)
    machine.now_s += 1.0
    begun = slots.num_replays
    slots.run(0.1)
    assert slots.num_replays - begun <= 8


def test_without_gaps_the_gpu_always_has_a_slot_to_run_but_no_long_queue(machine: Machine) -> None:
    slots = LoadSlots(launches(machine), {"gemm": 1}, 0.0, seed=1)
    seconds = slots.run(1.0)
    assert slots.num_replays == pytest.approx(seconds / machine.busy_s, abs=3)
    assert machine.free_at_s - machine.now_s <= 2 * machine.busy_s + 1e-3


def test_every_window_is_a_range_that_begins_after_it_has_settled(machine: Machine) -> None:
    session, seen = FakeSession(machine), []
    plan = LoadPlan((window(0, WindowRole.IDLE), window(1), window(2, slot_s=0.0)))
    begin_s = machine.now_s
    run_loads(plan, launches(machine), session, 0, seen.append)
    assert seen == list(plan.windows)
    assert [LoadWindow.of_range(name) for name, _, _ in session.ranges] == list(plan.windows)
    assert session.ranges[0][1] - begin_s >= IDLE_SETTLE_S
    assert session.ranges[1][1] - session.ranges[0][2] >= SETTLE_S
    assert all(end_s - start_s >= 1.0 for _, start_s, end_s in session.ranges)
    assert not any(session.ranges[0][1] <= replay_s < session.ranges[0][2] for replay_s in machine.replays_s)


def test_an_interruption_keeps_the_windows_before_it_and_waits_for_the_gpu(machine: Machine) -> None:
    session = FakeSession(machine)

    def interrupt(current: LoadWindow) -> None:
        if current.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_loads(LoadPlan((window(0), window(1))), launches(machine), session, 0, interrupt)
    assert len(session.ranges) == 1
    assert machine.log[-1] == "synchronize"


def test_a_pilot_tells_the_time_of_a_launch_and_the_power(machine: Machine) -> None:
    session = FakeSession(machine)
    pilots = pilot_loads(launches(machine), {"gemm": 0.001, "copy": 0.002}, session, 0, lambda _: None)
    assert [name for name, _, _ in session.ranges] == ["pilot:gemm", "pilot:copy"]
    assert pilots["gemm"].power_w == 400.0
    assert pilots["gemm"].time_s == pytest.approx(machine.busy_s / 20, rel=0.05)
    assert pilots["copy"].time_s == pytest.approx(machine.busy_s / 10, rel=0.05)


def test_power_that_cannot_be_read_is_an_error(machine: Machine) -> None:
    session = FakeSession(machine)
    session.power_mw = None
    with pytest.raises(DeviceError, match="power"):
        power_w(session, 0)


def test_counters_run_around_each_kind_alone(machine: Machine) -> None:
    sampler = SimpleNamespace(start=lambda: machine.log.append("start"), stop=lambda: machine.log.append("stop"))
    count_loads(launches(machine), {"gemm": 0.001, "copy": 0.001}, sampler, 0, machine.log.append)
    assert machine.log == ["gemm", "start", "synchronize", "stop", "copy", "start", "synchronize", "stop"]
