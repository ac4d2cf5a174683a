"""Waits for an OpenAI-compatible server to be ready, and says what it is waiting for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from threading import Event
from typing import Final
from urllib.error import HTTPError, URLError

from qmeter_native.engines.openai_server import OpenAIServer, error_message
from qmeter_native.errors import EngineError

__all__ = ["ServerHealth", "ServerState", "wait_until_healthy"]

_POLL_S: Final = 0.25
_ANSWER_TIMEOUT_S: Final = 5.0


class ServerState(Enum):
    """How far a server is. The value is what a person is told."""

    NOT_LISTENING = "not listening yet"
    NOT_READY = "listening, but not ready"
    FAILING = "answering with an error"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """A server's state and what it or the operating system said, which may be nothing."""

    state: ServerState
    detail: str = ""


def wait_until_healthy(
    base_url: str,
    *,
    timeout_s: float,
    is_alive: Callable[[], bool] = lambda: True,
    observe: Callable[[ServerHealth], None] = lambda _: None,
    stop: Event | None = None,
    api_key: str | None = None,
) -> bool:
    """Wait until ``/health`` says 200 (or that there is no such path) and ``/v1/models`` lists models.

    Args:
        base_url: Such as ``http://localhost:8000``.
        timeout_s: How long to wait.
        is_alive: Whether the server's process still runs; it is asked before each look.
        observe: Told what was seen at each look, every 0.25 s or more.
        stop: When set, waiting ends.
        api_key: Sent as bearer token.

    Returns:
        Whether the server is ready; False if ``stop`` was set first.

    Raises:
        EngineError: The process ended, the server wants a key, or it was not ready in time.
    """
    server = OpenAIServer(base_url, api_key)
    stop = stop or Event()
    end_s = time.monotonic() + timeout_s
    while not stop.is_set():
        if not is_alive():
            raise EngineError(f"the server ended before it was ready at {server.base_url}", "See what it printed.")
        health = _look(server)
        observe(health)
        if health.state is ServerState.READY:
            return True
        if time.monotonic() >= end_s:
            raise EngineError(
                f"{server.base_url} was not ready after {timeout_s:g} s: {health.state.value}{_of(health)}",
                "Wait longer, or check the address and the server's own messages.",
            )
        stop.wait(_POLL_S)
    return False


def _look(server: OpenAIServer) -> ServerHealth:
    try:
        try:
            server.get("/health", _ANSWER_TIMEOUT_S)
        except HTTPError as error:
            if error.code != 404:  # not every server has the path
                raise
        models = server.get("/v1/models", _ANSWER_TIMEOUT_S)
    except HTTPError as error:
        return _refused(server, error)
    except (ConnectionRefusedError, URLError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        is_silent = isinstance(reason, TimeoutError | ConnectionResetError)
        return ServerHealth(ServerState.NOT_READY if is_silent else ServerState.NOT_LISTENING, str(reason))
    except OSError as error:  # it accepted the connection, and then said nothing or hung up
        return ServerHealth(ServerState.NOT_READY, str(error))
    has_models = isinstance(models, dict) and bool(models.get("data"))
    return ServerHealth(ServerState.READY) if has_models else ServerHealth(ServerState.NOT_READY, "it lists no models")


def _refused(server: OpenAIServer, error: HTTPError) -> ServerHealth:
    message = f"HTTP {error.code}: {error_message(error.read())}"
    if error.code in (401, 403):
        raise EngineError(f"{server.base_url} answered {message}", "Give the server's API key.") from error
    return ServerHealth(ServerState.NOT_READY if error.code == 503 else ServerState.FAILING, message)


def _of(health: ServerHealth) -> str:
    return f" ({health.detail})" if health.detail else ""
