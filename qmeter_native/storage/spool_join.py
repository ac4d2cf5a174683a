"""Joining the spools of several processes into the tables of one capture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from qmeter_native.model.table import Table
from qmeter_native.model.tables import TABLES, KernelClassTable, KernelTable, StepTable
from qmeter_native.storage.spool import SpoolContents

__all__ = ["join_classes", "join_spools"]

_ORDER = {
    "kernels": "start_ns",
    "output_tokens": "time_ns",
    "energy": "high_ns",
    "power": "time_ns",
    "clocks": "time_ns",
    "preemptions": "time_ns",
    "counters": "end_ns",
    "counter_windows": "enable_ns",
    "throttles": "time_ns",
}
"""Tables that are in order of time, and by which column."""


def join_spools(spools: Sequence[SpoolContents], processes: Sequence[int] | None = None) -> dict[str, Table]:
    """One table of each kind, by name, ready for `qmeter_native.model.Capture`.

    Classes that are the same in several spools become one; kernels are sorted by start, steps by process and step.
    Numbers of devices and requests are left as recorded.

    Args:
        spools: Contents of the spools.
        processes: For each spool the number of its process; by default its position.
    """
    processes = range(len(spools)) if processes is None else processes
    parts: dict[str, list[Table]] = {table.NAME: [] for table in TABLES}
    classes, class_maps = join_classes(spools)
    for spool, class_map, process in zip(spools, class_maps, processes, strict=True):
        for table in TABLES:
            parts[table.NAME].append(_of_process(spool.tables[table.NAME], process))
        kernels = cast(KernelTable, parts["kernels"].pop())
        parts["kernels"].append(replace(kernels, class_id=class_map[kernels.class_id]))
    joined: dict[str, Table] = {table.NAME: _concat(table, parts[table.NAME]) for table in TABLES}
    joined["kernel_classes"] = classes
    for name, column in _ORDER.items():
        joined[name] = _sorted(joined[name], getattr(joined[name], column))
    steps = cast(StepTable, joined["steps"])
    joined["steps"] = steps.take(np.lexsort((steps.step, steps.process)))
    return joined


def join_classes(spools: Sequence[SpoolContents]) -> tuple[KernelClassTable, list[NDArray[Any]]]:
    """The distinct kernel classes of all spools, and for each spool the new id (int32) of each of its classes."""
    ids: dict[tuple[Any, ...], int] = {}
    maps = []
    for spool in spools:
        table = spool.tables[KernelClassTable.NAME]
        rows = zip(*(getattr(table, spec.name).tolist() for spec in fields(table)), strict=True)
        maps.append(np.fromiter((ids.setdefault(row, len(ids)) for row in rows), "i4", len(table)))
    columns = zip(*ids, strict=True) if ids else ([] for _ in fields(KernelClassTable))
    named = {spec.name: list(values) for spec, values in zip(fields(KernelClassTable), columns, strict=True)}
    return KernelClassTable.from_columns(**named), maps


def _of_process(table: Table, process: int) -> Table:
    if not any(spec.name == "process" for spec in fields(table)):
        return table
    return cast(Table, replace(cast(Any, table), process=np.broadcast_to(np.int16(process), len(table))))


def _concat(table: type[Table], parts: Sequence[Table]) -> Table:
    """All rows; where only one part has any, that part itself and no copy."""
    some = [part for part in parts if len(part)]
    return some[0] if len(some) == 1 else table.concat(some)


def _sorted(table: Table, key: NDArray[Any]) -> Table:
    if np.all(key[:-1] <= key[1:]):
        return table
    return table.take(np.argsort(key, kind="stable"))
