"""The tables of a run, all but its kernels, joined over its processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from qmeter_native.capture.counter_windows import closed_windows
from qmeter_native.capture.device_map import step_devices
from qmeter_native.capture.kernel_merge import KernelMerge
from qmeter_native.capture.request_join import JoinedRequests, SpoolRequests, join_requests
from qmeter_native.capture.run_manifest import last_stamp
from qmeter_native.capture.trace_windows import join_windows
from qmeter_native.capture.traced_run import TracedRun
from qmeter_native.model.table import Table
from qmeter_native.model.tables import CounterTable, CounterWindowTable, RequestTable, StepTable, TraceWindowTable
from qmeter_native.storage.spool import SpoolContents
from qmeter_native.storage.spool_join import join_spools

__all__ = ["join_requests_of", "join_tables"]

_NEVER = np.iinfo(np.int64).max
_OF_ENGINE = ("step_requests", "engine_requests", "preemptions")
"""Tables whose requests have the numbers of the engine's process."""


def join_requests_of(run: TracedRun) -> JoinedRequests:
    """Number the requests of all processes."""
    state = run.state
    return join_requests(
        [_requests(cast("dict[str, Any]", spool.tables)) for spool in run.spools],
        state.measure_start_ns or state.start_ns,
        state.measure_end_ns or state.end_ns or _NEVER,
    )


def join_tables(run: TracedRun, joined: JoinedRequests, kernels: list[KernelMerge]) -> dict[str, Table]:
    """All tables by name; ``kernels`` is empty.

    Args:
        run: The run.
        joined: Its requests.
        kernels: What was seen of each process's kernels, by its index.
    """
    spools = [
        replace(spool, tables={**spool.tables, **_renumbered(run, joined, position)})
        for position, spool in enumerate(run.spools)
    ]
    tables = join_spools(spools, run.processes.of_spool)
    tables[RequestTable.NAME] = joined.requests
    pieces = TraceWindowTable.concat([cast(TraceWindowTable, tables[TraceWindowTable.NAME]), _unrecorded(run, kernels)])
    tables[TraceWindowTable.NAME] = join_windows(pieces, _killed(run, kernels))
    tables[CounterWindowTable.NAME] = closed_windows(
        cast(CounterTable, tables[CounterTable.NAME]),
        cast(CounterWindowTable, tables[CounterWindowTable.NAME]),
        last_stamp(tables, kernels, run.state.start_ns),
    )
    return tables


def _requests(tables: dict[str, Any]) -> SpoolRequests:
    return SpoolRequests(
        clients=tables["requests"],
        names=tables["request_ids"],
        engine=tables["engine_requests"],
        ridden=np.union1d(tables["step_requests"].request, tables["preemptions"].request),
        answered=np.unique(tables["output_tokens"].request),
    )


def _renumbered(run: TracedRun, joined: JoinedRequests, position: int) -> dict[str, Table]:
    """Tables of a spool that name a request or the device of a step, with the capture's numbers."""
    spool = run.spools[position]
    changed: dict[str, Table] = {}
    for name in (*_OF_ENGINE, "output_tokens"):
        table: Any = spool.tables[name]
        numbers = (joined.engine_numbers if name in _OF_ENGINE else joined.client_numbers)[position]
        request: NDArray[Any] = numbers(table.request)
        renumbered = replace(table, request=request)
        changed[name] = renumbered if (request >= 0).all() else renumbered.take(request >= 0)
    steps = cast(StepTable, spool.tables[StepTable.NAME])
    gpu_uuids = run.processes.infos[run.processes.of_spool[position]].gpu_uuids
    changed[StepTable.NAME] = replace(steps, device=step_devices(spool, gpu_uuids, run.state))
    return changed


def _injected(spools: list[SpoolContents]) -> list[dict[str, Any]]:
    return [spool.stats["inject"] for spool in spools if "inject" in spool.stats]


def _unrecorded(run: TracedRun, kernels: list[KernelMerge]) -> TraceWindowTable:
    """A window without length for each injected process that never recorded: having none means throughout."""
    found = []
    for index, spools in run.by_process():
        injected = _injected(spools)
        num_windows = sum(len(spool.tables[TraceWindowTable.NAME]) for spool in spools)
        if injected and not num_windows and not kernels[index].last_end_ns:
            found.append((index, int(injected[0].get("start_ns") or run.state.start_ns)))
    process, start = np.array(found, np.int64).reshape(-1, 2).T
    return TraceWindowTable.from_columns(process=process, start_ns=start, end_ns=start)


def _killed(run: TracedRun, kernels: list[KernelMerge]) -> dict[int, int]:
    """For each injected process that could not close its spool, the end of its last kernel."""
    killed = {}
    for index, spools in run.by_process():
        injected = _injected(spools)
        if injected and not injected[-1].get("end_ns"):
            killed[index] = kernels[index].last_end_ns
    return killed
