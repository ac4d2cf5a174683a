"""Steps of the clock that all stamps are made with."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.capture.clock_steps import ClockStep, clock_steps
from qmeter_native.model.tables import ClockPairTable

S, MS = 1_000_000_000, 1_000_000


def pairs(*rows: tuple[int, int], process: int = 0) -> ClockPairTable:
    """Rows of monotonic time and how far realtime is ahead."""
    monotonic, ahead = np.array(rows, np.int64).reshape(-1, 2).T
    return ClockPairTable.from_columns(
        process=np.full(len(rows), process), realtime_ns=monotonic + ahead, monotonic_ns=monotonic
    )


def test_a_clock_that_is_set_back_is_a_step() -> None:
    table = pairs((0, 5 * S), (S, 5 * S), (2 * S, 3 * S), (3 * S, 3 * S))
    assert clock_steps(table) == [ClockStep(0, 6 * S, 5 * S, -2 * S)]


def test_a_millisecond_and_less_is_no_step() -> None:
    assert clock_steps(pairs((0, 0), (S, MS), (2 * S, 0))) == []
    assert len(clock_steps(pairs((0, 0), (S, MS + 1)))) == 1


def test_a_clock_that_is_slewed_over_a_long_time_is_no_step() -> None:
    assert clock_steps(pairs((0, 0), (60 * S, 30 * MS))) == []


def test_each_process_is_looked_at_on_its_own() -> None:
    table = ClockPairTable.concat([pairs((0, 0), (S, 0)), pairs((0, 9 * S), (S, 19 * S), process=1)])
    assert [step.process for step in clock_steps(table)] == [1]


def test_without_pairs_there_are_no_steps() -> None:
    assert clock_steps(ClockPairTable.empty()) == []


@given(st.lists(st.integers(-3, 3).filter(bool), max_size=5))
def test_all_steps_are_found_with_their_sizes(sizes: list[int]) -> None:
    ahead = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    found = clock_steps(pairs(*((row * S, int(offset) * S) for row, offset in enumerate(ahead))))
    assert [step.size_ns for step in found] == [size * S for size in sizes]
