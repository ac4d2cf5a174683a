from __future__ import annotations

import numpy as np

from qmeter_native.capture.stamps import implausible_stamps
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


def test_a_copy_that_lasts_through_its_successors_is_implausible() -> None:
    table = kernels((5 * MS, 6 * MS, 7, 0), (0, 4_000 * MS, 7, 0), (7 * MS, 8 * MS, 7, 0))
    assert implausible_stamps(table).tolist() == [False, True, False]


def test_streams_may_overlap_each_other() -> None:
    assert not implausible_stamps(kernels((0, 9 * MS, 7, 0), (1 * MS, 2 * MS, 8, 0))).any()


def test_a_kernel_may_start_just_before_the_one_before_it_ends() -> None:
    assert not implausible_stamps(kernels((0, 1 * MS, 7, 0), (1 * MS - 20_000, 2 * MS, 7, 0))).any()


def test_branches_of_a_graph_may_overlap() -> None:
    assert not implausible_stamps(kernels((0, 9 * MS, 7, 3), (1 * MS, 2 * MS, 7, 3))).any()


def test_without_kernels_nothing_is_implausible() -> None:
    assert len(implausible_stamps(KernelTable.empty())) == 0
