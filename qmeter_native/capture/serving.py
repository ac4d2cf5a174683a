"""A traced serving run: session, engine and workload together, from loading to the finished capture."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from threading import Event
from typing import Any

from qmeter_native.capture.lazy_marker import LazyMarker
from qmeter_native.capture.native import load_native
from qmeter_native.capture.request_recorder import record_requests
from qmeter_native.capture.session import Session, SessionOptions
from qmeter_native.capture.step_recorder import StepRecorder
from qmeter_native.engines.options import EngineOptions
from qmeter_native.engines.protocol import Engine
from qmeter_native.errors import DeviceError
from qmeter_native.model.capture import Capture
from qmeter_native.units import mw_to_w, uj_to_j
from qmeter_native.workload.load_generator import LoadResult, Progress, run_workload, warm_up
from qmeter_native.workload.workload import Workload

__all__ = ["RunPhase", "RunStatus", "ServingOptions", "ServingResult", "serve"]

_SHOW_PERIOD_NS = 100_000_000  # a person reads no faster, and a step of 64 requests brings 64 chunks


class RunPhase(Enum):
    """Where a run is. The value is what a person is told."""

    LOADING = "loading the model"
    WARM_UP = "warming up"
    IDLE = "measuring idle power"
    SERVING = "serving"
    WRITING = "writing the capture"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What there is to show of a running run. ``power_w`` and ``energy_j`` are None where nothing measures them."""

    phase: RunPhase
    progress: Progress | None = None
    power_w: float | None = None
    energy_j: float | None = None


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """What to serve, on what, and what to collect meanwhile.

    ``idle_s`` is how long the idle power is measured, model loaded and warmed up, before the first request.
    """

    engine: EngineOptions
    workload: Workload
    session: SessionOptions = field(default_factory=SessionOptions)
    idle_s: float = 2.0


@dataclass(frozen=True, slots=True)
class ServingResult:
    """The finished capture; ``failure`` says why the engine stopped in mid-run, None if it did not."""

    capture: Capture
    failure: str | None


def serve(
    path: Path,
    options: ServingOptions,
    *,
    stop: Event | None = None,
    observe: Callable[[RunStatus], None] = lambda _: None,
) -> ServingResult:
    """Serve a workload, traced, and leave the capture ``path`` behind.

    Args:
        path: Directory to create.
        options: What to do.
        stop: When set, no more is sent and what has been captured is finalized.
        observe: Told about progress, about every 100 ms while serving.

    Raises:
        EngineError: The engine could not start; nothing is left at ``path``.
        CaptureError: ``path`` exists or cannot be written.
    """
    stop = stop or Event()
    session = Session(path, options.session)
    try:
        failure = _Run(session, options, stop, observe).run()
    except BaseException:
        session.close() if session.state.measure_start_ns else session.discard()
        raise
    observe(RunStatus(RunPhase.WRITING))
    return ServingResult(session.close(), failure)


class _Run:
    def __init__(
        self, session: Session, options: ServingOptions, stop: Event, observe: Callable[[RunStatus], None]
    ) -> None:
        self._session = session
        self._options = options
        self._stop = stop
        self._observe = observe
        self._start_uj: dict[int, int] = {}
        self._shown_ns = 0
        self._marker: LazyMarker | None = None
        self._operators = session.operators() if options.session.kernels else None

    def run(self) -> str | None:
        """Serve; the reason if the engine failed in mid-run."""
        try:
            result = self._load_and_serve()
        finally:
            if self._operators is not None:  # a profiler that still runs crashes the interpreter when it ends
                self._session.describe(tracer=self._operators.close())
        self._keep(result)
        return result.failure

    def _load_and_serve(self) -> LoadResult:
        from qmeter_native.engines.transformers_engine import TransformersEngine

        self._observe(RunStatus(RunPhase.LOADING))
        before_step = None if self._operators is None else self._operators.before_step
        with TransformersEngine(self._options.engine, self._step_recorder(), before_step) as engine:
            self._session.describe(engine=engine.info, workload=self._options.workload.describe())
            self._observe(RunStatus(RunPhase.WARM_UP))
            warm_up(engine, self._options.workload)
            if self._options.idle_s > 0 and self._session.has_energy:
                self._observe(RunStatus(RunPhase.IDLE))
                self._session.measure_idle(self._options.idle_s, self._stop.wait)
            return self._serve(engine)

    def _step_recorder(self) -> StepRecorder:
        session = self._session
        if not session.is_cuda:
            return StepRecorder(session.spool, session.state.devices[0].index, None)
        if session.has_kernels:
            self._marker = LazyMarker(load_native())
        return StepRecorder(session.spool, self._cuda_device(), self._marker)

    def _cuda_device(self) -> int:
        """DeviceInfo.index of the GPU that the engine runs on."""
        _, _, ordinal = self._options.engine.device.partition(":")
        devices = self._session.state.cuda_devices
        if int(ordinal or 0) >= len(devices):
            raise DeviceError(
                f"there is no cuda:{ordinal or 0}: CUDA_VISIBLE_DEVICES leaves {len(devices)} GPUs visible",
                "Choose another --device, or change CUDA_VISIBLE_DEVICES.",
            )
        return devices[int(ordinal or 0)]

    def _serve(self, engine: Engine) -> LoadResult:
        self._session.begin()
        self._start_uj = {}
        result = run_workload(engine, self._options.workload, stop=self._stop, progress=self._show)
        self._session.end()
        return result

    def _show(self, progress: Progress) -> None:
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

    def _keep(self, result: LoadResult) -> None:
        record_requests(self._session.spool, result.requests, result.output_tokens)
        self._session.describe(workload=result.description)
        if self._marker is not None and self._marker.failure is not None:
            self._session.warn("markers_absent", f"Steps are not bounded on the device: {self._marker.failure}")
        if result.failure is not None:
            self._session.warn("engine_failed", f"The engine stopped before the workload was done: {result.failure}")
        elif self._stop.is_set():
            self._session.warn("interrupted", "The run was interrupted; the capture holds what was done until then.")


def _power_w(live: list[dict[str, Any]]) -> float | None:
    powers = [reading["power_mw"] for reading in live if reading["power_mw"] is not None]
    return mw_to_w(sum(powers)) if powers else None
