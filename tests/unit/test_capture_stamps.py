from __future__ import annotations

from dataclasses import replace

import numpy as np

from qmeter_native.capture.stamps import judge_stamps
from qmeter_native.model.tables import KernelTable

MS = 1_000_000


def kernels(*rows: tuple[int, int, int, int]) -> KernelTable:
    """Rows of start, end, stream, graph."""
    start, end, stream, graph = np.array(rows, np.int64).reshape(-1, 4).T
    zeros = np.zeros(len(rows))
    return KernelTable.from_columns(
        start_ns=start,
        end_ns=end,
        stream=stream,
        graph=graph,
        range_id=zeros - 1,
        **dict.fromkeys(("class_id", "device", "process", "graph_node", "correlation", "copied_bytes"), zeros),
    )


def implausible(*rows: tuple[int, int, int, int], next_start_ns: int | None = None) -> list[bool]:
    return judge_stamps(kernels(*rows), next_start_ns).is_implausible.tolist()


def open_questions(*rows: tuple[int, int, int, int], next_start_ns: int | None = None) -> list[bool]:
    return judge_stamps(kernels(*rows), next_start_ns).is_open.tolist()


def test_a_copy_that_lasts_through_its_successors_is_implausible() -> None:
    rows = ((0, 4_000 * MS, 7, 0), (5 * MS, 6 * MS, 7, 0), (7 * MS, 8 * MS, 7, 0))
    assert implausible(*rows) == [True, False, False]


def test_streams_of_two_devices_with_one_number_are_two_streams() -> None:
    table = kernels((0, 9 * MS, 7, 0), (1 * MS, 2 * MS, 7, 0))
    on_two_devices = replace(table, device=np.array([0, 1], "i2"))
    assert not judge_stamps(on_two_devices).is_implausible.any()


def test_what_runs_into_time_not_yet_seen_is_left_open() -> None:
    rows = ((0, 9 * MS, 7, 0), (1 * MS, 2 * MS, 8, 0))
    assert open_questions(*rows, next_start_ns=3 * MS) == [True, False]
    assert open_questions(*rows, next_start_ns=9 * MS) == [False, False]
    assert open_questions(*rows) == [False, False]


def test_what_a_follower_has_settled_is_not_left_open() -> None:
    rows = ((0, 9 * MS, 7, 0), (1 * MS, 2 * MS, 7, 0), (2 * MS, 4 * MS, 8, 3))
    assert implausible(*rows, next_start_ns=3 * MS) == [True, False, False]
    assert open_questions(*rows, next_start_ns=3 * MS) == [False, False, False]


def test_streams_may_overlap_each_other() -> None:
    assert not any(implausible((0, 9 * MS, 7, 0), (1 * MS, 2 * MS, 8, 0)))


def test_a_kernel_may_start_just_before_the_one_before_it_ends() -> None:
    assert not any(implausible((0, 1 * MS, 7, 0), (1 * MS - 20_000, 2 * MS, 7, 0)))


def test_branches_of_a_graph_may_overlap() -> None:
    assert not any(implausible((0, 9 * MS, 7, 3), (1 * MS, 2 * MS, 7, 3)))


def test_without_kernels_nothing_is_implausible() -> None:
    assert len(judge_stamps(KernelTable.empty()).is_implausible) == 0
