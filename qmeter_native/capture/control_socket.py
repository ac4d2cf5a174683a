"""The control socket of a running trace: one JSON line asks, one answers.

``{"do": "start", "duty": "0.2/2" or null}``, ``{"do": "stop"}``, ``{"do": "status"}``; answered by a `TraceStatus` as
JSON, or ``{"error": text, "hint": text or null}``.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Final

from qmeter_native.capture.control import DutyCycle
from qmeter_native.capture.spool_progress import SpoolCounts
from qmeter_native.capture.trace_schedule import TraceSchedule
from qmeter_native.errors import CaptureError, CaptureNotFoundError, QmeterError, UsageError
from qmeter_native.storage.schema import MANIFEST_FILE, SPOOL_FOLDER

__all__ = ["ControlServer", "TraceStatus", "ask"]

SOCKET_FILE: Final = "control.sock"
_ADDRESS_FILE: Final = "control.address"
"""Holds where the socket is if the capture's own path is too long for one."""

_MAX_PATH_BYTES: Final = 107
"""``sizeof(sockaddr_un.sun_path)`` less the terminating zero."""

_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class TraceStatus:
    """How a running trace stands.

    Attributes:
        mode: ``stopped``, ``running`` or ``duty_cycled``.
        duty: ``ON/PERIOD`` in seconds while duty-cycled, else None.
        elapsed_s: Since the command was started.
        num_processes: Processes of the command that live.
        num_traced: Processes that were traced so far, living or not.
        num_kernels: Kernels that they have written; the newest are still in their memory.
        spool_bytes: What they have written.
    """

    mode: str
    duty: str | None
    elapsed_s: float
    num_processes: int
    num_traced: int
    num_kernels: int
    spool_bytes: int


class ControlServer:
    """Constructed = listening, on a thread of its own, in the capture's folder.

    Args:
        capture: The capture's folder.
        schedule: What `start` and `stop` act on.
        count: Living processes, and what their spools hold.

    Raises:
        CaptureError: No socket can be made there.
    """

    def __init__(self, capture: Path, schedule: TraceSchedule, count: Callable[[], tuple[int, SpoolCounts]]) -> None:
        self._schedule = schedule
        self._count = count
        self._capture = capture
        self._folder: Path | None = None
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = _TIMEOUT_S

            def handle(self) -> None:
                try:
                    self.wfile.write(json.dumps(outer._answer(self.rfile.readline())).encode() + b"\n")
                except OSError:  # whoever asked has gone
                    return

        try:
            path = self._path()
            self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        except OSError as error:
            raise CaptureError(f"no control socket can be made in {capture}: {error.strerror}") from error
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), name="qmeter-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for path in (self._capture / SOCKET_FILE, self._capture / _ADDRESS_FILE):
            path.unlink(missing_ok=True)
        if self._folder is not None:
            (self._folder / SOCKET_FILE).unlink(missing_ok=True)
            self._folder.rmdir()

    def _path(self) -> Path:
        path = self._capture.absolute() / SOCKET_FILE
        if len(os.fsencode(path)) <= _MAX_PATH_BYTES:
            return path
        self._folder = Path(tempfile.mkdtemp(prefix="qmeter-"))
        (self._capture / _ADDRESS_FILE).write_text(str(self._folder / SOCKET_FILE))
        return self._folder / SOCKET_FILE

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            self._do(request["do"], request.get("duty"))
        except QmeterError as error:
            return {"error": error.what, "hint": error.hint}
        except (ValueError, KeyError, TypeError, AttributeError):
            return {"error": "that is no request", "hint": None}
        living, counts = self._count()
        duty = self._schedule.duty
        return asdict(
            TraceStatus(
                mode=self._schedule.mode.name.lower(),
                duty=None if duty is None else f"{duty.on_s:g}/{duty.period_s:g}",
                elapsed_s=self._schedule.elapsed_s,
                num_processes=living,
                num_traced=counts.num_traced,
                num_kernels=counts.num_kernels,
                spool_bytes=counts.num_bytes,
            )
        )

    def _do(self, action: str, duty: str | None) -> None:
        if action == "start":
            self._schedule.start(None if duty is None else DutyCycle.parse(duty))
        elif action == "stop":
            self._schedule.stop()
        elif action != "status":
            raise UsageError(f"a trace cannot {action}")


def ask(capture: Path, action: str, duty: str | None = None) -> TraceStatus:
    """Ask the launcher of a running trace to ``start``, ``stop`` or tell its ``status``.

    Raises:
        CaptureNotFoundError: There is nothing at ``capture``, or a folder of another kind.
        CaptureError: Its trace is over, does not answer, or belongs to somebody else.
        UsageError: ``duty`` is no duty cycle.
    """
    is_over = (capture / MANIFEST_FILE).exists()
    if not is_over and not (capture / SPOOL_FOLDER).is_dir():
        raise CaptureNotFoundError(f"there is no trace at {capture}", "Name the folder NAME.qmt of a running trace.")
    address = capture / _ADDRESS_FILE
    path = Path(address.read_text()) if address.exists() else capture / SOCKET_FILE
    try:
        answer = _exchange(path, {"do": action, "duty": duty})
    except (FileNotFoundError, ConnectionRefusedError):
        what = "is finished" if is_over else "has no launcher any more"
        raise CaptureError(f"the trace {capture} {what}", f"Look at it: qmeter-native report {capture}") from None
    except (OSError, ValueError) as error:
        raise CaptureError(f"the launcher of {capture} does not answer: {error}", "Is it yours, and alive?") from error
    if "error" in answer:
        raise UsageError(answer["error"], answer["hint"])
    return TraceStatus(**answer)


def _exchange(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(os.path.relpath(path) if len(os.fsencode(path)) > _MAX_PATH_BYTES else str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as answer:
            document: dict[str, Any] = json.loads(answer.readline())
    return document
