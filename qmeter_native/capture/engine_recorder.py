"""What a plugin inside a serving engine's process records: a spool of its own beside that of the injected library.

The environment of the traced command (`docs/vllm.md`) says where to; without it nothing is recorded. Nothing here may
harm the engine: whatever fails ends the recording, leaves one note in the capture, and is never raised.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from qmeter_native.capture.identity import Identity
from qmeter_native.capture.launch_environment import INJECTION, SPOOL_DIR
from qmeter_native.capture.lazy_marker import LazyMarker
from qmeter_native.capture.native import load_native
from qmeter_native.model.manifest import EngineInfo, Validity
from qmeter_native.storage.spool_records import RECORD_DTYPES, RecordKind

__all__ = ["EngineRecorder", "EngineRequest", "engine_recorder", "has_recorder"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A row of `EngineRequestTable` without its process, in the order of its record; ``reason`` is text here."""

    request: int
    arrival_ns: int
    first_schedule_ns: int
    first_token_ns: int
    finish_ns: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    is_finished: bool
    reason: str


class EngineRecorder:
    """The spool of an engine in this process; get it from `engine_recorder`.

    Several parts of an engine may share it: a worker and a scheduler in one process. The last one that releases it
    closes it, and so does the end of the process.

    Args:
        spool: ``_native.Spool``.
        marker: Launches a marker kernel, None where kernels are not traced.
        first_step: Number of the first step.
    """

    def __init__(self, spool: Any, marker: LazyMarker | None, first_step: int = 0) -> None:
        self.marker = marker
        self.is_recording = True
        self.is_closed = False
        self._spool = spool
        self._step_numbers = count(first_step)
        self._request_numbers = count()
        self._step = np.zeros(1, RECORD_DTYPES[RecordKind.STEP])
        self._closers: list[Callable[[], None]] = []
        self._num_users = 0
        self._engine: EngineInfo | None = None
        self._placement: dict[str, Any] = {"device_uuid": None, "tensor_parallel": None}
        self._notes: list[Validity] = []

    def attempt(self, record: Callable[..., _T], *args: Any) -> _T | None:
        """``record(*args)``; None once recording has ended. An exception ends it."""
        if not self.is_recording:
            return None
        try:
            return record(*args)
        except Exception as error:
            self.is_recording = False
            with suppress(Exception):
                self.warn("engine_recording_failed", f"Steps and requests after this are unknown: {_words(error)}")
            return None

    def next_step(self) -> int:
        """Number of the step that begins now: 0, 1, …"""
        return next(self._step_numbers)

    def number(self, name: str) -> int:
        """A new number for the request that the engine calls ``name``, written before any record that uses it."""
        number = next(self._request_numbers)
        self._append(RecordKind.REQUEST_ID, (number, self._spool.write_string(name)))
        return number

    def step(
        self,
        step: int,
        start_ns: int,
        end_ns: int,
        *,
        device: int,
        num_markers: int,
        num_padded: int,
        rows: NDArray[Any],
    ) -> None:
        """A step has ended.

        Args:
            step: From `next_step`.
            start_ns: The engine's call began (CLOCK_REALTIME).
            end_ns: It returned.
            device: CUDA ordinal in this process.
            num_markers: Marker kernels launched for it, 0 or 2.
            num_padded: Tokens the device computes; -1 = unknown.
            rows: Records of kind STEP_REQUEST, one a request.
        """
        self._step[0] = (step, start_ns, end_ns, device, 0, num_markers, num_padded)
        self._spool.append(RecordKind.STEP, self._step)
        self._spool.append(RecordKind.STEP_REQUEST, rows)

    def request(self, request: EngineRequest) -> None:
        """A request has left the scheduler, or the scheduler ends."""
        *values, reason = (getattr(request, name) for name in EngineRequest.__slots__)
        self._append(RecordKind.ENGINE_REQUEST, (*values, self._spool.intern(reason)))

    def preemption(self, request: int, time_ns: int) -> None:
        """A running request was put back into the queue."""
        self._append(RecordKind.PREEMPTION, (request, time_ns))

    def describe(
        self, engine: EngineInfo, *, device_uuid: str | None = None, tensor_parallel: int | None = None
    ) -> None:
        """Say what runs here; what was said before and is not said now stays."""
        if self._engine is not None:
            engine = replace(
                engine,
                effective={**self._engine.effective, **engine.effective},
                weights_source=engine.weights_source or self._engine.weights_source,
            )
        self._engine = engine
        said = {"device_uuid": device_uuid, "tensor_parallel": tensor_parallel}
        self._placement.update({key: value for key, value in said.items() if value is not None})
        self._publish()

    def warn(self, code: str, message: str, subject: str = "") -> None:
        """Add an entry to the capture's validity, once."""
        note = Validity(code, message, subject)
        if note not in self._notes:
            self._notes.append(note)
            self._publish()

    def hold(self) -> EngineRecorder:
        """One more part of the engine uses this recorder."""
        self._num_users += 1
        return self

    def release(self) -> None:
        """One part of the engine has ended; the last one closes."""
        self._num_users -= 1
        if self._num_users <= 0:
            self.close()

    def at_close(self, finish: Callable[[], None]) -> None:
        """Have ``finish`` called before the spool is closed."""
        self._closers.append(finish)

    def close(self) -> None:
        """Write what is queued and close. Idempotent, never raises."""
        if self.is_closed:
            return
        self.is_closed = True
        for finish in self._closers:
            self.attempt(finish)
        self.is_recording = False
        with suppress(Exception):
            if self.marker is not None and self.marker.failure is not None:
                self.warn("markers_absent", f"Steps are not bounded on the device: {self.marker.failure}")
            self._spool.append_stats(json.dumps({"name": "spool", **self._spool.stats()}))
            self._spool.close()

    def _append(self, kind: RecordKind, record: tuple[Any, ...]) -> None:
        self._spool.append(kind, np.array([record], RECORD_DTYPES[kind]))

    def _publish(self) -> None:
        stats = {
            "name": "engine",
            "engine": None if self._engine is None else asdict(self._engine),
            "validity": [asdict(note) for note in self._notes],
            **self._placement,
        }
        self._spool.append_stats(json.dumps(stats, default=str))


