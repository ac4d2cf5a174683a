"""Any command, traced: started under injection, followed with all its processes, finalized when they are over."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Final

from qmeter_native.capture.control import CONTROL_FILE, ControlBlock
from qmeter_native.capture.control_socket import ControlServer
from qmeter_native.capture.driving import RunPhase, RunStatus
from qmeter_native.capture.forwarded_signals import forwarded_signals
from qmeter_native.capture.gpu_lock import GpuLock
from qmeter_native.capture.identity import printable
from qmeter_native.capture.launch_environment import check_no_profiler, traced_environment
from qmeter_native.capture.no_tracing import record_no_tracing
from qmeter_native.capture.process_tree import ProcessTree
from qmeter_native.capture.server_load import ServerLoad
from qmeter_native.capture.session import Session, SessionOptions
from qmeter_native.capture.spool_progress import SpoolCounts, SpoolProgress
from qmeter_native.capture.trace_schedule import TraceSchedule, TraceTimes
from qmeter_native.errors import QmeterError, UsageError
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import EngineInfo
from qmeter_native.storage.schema import SPOOL_FOLDER

__all__ = ["LOG_FILE", "LaunchOptions", "LaunchResult", "launch"]

LOG_FILE: Final = "server.log"
"""Its name in the capture's folder."""

_TICK_S: Final = 0.02
_WRITE_S: Final = 1.2
"""Twice what it takes until all is on disk: 20 ms to see the control block, 0.3 s in CUPTI, 0.3 s in the spool."""


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """What to run and what to collect.

    Attributes:
        command: The command and its arguments.
        session: Devices, energy and whether kernels are traced.
        times: When kernels are recorded.
        load: What to ask of the command, which is a server then; None: it does what it does until it ends.
        engine: The engine as far as the launcher knows it; its plugin tells the rest.
        idle_s: How long the idle power is measured: before the command starts or, with a load, when it is warm.
        grace_s: How long to wait for processes that outlive the command.
        log: Write what the command prints to ``server.log`` in the capture instead of to the terminal.
        notes: Validity entries (code, message) that the caller knows of.
    """

    command: tuple[str, ...]
    session: SessionOptions = field(default_factory=SessionOptions)
    times: TraceTimes = field(default_factory=TraceTimes)
    load: ServerLoad | None = None
    engine: EngineInfo | None = None
    idle_s: float = 2.0
    grace_s: float = 10.0
    log: bool = False
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LaunchResult:
    """How it went.

    Attributes:
        capture: The finished capture.
        exit_code: The command's, as shells count it: 128 + n for signal n.
        failure: Why the load was not done, None if it was or there was none.
        finalize_s: Seconds that it took to make the capture from the spools.
    """

    capture: Capture
    exit_code: int
    failure: QmeterError | None
    finalize_s: float


def launch(
    path: Path,
    options: LaunchOptions,
    *,
    stop: Event | None = None,
    observe: Callable[[RunStatus], None] = lambda _: None,
) -> LaunchResult:
    """Run a command, traced, and leave the capture ``path`` behind.

    Must be called from the main thread: SIGTERM and SIGHUP are passed on to the command, SIGUSR1 switches tracing on
    and off. Once the command runs, whatever happens leaves a capture behind.

    Args:
        path: Directory to create.
        options: What to do.
        stop: When set, the command is interrupted; what it does until it ends is still captured. A KeyboardInterrupt
            after that kills it.
        observe: Told about progress.

    Raises:
        UsageError: There is no such command, or another server has its port; nothing is left at ``path``.
        KeyboardInterrupt: ``stop`` was set before the command was started; nothing is left at ``path``.
        DeviceError: Another profiler is attached.
        CaptureError: ``path`` exists or cannot be written.
    """
    if shutil.which(options.command[0]) is None:
        raise UsageError(f"there is no command called {options.command[0]!r}", "Check the command after `--`.")
    if options.session.kernels:
        check_no_profiler(os.environ)
    if options.load is not None:
        options.load.check_no_server()
    session = Session(path, replace(options.session, kernels=False))
    locks = GpuLock(session.state.devices)
    run = _Launch(session, options, stop or Event(), observe)
    try:
        run.describe(locks.others)
        exit_code, failure = run.run()
    except BaseException:
        session.discard() if run.tree is None else session.close()
        raise
    finally:
        locks.close()
    observe(RunStatus(RunPhase.WRITING))
    begin = time.monotonic()
    capture = session.close()
    return LaunchResult(capture, exit_code, failure, time.monotonic() - begin)


