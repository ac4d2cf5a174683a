"""What limits a capture, as its spools show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

from qmeter_native.capture.clock_steps import clock_steps
from qmeter_native.capture.counter_windows import open_devices
from qmeter_native.capture.request_join import JoinedRequests
from qmeter_native.capture.session_state import STATE_NAME
from qmeter_native.capture.traced_run import TracedRun
from qmeter_native.model.manifest import Validity
from qmeter_native.model.tables import CounterTable, CounterWindowTable
from qmeter_native.storage.spool import SpoolContents
from qmeter_native.units import ns_to_s

__all__ = ["WRITE_FAILED", "run_notes"]

WRITE_FAILED: Final = "spool_write_failed"
"""Code of the validity entry that says that a process could not write all that it recorded."""

_PROMPT_NS: Final = 1_000_000_000
"""Loading CUPTI takes some tenths of a second."""

_FAR_NS: Final = (1 << 63) - 1


def run_notes(run: TracedRun, tables: dict[str, Any], joined: JoinedRequests) -> tuple[Validity, ...]:
    """The session's own entries, then what was found; each once."""
    notes = [*run.state.validity, *_of_session(run)]
    for process, spools in run.by_process():
        for spool in spools:
            notes.extend(_of_spool(spool))
            if process not in run.outlived:
                notes.extend(_of_end(spool, process))
        notes.extend(_of_process(run, process, spools, tables))
    notes.extend(_of_requests(tables, joined))
    notes.extend(_of_clocks(run, tables))
    return tuple(dict.fromkeys(notes))


def _of_session(run: TracedRun) -> Iterator[Validity]:
    if not run.state.end_ns:
        yield Validity(
            "recovered", "The traced process ended without closing its capture; what it had written was kept."
        )


def _of_spool(spool: SpoolContents) -> Iterator[Validity]:
    error = spool.stats.get("spool", {}).get("error")
    if error:
        yield Validity(WRITE_FAILED, f"Records after this were lost: {error}", spool.path.name)
    for index in spool.stats.get("energy_sampler", {}).get("devices_lost", []):
        yield Validity("device_lost", "The GPU stopped answering during the run.", f"device {index}")
    for index in open_devices(
        cast(CounterTable, spool.tables[CounterTable.NAME]),
        cast(CounterWindowTable, spool.tables[CounterWindowTable.NAME]),
    ):
        yield Validity(
            "counters_cut_off",
            "The run ended in its counter phase without disabling it: energy up to the last record is in part the "
            "meter's.",
            f"device {index}",
        )
    for entry in spool.stats.get("engine", {}).get("validity", []):
        yield Validity(**entry)


def _of_end(spool: SpoolContents, process: int) -> Iterator[Validity]:
    """Whether a process that is over closed its spool. Of the session's own, `recovered` says it."""
    if "spool" not in spool.stats and STATE_NAME not in spool.stats:
        yield Validity(
            "spool_cut_off",
            "Its process ended without closing its spool (killed, replaced by another program, or no space was left): "
            "up to a second of its records may be missing.",
            f"process {process}",
        )


def _of_process(
    run: TracedRun, process: int, spools: Sequence[SpoolContents], tables: dict[str, Any]
) -> Iterator[Validity]:
    subject = f"process {process}"
    if process in run.outlived:
        yield Validity(
            "outlived",
            "It still ran when the capture was finished: what it wrote until then is here, its spool was left alone.",
            subject,
        )
    for stats in (spool.stats["inject"] for spool in spools if "inject" in spool.stats):
        if stats.get("error"):
            yield Validity("injection_failed", f"Its kernels were not traced: {stats['error']}", subject)
        else:
            yield from _of_tracing(process, int(stats.get("start_ns") or 0), tables)


def _of_tracing(process: int, start_ns: int, tables: dict[str, Any]) -> Iterator[Validity]:
    """Whether tracing was on from the process's beginning."""
    windows, steps = tables["trace_windows"], tables["steps"]
    is_window = windows.process == process
    first_ns = int(windows.start_ns[is_window].min(initial=_FAR_NS))
    first_step_ns = int(steps.start_ns[steps.process == process].min(initial=_FAR_NS))
    if not is_window.any():
        return
    if not (windows.end_ns > windows.start_ns)[is_window].any():
        yield Validity("late_tracing", "Tracing was never switched on while it ran.", f"process {process}")
    elif first_ns > min(start_ns + _PROMPT_NS if start_ns else _FAR_NS, first_step_ns):
        yield Validity(
            "late_tracing",
            f"Tracing began {ns_to_s(first_ns - min(start_ns or first_ns, first_step_ns)):.1f} s after it had started: "
            "of CUDA graphs captured before tracing began, kernels may be unnamed or missing.",
            f"process {process}",
        )


def _of_requests(tables: dict[str, Any], joined: JoinedRequests) -> Iterator[Validity]:
    if joined.num_sent:
        if joined.num_unsent:
            yield Validity(
                "unsent_requests",
                f"{joined.num_unsent} requests were served in the measured window that the load generator did not "
                "send; their times are the engine's own.",
            )
    elif len(tables["engine_requests"]):
        yield Validity(
            "engine_stamps",
            "No client was recorded: latencies are the engine's own, from arrival to the last token in its scheduler.",
        )


def _of_clocks(run: TracedRun, tables: dict[str, Any]) -> Iterator[Validity]:
    """Each step once, however many processes of a host saw it."""
    seen: list[tuple[tuple[str, str], int, int]] = []
    for step in clock_steps(tables["clock_pairs"]):
        info = run.processes.infos[step.process]
        host = (info.host, info.boot_id)
        if any(host == other and step.low_ns <= high and low <= step.high_ns for other, low, high in seen):
            continue
        seen.append((host, step.low_ns, step.high_ns))
        direction = "forward" if step.size_ns > 0 else "back"
        yield Validity(
            "clock_step",
            f"CLOCK_REALTIME was set {direction} by {ns_to_s(abs(step.size_ns)):.6f} s, "
            f"{ns_to_s(step.low_ns - run.state.start_ns):.1f} s after the start: times before and after that do not "
            "compare.",
            f"host {info.host}",
        )
