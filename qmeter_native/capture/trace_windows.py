"""Pieces of trace windows, as processes write them each second → the windows themselves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qmeter_native.model.tables import TraceWindowTable

__all__ = ["join_windows"]


def join_windows(pieces: TraceWindowTable, known_until_ns: Mapping[int, int]) -> TraceWindowTable:
    """Windows in order of process and start; pieces that touch or overlap are one window.

    Args:
        pieces: In any order.
        known_until_ns: For a process that was killed, the end of its last kernel: up to there its last window went on,
            although it could not write that any more.
    """
    windows: list[list[int]] = []
    order = np.lexsort((pieces.start_ns, pieces.process))
    columns = (pieces.process[order], pieces.start_ns[order], pieces.end_ns[order])
    for process, start_ns, end_ns in zip(*(column.tolist() for column in columns), strict=True):
        if windows and windows[-1][0] == process and start_ns <= windows[-1][2]:
            windows[-1][2] = max(windows[-1][2], end_ns)
        else:
            windows.append([process, start_ns, end_ns])
    last = {window[0]: window for window in windows}
    for process, end_ns in known_until_ns.items():
        if process in last:
            last[process][2] = max(last[process][2], end_ns)
    process, start, end = np.array(windows, np.int64).reshape(-1, 3).T
    return TraceWindowTable.from_columns(process=process, start_ns=start, end_ns=end)