class _Launch:
    """One run. ``tree`` is None until the command has been started."""

    def __init__(
        self, session: Session, options: LaunchOptions, stop: Event, observe: Callable[[RunStatus], None]
    ) -> None:
        self._session = session
        self._options = options
        self._stop = stop
        self._observe = observe
        self._spools = session.path / SPOOL_FOLDER
        self._progress = SpoolProgress(self._spools)
        self.tree: ProcessTree | None = None

    def describe(self, others: dict[int, str]) -> None:
        """Tell the capture what is known before the command runs."""
        session, options = self._session, self._options
        if options.engine is not None:
            session.describe(engine=options.engine)
        session.describe(workload={"command": [printable(word) for word in options.command]})
        record_no_tracing(session.spool, session.state.start_ns)
        for code, message in options.notes:
            session.warn(code, message)
        for index, holder in others.items():
            session.warn(
                "gpu_shared",
                f"Another trace ({holder}) measures this GPU at the same time: the energy is that of both.",
                f"device {index}",
            )

    def run(self) -> tuple[int, QmeterError | None]:
        """The command's exit code, and what kept its load from being done."""
        options, session = self._options, self._session
        control = ControlBlock(self._spools / CONTROL_FILE)
        environment = traced_environment(
            os.environ, session.path, kernels=options.session.kernels, cupti_path=options.session.cupti_path
        )
        self._measure_idle()
        log = session.path / LOG_FILE if options.log else None
        schedule = TraceSchedule(control, options.times)  # before the command: a short one is over within milliseconds
        server = ControlServer(session.path, schedule, self._count)
        try:
            self.tree = tree = ProcessTree(options.command, environment, log)
            with forwarded_signals(tree, schedule):
                failure = self._run_to_end(tree, schedule)
                is_over = self._wait_for_survivors(tree)
        finally:
            server.close()
            schedule.stop()
            control.close()
        if not session.state.measure_end_ns:  # a load ends the measured window itself
            session.end()
        self._note_end(tree, is_over)
        return tree.exit_code, failure

    def _measure_idle(self) -> None:
        """Before the command starts, unless a load will measure it when the server is warm."""
        session, options = self._session, self._options
        if options.load is None and options.idle_s > 0:
            self._observe(RunStatus(RunPhase.IDLE))
            session.measure_idle(options.idle_s, self._stop.wait)
            if session.is_cuda and session.has_energy:
                session.warn(
                    "idle_without_context",
                    "Idle power was measured before the command started: a GPU with a CUDA context may draw more.",
                )
        if self._stop.is_set():
            raise KeyboardInterrupt

    def _run_to_end(self, tree: ProcessTree, schedule: TraceSchedule) -> QmeterError | None:
        """Until the command has ended. A second Ctrl-C, wherever it comes, kills it; the capture is still finished."""
        failure = None
        try:
            if self._options.load is not None:
                failure = self._serve(tree, schedule, self._options.load)
            else:
                self._follow(tree, schedule)
            self._end(tree)
        except KeyboardInterrupt:
            self._stop.set()
            tree.kill()
        except Exception:
            self._end(tree)  # a server without its launcher would hold the GPU for ever
            raise
        return failure

    def _follow(self, tree: ProcessTree, schedule: TraceSchedule) -> None:
        """Until the command ends or the user ends it."""
        self._session.begin()
        self._observe(RunStatus(RunPhase.COMMAND))
        while tree.poll() is None and not self._stop.is_set():
            schedule.tick()
            time.sleep(_TICK_S)

    def _serve(self, tree: ProcessTree, schedule: TraceSchedule, load: ServerLoad) -> QmeterError | None:
        """Give the server its load; what kept it from being done."""
        try:
            load.drive(
                self._session,
                is_alive=lambda: tree.poll() is None,
                idle_s=self._options.idle_s,
                tick=schedule.tick,
                stop=self._stop,
                observe=self._observe,
            )
        except QmeterError as error:
            if tree.poll() is not None:
                self._session.warn("command_ended", f"The server ended with exit code {tree.exit_code}.")
            self._session.warn("load_failed", f"The workload was not done: {error.what}")
            return error
        finally:
            self._let_write(tree, schedule)
        return None

    @staticmethod
    def _let_write(tree: ProcessTree, schedule: TraceSchedule) -> None:
        """Stop tracing and wait until all is on disk: vLLM ends its workers without giving them time for that."""
        schedule.stop()
        if tree.poll() is None:
            time.sleep(_WRITE_S)

    def _end(self, tree: ProcessTree) -> None:
        """End the command if it still runs."""
        if tree.poll() is None:
            self._observe(RunStatus(RunPhase.ENDING))
            tree.end(is_ctrl_c=self._stop.is_set())

    def _wait_for_survivors(self, tree: ProcessTree) -> bool:
        """Whether nothing outlived the command by more than the grace time. Ctrl-C ends the wait, and harms nobody."""
        was_stopped = self._stop.is_set()
        try:
            return tree.wait_for_all(self._options.grace_s, lambda: self._stop.is_set() and not was_stopped)
        except KeyboardInterrupt:
            return False

    def _count(self) -> tuple[int, SpoolCounts]:
        return 0 if self.tree is None else len(self.tree.descendants()), self._progress.update()

    def _note_end(self, tree: ProcessTree, is_over: bool) -> None:
        session = self._session
        if self._stop.is_set():
            session.warn("interrupted", "The run was interrupted; the capture holds what was done until then.")
        if not is_over:
            left = ", ".join(map(str, tree.descendants()))
            session.warn("outlived", f"Processes outlived the command and were left alone, no longer traced: {left}.")
        if self._options.session.kernels and not self._progress.update().num_traced:
            session.warn(
                "no_cuda", "No process of the command initialised CUDA: there are no kernels, and the energy is idle."
            )
