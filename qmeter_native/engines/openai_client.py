"""Streams completions over HTTP: an event loop in a thread of its own, which stamps what arrives when it arrives.

On the standard library's event loop itself. A decoding step of 512 sequences brings 512 chunks at once, and each waits
until the ones before it have been taken in; an HTTP library's own streams and tasks cost more than half of that time.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final
from urllib.parse import urlsplit

from qmeter_native.engines.client_lag import ClientLag
from qmeter_native.engines.openai_exchange import Exchange
from qmeter_native.engines.openai_server import OpenAIServer, reason_of
from qmeter_native.engines.protocol import TokenChunk
from qmeter_native.errors import EngineError
from qmeter_native.units import s_to_ns

__all__ = ["OpenAIClient"]

_CONNECT_TIMEOUT_S: Final = 10.0
_CLOSE_TIMEOUT_S: Final = 10.0
_BEAT_S: Final = 0.01
_PORTS: Final = {"http": 80, "https": 443}


class OpenAIClient:
    """Any number of streams at once, one connection each, no compression, TCP_NODELAY.

    Args:
        server: Whom to ask.
        path: Of the completions.
        timeout_s: Longest silence of a stream, its first token included.

    Raises:
        EngineError: Nobody listens.
    """

    def __init__(self, server: OpenAIServer, path: str, timeout_s: float) -> None:
        self._server = server
        self._parts = urlsplit(server.base_url)
        self._address = _address(server)
        self._tls = ssl.create_default_context() if self._parts.scheme == "https" else None
        self._path = self._parts.path + path
        self._timeout_s = timeout_s
        self._exchanges: dict[int, Exchange] = {}  # those that are not over
        self._ready: deque[Exchange] = deque()  # connected ahead
        self._open: set[Exchange] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._batches: SimpleQueue[list[TokenChunk]] = SimpleQueue()
        self._batch: list[TokenChunk] = []  # being filled by the event loop
        self._received: deque[TokenChunk] = deque()  # being emptied by `receive`
        self._cancelled: set[int] = set()
        self._lag = ClientLag()
        self._loop = asyncio.new_event_loop()
        self._loop.call_soon(self._beat, self._loop.time())
        self._watch_s = min(1.0, timeout_s / 4)
        self._loop.call_later(self._watch_s, self._watch)
        self._thread = Thread(target=self._loop.run_forever, name="qmeter-openai", daemon=True)
        self._thread.start()

    def connect_ahead(self, count: int) -> None:
        """Open ``count`` connections, so that as many requests can be sent at once. What fails is left out."""
        asyncio.run_coroutine_threadsafe(self._connect_ahead(count), self._loop).result()

    def send(self, request: int, name: str, body: bytes) -> None:
        """Send a completion request now; ``name`` becomes its ``X-Request-Id``.

        Raises:
            EngineError: The client is closed.
        """
        self._check_open()
        self._cancelled.discard(request)
        self._loop.call_soon_threadsafe(self._send, request, self._head(name, len(body)) + body, time.time_ns())

    def receive(self, timeout_s: float) -> TokenChunk | None:
        """The next chunk; None if none came in time. See `Engine.receive`."""
        if not self._received:
            try:
                self._received.extend(self._batches.get(timeout=timeout_s))
            except Empty:
                self._check_open()
                return None
        chunk = self._received.popleft()
        return None if chunk.request in self._cancelled else chunk

    def cancel(self, request: int) -> None:
        """Close a request's connection, which tells the server to stop."""
        self._cancelled.add(request)
        self._loop.call_soon_threadsafe(self._cancel, request)

    def take_lag(self) -> dict[str, Any]:
        """See `ClientLag`; since the last call."""
        taken, self._lag = self._lag, ClientLag()
        return taken.to_dict()

    def close(self) -> None:
        """Close all connections. Idempotent."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_CLOSE_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_TIMEOUT_S)
        self._loop.close()

    def _check_open(self) -> None:
        if not self._thread.is_alive():
            raise EngineError(f"the connection to {self._server.base_url} was closed")

    def _head(self, name: str, length: int) -> bytes:
        headers = {
            "Host": self._parts.netloc.rpartition("@")[2],
            "Content-Type": "application/json",
            "Content-Length": str(length),
            "Connection": "close",
            "X-Request-Id": name,
            **self._server.headers,
        }
        lines = [f"POST {self._path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode()

    # What follows runs on the event loop.

    async def _connect_ahead(self, count: int) -> None:
        fresh = [Exchange(self._deliver, self._open.discard) for _ in range(count - len(self._ready))]
        await asyncio.gather(*(self._connect(exchange) for exchange in fresh), return_exceptions=True)
        self._ready.extend(exchange for exchange in fresh if exchange.is_connected)

    async def _connect(self, exchange: Exchange) -> None:
        host, port = self._address
        name = self._parts.hostname if self._tls is not None else None
        connecting = self._loop.create_connection(lambda: exchange, host, port, ssl=self._tls, server_hostname=name)
        await asyncio.wait_for(connecting, _CONNECT_TIMEOUT_S)
        self._open.add(exchange)

    def _send(self, request: int, message: bytes, sent_ns: int) -> None:
        exchange = self._ready_exchange()
        if exchange is None:
            exchange = Exchange(self._deliver, self._open.discard)
            task = self._loop.create_task(self._connect_or_fail(exchange))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        self._exchanges[request] = exchange
        exchange.send(request, message, sent_ns)

    def _ready_exchange(self) -> Exchange | None:
        while self._ready:
            exchange = self._ready.popleft()
            if exchange.is_connected:  # the server may have hung up
                return exchange
        return None

    async def _connect_or_fail(self, exchange: Exchange) -> None:
        try:
            await self._connect(exchange)
        except (OSError, asyncio.TimeoutError) as error:
            exchange.fail(f"cannot connect to {self._server.base_url}: {reason_of(error)}")

    def _deliver(self, chunk: TokenChunk) -> None:
        self._batch.append(chunk)
        if chunk.is_finished:
            self._book(self._exchanges.pop(chunk.request))
            self._loop.call_soon(self._hand_over)

    def _book(self, exchange: Exchange) -> None:
        if exchange.write_lag_s is not None:
            self._lag.write.add(exchange.write_lag_s)
        stream = exchange.stream
        if stream.is_counted and stream.total_tokens is not None:
            self._lag.num_count_mismatches += stream.total_tokens != stream.num_tokens

    def _cancel(self, request: int) -> None:
        exchange = self._exchanges.pop(request, None)
        if exchange is not None:
            exchange.abandon()

    def _beat(self, due_s: float) -> None:
        now_s = self._loop.time()
        self._lag.read.add(now_s - due_s)
        self._hand_over()
        self._loop.call_at(now_s + _BEAT_S, self._beat, now_s + _BEAT_S)

    def _watch(self) -> None:
        """Fail what has been silent for too long."""
        oldest_ns = time.time_ns() - s_to_ns(self._timeout_s)
        for exchange in [one for one in self._exchanges.values() if one.last_ns < oldest_ns]:
            exchange.fail(f"the server sent nothing for {self._timeout_s:g} s")
        self._loop.call_later(self._watch_s, self._watch)

    def _hand_over(self) -> None:
        """Give `receive` what has come. Not chunk by chunk: at 20 000 a second two threads would only take turns."""
        if self._batch:
            self._batches.put(self._batch)
            self._batch = []

    async def _close(self) -> None:
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for exchange in list(self._open):
            exchange.abandon()
        await asyncio.sleep(0)  # lets the transports close their sockets


def _address(server: OpenAIServer) -> tuple[str, int]:
    """The IP address that answers to the server's name, so that no request has to look it up."""
    parts = urlsplit(server.base_url)
    try:
        with socket.create_connection(
            (parts.hostname, parts.port or _PORTS[parts.scheme]), _CONNECT_TIMEOUT_S
        ) as probe:
            host, port = probe.getpeername()[:2]
    except OSError as error:
        raise EngineError(f"no server answers at {server.base_url}: {reason_of(error)}", "Is it running?") from error
    return host, port
