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

__all__ = ["join_spools"]

_ORDER = {
    "kernels": "start_ns",
    "output_tokens": "time_ns",
    "energy": "high_ns",
    "power": "time_ns",
    "clocks": "time_ns",
}
"""Tables that are in order of time, and by which column."""


def join_spools(spools: Sequence[SpoolContents]) -> dict[str, Table]:
    """One table of each kind, by name, ready for `qmeter_native.model.Capture`.

    The spool at position ``i`` becomes process ``i``. Classes that are the same in several spools become one; kernels
    are sorted by start, steps by process and step. ``device`` numbers are left as recorded.
    """
    parts: dict[str, list[Table]] = {table.NAME: [] for table in TABLES}
    classes, class_maps = _join_classes([cast(KernelClassTable, spool.tables["kernel_classes"]) for spool in spools])
    for process, (spool, class_map) in enumerate(zip(spools, class_maps, strict=True)):
        for table in TABLES:
            parts[table.NAME].append(_of_process(spool.tables[table.NAME], process))
        kernels = cast(KernelTable, parts["kernels"].pop())
        parts["kernels"].append(replace(kernels, class_id=class_map[kernels.class_id]))
    joined: dict[str, Table] = {table.NAME: table.concat(parts[table.NAME]) for table in TABLES}
    joined["kernel_classes"] = classes
    for name, column in _ORDER.items():
        joined[name] = _sorted(joined[name], getattr(joined[name], column))
    steps = cast(StepTable, joined["steps"])
    joined["steps"] = steps.take(np.lexsort((steps.step, steps.process)))
    return joined


def _of_process(table: Table, process: int) -> Table:
    if not any(spec.name == "process" for spec in fields(table)):
        return table
    return cast(Table, replace(cast(Any, table), process=np.full(len(table), process, "i2")))


def _sorted(table: Table, key: NDArray[Any]) -> Table:
    if np.all(key[:-1] <= key[1:]):
        return table
    return table.take(np.argsort(key, kind="stable"))


def _join_classes(tables: Sequence[KernelClassTable]) -> tuple[KernelClassTable, list[NDArray[Any]]]:
    """The distinct classes of all tables, and for each table the new id of each of its rows."""
    ids: dict[tuple[Any, ...], int] = {}
    maps = []
    for table in tables:
        rows = zip(*(getattr(table, spec.name).tolist() for spec in fields(table)), strict=True)
        maps.append(np.fromiter((ids.setdefault(row, len(ids)) for row in rows), "i4", len(table)))
    columns = zip(*ids, strict=True) if ids else ([] for _ in fields(KernelClassTable))
    named = {spec.name: list(values) for spec, values in zip(fields(KernelClassTable), columns, strict=True)}
    return KernelClassTable.from_columns(**named), maps
