"""Traced serving runs, from loading to the finished capture: the embedded engine, and a server that runs already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event

from qmeter_native.capture.driving import RunPhase, RunStatus, drive
from qmeter_native.capture.lazy_marker import LazyMarker
from qmeter_native.capture.native import load_native
from qmeter_native.capture.no_tracing import record_no_tracing
from qmeter_native.capture.session import Session, SessionOptions
from qmeter_native.capture.step_recorder import StepRecorder
from qmeter_native.engines.openai_server import OpenAIServer
from qmeter_native.engines.options import EngineOptions
from qmeter_native.errors import DeviceError
from qmeter_native.model.capture import Capture
from qmeter_native.workload.load_generator import LoadResult
from qmeter_native.workload.workload import Workload

__all__ = [
    "ExternalOptions",
    "ServingOptions",
    "ServingResult",
    "serve",
    "serve_external",
]


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
class ExternalOptions:
    """A running OpenAI-compatible server, what to ask of it, and what to collect meanwhile.

    Attributes:
        base_url: Such as ``http://localhost:8000``.
        workload: What to send.
        model: Id of one of the server's models; the first one if None.
        api_key: Sent as bearer token; never recorded.
        timeout_s: Longest silence of a request before it fails.
        vocab_size: Number of token ids, where the model's files are not on this machine.
        session: What to collect. Kernels of a server that runs already cannot be traced, and the energy of another
            machine cannot be read.
        idle_s: How long the idle power is measured, warmed up, before the first request.
    """

    base_url: str
    workload: Workload
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 600.0
    vocab_size: int | None = None
    session: SessionOptions = field(default_factory=SessionOptions)
    idle_s: float = 2.0


@dataclass(frozen=True, slots=True)
class ServingResult:
    """The finished capture; ``failure`` says why the engine failed in mid-run, None if it did not."""

    capture: Capture
    failure: str | None


def serve(
    path: Path,
    options: ServingOptions,
    *,
    stop: Event | None = None,
    observe: Callable[[RunStatus], None] = lambda _: None,
) -> ServingResult:
    """Serve a workload with the embedded engine, traced, and leave the capture ``path`` behind.

    Args:
        path: Directory to create.
        options: What to do.
        stop: When set, no more is sent and what has been captured is finalized.
        observe: Told about progress, about every 100 ms while serving.

    Raises:
        EngineError: The engine could not start; nothing is left at ``path``.
        CaptureError: ``path`` exists or cannot be written.
    """
    run = _EmbeddedRun(options, stop or Event(), observe)
    return _captured(Session(path, options.session), run.run, observe)


def serve_external(
    path: Path,
    options: ExternalOptions,
    *,
    stop: Event | None = None,
    observe: Callable[[RunStatus], None] = lambda _: None,
) -> ServingResult:
    """Give a running server a workload, measure its latencies, and leave the capture ``path`` behind.

    On this host the energy of the devices is sampled too, all that runs on them together. Nothing is known of kernels
    and steps: for these, launch the server under `qmeter-native trace -- COMMAND`.

    Args:
        path: Directory to create.
        options: What to do.
        stop: When set, no more is sent and what has been captured is finalized.
        observe: Told about progress, about every 100 ms while serving.

    Raises:
        EngineError: Nobody answers, or nobody who can be used; nothing is left at ``path``.
        CaptureError: ``path`` exists or cannot be written.
    """
    is_local = OpenAIServer(options.base_url).is_local
    session = Session(path, replace(options.session, kernels=False, energy=options.session.energy and is_local))

    def run(session: Session) -> LoadResult:
        from qmeter_native.engines.openai_engine import OpenAIEngine

        _warn_of_the_unseen(session, options.base_url, is_local)
        observe(RunStatus(RunPhase.WAITING))
        with OpenAIEngine(
            options.base_url,
            model=options.model,
            api_key=options.api_key,
            timeout_s=options.timeout_s,
            vocab_size=options.vocab_size,
        ) as engine:
            session.describe(engine=engine.info)
            return drive(
                session, engine, options.workload, idle_s=options.idle_s, stop=stop or Event(), observe=observe
            )

    return _captured(session, run, observe)


def _captured(
    session: Session, run: Callable[[Session], LoadResult], observe: Callable[[RunStatus], None]
) -> ServingResult:
    """Run and finalize. A run that fails before its measured window leaves nothing behind."""
    try:
        result = run(session)
    except BaseException:
        session.close() if session.state.measure_start_ns else session.discard()
        raise
    observe(RunStatus(RunPhase.WRITING))
    return ServingResult(session.close(), result.failure)


def _warn_of_the_unseen(session: Session, base_url: str, is_local: bool) -> None:
    record_no_tracing(session.spool, session.state.start_ns)
    if is_local:
        session.warn(
            "kernels_absent",
            "No kernels were traced: the server ran already. `qmeter-native trace -- COMMAND` starts a traced one.",
        )
        return
    reason = "the server runs on another host"
    session.state.devices = [
        replace(device, energy_source=None, energy_absent_reason=reason) for device in session.state.devices
    ]
    session.warn("remote_server", f"{base_url} is on another host: its kernels and energy cannot be seen from here.")


class _EmbeddedRun:
    def __init__(self, options: ServingOptions, stop: Event, observe: Callable[[RunStatus], None]) -> None:
        self._options = options
        self._stop = stop
        self._observe = observe
        self._marker: LazyMarker | None = None

    def run(self, session: Session) -> LoadResult:
        operators = session.operators() if self._options.session.kernels else None
        try:
            result = self._load_and_serve(session, None if operators is None else operators.before_step)
        finally:
            if operators is not None:  # a profiler that still runs crashes the interpreter when it ends
                session.describe(tracer=operators.close())
        if self._marker is not None and self._marker.failure is not None:
            session.warn("markers_absent", f"Steps are not bounded on the device: {self._marker.failure}")
        return result

    def _load_and_serve(self, session: Session, before_step: Callable[[], None] | None) -> LoadResult:
        from qmeter_native.engines.transformers_engine import TransformersEngine

        options = self._options
        self._observe(RunStatus(RunPhase.LOADING))
        with TransformersEngine(options.engine, self._step_recorder(session), before_step) as engine:
            session.describe(engine=engine.info)
            return drive(
                session, engine, options.workload, idle_s=options.idle_s, stop=self._stop, observe=self._observe
            )

    def _step_recorder(self, session: Session) -> StepRecorder:
        if not session.is_cuda:
            return StepRecorder(session.spool, session.state.devices[0].index, None)
        if session.has_kernels:
            self._marker = LazyMarker(load_native())
        return StepRecorder(session.spool, self._cuda_device(session), self._marker)

    def _cuda_device(self, session: Session) -> int:
        """DeviceInfo.index of the GPU that the engine runs on."""
        _, _, ordinal = self._options.engine.device.partition(":")
        devices = session.state.cuda_devices
        if int(ordinal or 0) >= len(devices):
            raise DeviceError(
                f"there is no cuda:{ordinal or 0}: CUDA_VISIBLE_DEVICES leaves {len(devices)} GPUs visible",
                "Choose another --device, or change CUDA_VISIBLE_DEVICES.",
            )
        return devices[int(ordinal or 0)]
