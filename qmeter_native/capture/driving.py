"""From a serving engine to recorded requests: warm-up, idle power, workload. Every kind of run passes through here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from threading import Event
from typing import Any, Final

from qmeter_native.capture.request_recorder import record_requests
from qmeter_native.capture.session import Session
from qmeter_native.engines.protocol import Engine
from qmeter_native.units import mw_to_w, uj_to_j
from qmeter_native.workload.load_generator import LoadResult, Progress, run_workload, warm_up
from qmeter_native.workload.workload import Workload

__all__ = ["RunPhase", "RunStatus", "drive"]

_SHOW_PERIOD_NS: Final = 100_000_000
"""A person reads no faster, and a step of 64 requests brings 64 chunks."""


class RunPhase(Enum):
    """Where a run is. The value is what a person is told."""

    WAITING = "waiting for the server"
    LOADING = "loading the model"
    WARM_UP = "warming up"
    IDLE = "measuring idle power"
    SERVING = "serving"
    COMMAND = "tracing the command"
    ENDING = "waiting for the command to end"
    WRITING = "writing the capture"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What there is to show of a running run. ``power_w`` and ``energy_j`` are None where nothing measures them."""

    phase: RunPhase
    progress: Progress | None = None
    power_w: float | None = None
    energy_j: float | None = None


def drive(
    session: Session,
    engine: Engine,
    workload: Workload,
    *,
    idle_s: float,
    stop: Event,
    observe: Callable[[RunStatus], None],
) -> LoadResult:
    """Give a serving engine its workload and record what the clients saw.

    The measured window of ``session`` is that of the workload. Engine and session stay open, and what engine it was is
    left to the caller to describe.

    Args:
        session: Collects meanwhile.
        engine: Serves.
        workload: What to send, warm-up included.
        idle_s: How long the idle power is measured, after warm-up; 0 = not at all.
        stop: When set, no more is sent; what was received until then is recorded.
        observe: Told about progress, about every 100 ms while serving.

    Raises:
        EngineError: The engine failed on a warm-up request. Later failures are in the result and the capture.
    """
    session.describe(workload=workload.describe())
    observe(RunStatus(RunPhase.WARM_UP))
    warm_up(engine, workload, stop)
    if idle_s > 0 and session.has_energy:
        observe(RunStatus(RunPhase.IDLE))
        session.measure_idle(idle_s, stop.wait)
    session.begin()
    result = run_workload(engine, workload, stop=stop, progress=_Display(session, observe).show)
    session.end()
    record_requests(session.spool, result.requests, result.output_tokens)
    session.describe(workload=result.description)
    if result.description.get("num_count_mismatches"):
        session.warn(
            "token_counts_differ", "The chunks of some answers hold other numbers of tokens than their totals."
        )
    if result.failure is not None:
        session.warn("engine_failed", f"The engine did not do all of the workload: {result.failure}")
    elif stop.is_set():
        session.warn("interrupted", "The run was interrupted; the capture holds what was done until then.")
    return result


class _Display:
    """Adds power and energy to the progress of a workload."""

    def __init__(self, session: Session, observe: Callable[[RunStatus], None]) -> None:
        self._session = session
        self._observe = observe
        self._start_uj: dict[int, int] = {}
        self._shown_ns = 0

    def show(self, progress: Progress) -> None:
        now_ns = time.monotonic_ns()
        if now_ns - self._shown_ns < _SHOW_PERIOD_NS:
            return
        self._shown_ns = now_ns
        live = self._session.live()
        self._observe(RunStatus(RunPhase.SERVING, progress, _power_w(live), self._energy_j(live)))

    def _energy_j(self, live: list[dict[str, Any]]) -> float | None:
        """Joules since the first reading of each device while serving."""
        now_uj = {reading["index"]: reading["energy_uj"] for reading in live if reading["energy_uj"] is not None}
        self._start_uj = {**now_uj, **self._start_uj}
        return uj_to_j(sum(now_uj[index] - self._start_uj[index] for index in now_uj)) if now_uj else None


def _power_w(live: list[dict[str, Any]]) -> float | None:
    powers = [reading["power_mw"] for reading in live if reading["power_mw"] is not None]
    return mw_to_w(sum(powers)) if powers else None