_current: tuple[int, EngineRecorder | None] | None = None
"""The process that asked last, and its recorder: after a fork the child needs one of its own."""


def engine_recorder(rank: int | None = None) -> EngineRecorder | None:
    """This process's recorder, opened when first asked for, and anew for another engine when it was closed.

    Args:
        rank: The process's rank in the engine's parallel group; counts only when the recorder is opened.

    Returns:
        None where nothing is recorded: ``QMETER_SPOOL_DIR`` is not set, or no spool can be written there.
    """
    global _current
    pid, recorder = _current or (0, None)
    if pid == os.getpid() and not (recorder is not None and recorder.is_closed):
        return recorder
    first_step = recorder.next_step() if pid == os.getpid() and recorder is not None else 0
    try:
        recorder = _open(rank, first_step)
    except Exception:  # there is no place to say it; the launcher sees that the spool is missing
        recorder = None
    _current = (os.getpid(), recorder)
    return recorder


def has_recorder() -> bool:
    """Somebody in this process asked for a recorder."""
    return _current is not None and _current[0] == os.getpid()


def _open(rank: int | None, first_step: int) -> EngineRecorder | None:
    folder = os.environ.get(SPOOL_DIR)
    if not folder:
        return None
    native = load_native()
    identity = replace(Identity.of_this_process(), rank=rank)
    spool = native.Spool(
        str(_free_path(Path(folder), identity.stem)),
        identity=json.dumps({**identity.to_dict(), "role": "engine"}),
    )
    marker = LazyMarker(native) if os.environ.get(INJECTION) else None  # else it would be launched for nobody
    recorder = EngineRecorder(spool, marker, first_step)
    # multiprocessing's children end by os._exit(), which runs its finalizers and no atexit function
    Finalize(None, recorder.close, exitpriority=0)
    return recorder


def _free_path(folder: Path, stem: str) -> Path:
    """The first that is free: a process may have had an engine before, and keeps its pid when it exec()s."""
    return next(path for number in count() if not (path := folder / f"{stem}-engine{number}.qms").exists())


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
