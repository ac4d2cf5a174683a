"""What a launcher tells traced processes, when it tells them, and what it counts of what they write."""

from __future__ import annotations

import math
import struct
import time
from pathlib import Path

import pytest

from qmeter_native.capture.control import ControlBlock, DutyCycle, TraceMode
from qmeter_native.capture.identity import printable
from qmeter_native.capture.spool_progress import SpoolCounts, SpoolProgress
from qmeter_native.capture.trace_schedule import TraceSchedule, TraceTimes
from qmeter_native.errors import CaptureError, UsageError
from tests.spools import SpoolFile

LAYOUT = struct.Struct("<4sIQIIqqq16x")


class Clock:
    """A monotonic clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("qmeter_native.capture.trace_schedule.time.monotonic", clock)
    return clock


@pytest.fixture
def block(tmp_path: Path) -> ControlBlock:
    return ControlBlock(tmp_path / "control")


def test_a_new_block_says_stopped(block: ControlBlock, tmp_path: Path) -> None:
    assert (tmp_path / "control").read_bytes() == LAYOUT.pack(b"QMCB", 1, 0, 0, 0, 0, 0, 0)
    assert LAYOUT.size == 64


def test_every_change_is_seen_in_the_file_with_an_even_generation(block: ControlBlock, tmp_path: Path) -> None:
    before_ns = time.time_ns()
    block.run()
    magic, version, generation, mode, zero, on_ns, period_ns, _ = LAYOUT.unpack((tmp_path / "control").read_bytes())
    assert (magic, version, generation, mode, zero, on_ns, period_ns) == (b"QMCB", 1, 2, TraceMode.RUNNING, 0, 0, 0)
    block.cycle(DutyCycle(0.2, 2))
    _, _, generation, mode, _, on_ns, period_ns, phase_ns = LAYOUT.unpack((tmp_path / "control").read_bytes())
    assert (generation, mode, on_ns, period_ns) == (4, TraceMode.DUTY_CYCLED, 200_000_000, 2_000_000_000)
    assert before_ns <= phase_ns <= time.time_ns()
    block.stop()
    assert LAYOUT.unpack((tmp_path / "control").read_bytes())[2:7] == (6, TraceMode.STOPPED, 0, 0, 0)


def test_a_block_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="nowhere/control cannot be written"):
        ControlBlock(tmp_path / "nowhere" / "control")


def test_a_duty_cycle_is_read_as_it_is_written() -> None:
    assert DutyCycle.parse("0.2/2") == DutyCycle(0.2, 2.0)


@pytest.mark.parametrize("text", ["", "0.2", "0.2/", "a/b", "2/1", "1/1", "0/1", "0.001/1", "-1/2", "nan/1", "1/nan"])
def test_what_is_no_duty_cycle_says_how_one_looks(text: str) -> None:
    with pytest.raises(UsageError, match=r"0\.2/2"):
        DutyCycle.parse(text)


@pytest.mark.parametrize("text", ["1/inf", "1/1e30", "1/86401"])
def test_a_period_that_the_block_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="a day at most"):
        DutyCycle.parse(text)


def test_tracing_begins_with_the_command_unless_told_otherwise(block: ControlBlock) -> None:
    assert TraceSchedule(block, TraceTimes()).mode is TraceMode.RUNNING
    assert TraceSchedule(block, TraceTimes(duty=DutyCycle(0.1, 1))).mode is TraceMode.DUTY_CYCLED


def test_tracing_begins_after_a_while_and_ends_after_another(block: ControlBlock, clock: Clock) -> None:
    block.stop()
    schedule = TraceSchedule(block, TraceTimes(start_after_s=5, duration_s=3))
    seen = []
    for now_s in (0, 4.9, 5, 7.9, 8, 100):
        clock.now_s = 1000 + now_s
        schedule.tick()
        seen.append(schedule.mode)
    stopped, running = TraceMode.STOPPED, TraceMode.RUNNING
    assert seen == [stopped, stopped, running, running, stopped, stopped]
    assert schedule.elapsed_s == 100


def test_who_waits_for_a_person_waits_for_ever(block: ControlBlock, clock: Clock) -> None:
    block.stop()
    schedule = TraceSchedule(block, TraceTimes(start_after_s=None))
    clock.now_s += 1e6
    schedule.tick()
    assert schedule.mode is TraceMode.STOPPED
    schedule.toggle()
    assert schedule.mode is TraceMode.RUNNING
    schedule.toggle()
    assert schedule.mode is TraceMode.STOPPED


def test_who_stops_it_by_hand_is_not_overruled_by_the_clock(block: ControlBlock, clock: Clock) -> None:
    schedule = TraceSchedule(block, TraceTimes(start_after_s=5))
    schedule.stop()
    clock.now_s += 10
    schedule.tick()
    assert schedule.mode is TraceMode.STOPPED


def test_a_duty_cycle_that_is_asked_for_later_wins(block: ControlBlock) -> None:
    schedule = TraceSchedule(block, TraceTimes(duty=DutyCycle(0.1, 1)))
    schedule.start(DutyCycle(0.5, 2))
    assert schedule.duty == DutyCycle(0.5, 2)
    schedule.stop()
    assert schedule.duty is None


@pytest.mark.parametrize(
    "times", [{"start_after_s": -1.0}, {"start_after_s": math.nan}, {"duration_s": 0.0}, {"duration_s": math.nan}]
)
def test_times_that_make_no_sense_are_refused(times: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        TraceTimes(**times)


def test_arguments_that_are_no_unicode_become_printable() -> None:
    assert printable("plain é") == "plain é"
    assert printable("\udcff\udcfe") == "\ufffd\ufffd"


def test_what_spools_hold_is_counted_as_they_grow(tmp_path: Path) -> None:
    progress = SpoolProgress(tmp_path)
    assert progress.update() == SpoolCounts(0, 0, 0)
    traced = SpoolFile().identity(1).kernels(1, 2, 3)
    traced.write(tmp_path / "host-1-cuda0.qms")
    SpoolFile().identity(2).write(tmp_path / "host-2.qms")
    assert (progress.update().num_traced, progress.update().num_kernels) == (1, 3)
    traced.kernels(4).stats("spool").write(tmp_path / "host-1-cuda0.qms")
    counts = progress.update()
    assert counts.num_kernels == 4
    assert counts.num_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.qms"))


def test_a_block_that_is_being_written_is_counted_when_it_is_whole(tmp_path: Path) -> None:
    path = SpoolFile().identity(1).kernels(1, 2, 3).write(tmp_path / "host-1-cuda0.qms")
    whole = path.read_bytes()
    progress = SpoolProgress(tmp_path)
    path.write_bytes(whole[:-1])
    assert progress.update().num_kernels == 0
    path.write_bytes(whole)
    assert progress.update().num_kernels == 3
