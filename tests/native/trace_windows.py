"""Trace windows of a spool, as readers should take them."""

from __future__ import annotations

from qmeter_native.model.tables import TraceWindowTable
from qmeter_native.storage.spool import SpoolContents

__all__ = ["windows_of"]


def windows_of(spool: SpoolContents) -> list[tuple[int, int]]:
    """Start and end of each window: pieces that touch are joined, and what is empty then is left out."""
    table = spool.tables[TraceWindowTable.NAME]
    assert isinstance(table, TraceWindowTable)
    joined: list[tuple[int, int]] = []
    for start, end in zip(table.start_ns.tolist(), table.end_ns.tolist(), strict=True):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return [(start, end) for start, end in joined if end > start]
