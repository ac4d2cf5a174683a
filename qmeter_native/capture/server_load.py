"""The load for a server that a launcher has started: wait until it is healthy, then drive it like any engine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from typing import Final
from urllib.parse import urlsplit

from qmeter_native.capture.driving import RunPhase, RunStatus, drive
from qmeter_native.capture.session import Session
from qmeter_native.engines.protocol import Engine
from qmeter_native.engines.server_health import wait_until_healthy
from qmeter_native.errors import UsageError
from qmeter_native.workload.workload import Workload

__all__ = ["ServerLoad"]

_TICK_S: Final = 0.02
_CONNECT_TIMEOUT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """What to send, and where.

    Attributes:
        base_url: Where the server will listen, such as ``http://localhost:8000``.
        workload: What to send.
        startup_timeout_s: How long the server may take until it is healthy.
        vocab_size: Number of token ids; None: as the server's model says, if its files are here.
    """

    base_url: str
    workload: Workload
    startup_timeout_s: float = 600.0
    vocab_size: int | None = None

    def check_no_server(self) -> None:
        """Make sure that nobody listens yet where the server will: the load would go to another one, and its times too.

        Raises:
            UsageError: Somebody does.
        """
        parts = urlsplit(self.base_url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            with socket.create_connection((parts.hostname or "", port), _CONNECT_TIMEOUT_S):
                pass
        except OSError:
            return
        raise UsageError(
            f"another server listens at {self.base_url} already",
            "Give the command and --port another port, or measure that server with --engine openai.",
        )

    def drive(
        self,
        session: Session,
        *,
        is_alive: Callable[[], bool],
        idle_s: float,
        tick: Callable[[], None],
        stop: Event,
        observe: Callable[[RunStatus], None],
    ) -> None:
        """Wait for the server and give it the workload.

        Args:
            session: Collects meanwhile.
            is_alive: Whether the server's process still runs.
            idle_s: How long its idle power is measured, warmed up.
            tick: Called every 20 ms, whatever else happens.
            stop: When set, no more is sent.
            observe: Told about progress.

        Raises:
            EngineError: The server died, did not become healthy, or failed in the warm-up.
        """
        from qmeter_native.engines.openai_engine import OpenAIEngine

        is_done = Event()
        ticker = Thread(target=_tick, args=(tick, is_done), name="qmeter-tick", daemon=True)
        ticker.start()
        try:
            observe(RunStatus(RunPhase.WAITING))
            if not wait_until_healthy(self.base_url, timeout_s=self.startup_timeout_s, is_alive=is_alive, stop=stop):
                return
            with OpenAIEngine(self.base_url, vocab_size=self.vocab_size) as engine:
                if session.state.engine is None:
                    session.describe(engine=engine.info)
                self.give(session, engine, idle_s=idle_s, stop=stop, observe=observe)
        finally:
            is_done.set()
            ticker.join()

    def give(
        self, session: Session, engine: Engine, *, idle_s: float, stop: Event, observe: Callable[[RunStatus], None]
    ) -> None:
        """Give the healthy server its workload; arguments are `qmeter_native.capture.driving.drive`'s."""
        drive(session, engine, self.workload, idle_s=idle_s, stop=stop, observe=observe)


def _tick(tick: Callable[[], None], is_done: Event) -> None:
    while not is_done.wait(_TICK_S):
        tick()
