"""Which operators of a profiler's event tree count as kernels of a CPU."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.engines.operator_trace import OperatorBatch, OperatorTrace, working_operators

Event = tuple[int, int, int]  # start, end, thread


def counting(*events: Event) -> set[int]:
    table = np.array(events, np.int64).reshape(-1, 3)
    return set(working_operators(table[:, 0], table[:, 1], table[:, 2]).tolist())


@st.composite
def call_trees(draw: st.DrawFn) -> list[Event]:
    """Random calls on up to two threads: every event is cut out of its caller's time."""
    events: list[Event] = []

    def call(start: int, end: int, thread: int, depth: int) -> None:
        events.append((start, end, thread))
        if depth < 3:
            cuts = sorted(draw(st.lists(st.integers(start, end), max_size=6)))
            for inner_start, inner_end in zip(cuts[::2], cuts[1::2], strict=False):
                call(inner_start, inner_end, thread, depth + 1)

    for thread in range(draw(st.integers(0, 2))):
        call(100 * thread, 100 * thread + draw(st.integers(1, 60)), thread, 0)
    return draw(st.permutations(events))


def test_an_operator_that_works_for_itself_counts_with_its_small_helpers() -> None:
    assert counting((0, 100, 1), (2, 4, 1)) == {0}


def test_of_an_operator_that_only_calls_others_the_others_count() -> None:
    linear, multiply, helper, add = (0, 100, 1), (5, 80, 1), (6, 7, 1), (82, 99, 1)
    assert counting(linear, multiply, helper, add) == {1, 3}


def test_equal_times_on_different_threads_are_different_operators() -> None:
    assert counting((0, 10, 1), (0, 10, 2)) == {0, 1}


def test_an_operator_of_no_length_counts() -> None:
    assert counting((5, 5, 1)) == {0}


@given(call_trees())
def test_operators_that_count_never_overlap_on_a_thread(events: list[Event]) -> None:
    rows = sorted((events[number] for number in counting(*events)), key=lambda event: (event[2], event[0], event[1]))
    for before, after in pairwise(rows):
        assert before[2] != after[2] or before[1] <= after[0]


@given(call_trees())
def test_no_outermost_call_is_left_without_an_operator_that_counts(events: list[Event]) -> None:
    table, chosen = np.array(events, np.int64).reshape(-1, 3), counting(*events)
    for thread in set(table[:, 2].tolist()):
        assert any(events[number][2] == thread for number in chosen)


@pytest.fixture(scope="module")
def batches() -> list[OperatorBatch]:
    torch = pytest.importorskip("torch")
    found: list[OperatorBatch] = []
    trace = OperatorTrace(found.append, max_events=50)

    def work() -> None:
        matrix = torch.ones(64, 64)
        for _ in range(200):
            torch.mm(matrix, matrix)
            trace.before_step()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    trace.close()
    trace.close()
    assert trace.num_operators == sum(len(batch) for batch in found)
    assert trace.pause_ns > 0
    return found


def test_operators_of_other_threads_are_traced_and_none_is_lost_when_the_profiler_is_cycled(
    batches: list[OperatorBatch],
) -> None:
    assert len(batches) > 2
    names = [batch.names[number] for batch in batches for number in batch.name]
    assert names.count("aten::mm") == 200


def test_operators_are_stamped_with_the_real_time_clock(batches: list[OperatorBatch]) -> None:
    for batch in batches:
        assert (batch.end_ns >= batch.start_ns).all()
        assert (np.diff(batch.start_ns) >= 0).all()
        assert (np.abs(batch.start_ns - time.time_ns()) < 600e9).all()
