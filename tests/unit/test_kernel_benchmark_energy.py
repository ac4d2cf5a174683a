"""Joules of a call from a counter's ticks."""

from __future__ import annotations

import time
from itertools import count

import pytest

pytest.importorskip("torch")

from qmeter_native.benchmark.energy import TickWatcher, call_energy, idle_power

TICK_S = 0.1


def ticks_of(power_w: float, seconds: float, start_s: float = 100.0) -> list[tuple[float, float]]:
    number = round(seconds / TICK_S) + 1
    return [(start_s + TICK_S * tick, 5e6 + power_w * TICK_S * tick) for tick in range(number)]


def steady(calls_per_s: float, seconds: float, start_s: float = 100.0) -> list[tuple[float, float]]:
    return [(start_s + at * 0.05, calls_per_s * at * 0.05) for at in range(round(seconds / 0.05) + 1)]


def test_joules_of_a_call_are_those_above_idle_and_with_the_idle_power_of_its_time() -> None:
    found = call_energy(ticks_of(325.0, 5.5), steady(1000.0, 5.5), idle_w=125.0, call_s=0.0005)

    assert found.dynamic_j.value == pytest.approx(0.2)
    assert found.gross_j.value == pytest.approx(0.2 + 125.0 * 0.0005)
    assert found.idle_w == 125.0
    assert found.dynamic_j.systematic == 0.05
    assert found.dynamic_j.low == pytest.approx(0.2)


def test_a_counter_that_scatters_widens_the_interval_and_leaves_the_mean() -> None:
    scattered = [
        (at, joules + (8.0 if number % 2 else -8.0)) for number, (at, joules) in enumerate(ticks_of(325.0, 5.6))
    ]

    found = call_energy(scattered, steady(1000.0, 5.6), idle_w=125.0, call_s=0.0005)

    assert found.dynamic_j.low is not None
    assert found.dynamic_j.high is not None
    assert found.dynamic_j.low < 0.2 < found.dynamic_j.high
    assert found.dynamic_j.high - found.dynamic_j.low > 0.01


def test_ticks_outside_of_the_loop_do_not_count() -> None:
    before = [(at - 5.0, 0.0) for at, _ in ticks_of(0.0, 1.0)]

    found = call_energy([*before, *ticks_of(325.0, 5.5)], steady(1000.0, 5.5), 125.0, 0.0005)

    assert found.dynamic_j.value == pytest.approx(0.2)


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_too_few_ticks_give_no_joules_but_the_reason(seconds: float) -> None:
    found = call_energy(ticks_of(325.0, seconds), steady(1000.0, 5.0), 125.0, 0.0005)

    assert found.dynamic_j.value is None
    assert "too few" in (found.gross_j.reason or "")


def test_idle_power_is_between_ticks_of_the_rest_alone() -> None:
    ticks = [*ticks_of(600.0, 1.0), *ticks_of(120.0, 1.0, start_s=102.0)]

    assert idle_power(ticks, since_s=101.5) == pytest.approx(120.0)
    assert idle_power(ticks, since_s=102.85) is None


def test_the_watcher_notes_each_change_of_a_counter_once() -> None:
    started = time.monotonic()
    reads = count()

    def read_mj() -> int:
        next(reads)
        return 1000 * int((time.monotonic() - started) / 0.02)

    with TickWatcher(read_mj) as watcher:
        time.sleep(0.3)

    joules = [tick[1] for tick in watcher.ticks]
    assert len(joules) >= 3
    assert joules == sorted(set(joules))
    assert [tick[0] for tick in watcher.ticks] == sorted(tick[0] for tick in watcher.ticks)
    assert not watcher._thread.is_alive()
