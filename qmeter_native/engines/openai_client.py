"""Streams completions over HTTP: an event loop in a thread of its own, which stamps what arrives when it arrives."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final

from qmeter_native.engines.openai_server import error_message
from qmeter_native.engines.openai_stream import CompletionStream
from qmeter_native.engines.protocol import TokenChunk
from qmeter_native.errors import EngineError, MissingExtraError
from qmeter_native.units import ns_to_s

__all__ = ["OpenAIClient"]

_CONNECT_TIMEOUT_S: Final = 10.0
_KEEPALIVE_S: Final = 2.0
"""Servers close idle connections after 5 s (uvicorn); one that is younger than this cannot be closing just now."""
_BEAT_S: Final = 0.01
_CLOSE_TIMEOUT_S: Final = 10.0


@dataclass(slots=True)
class _Lag:
    """Mean and maximum of delays."""

    count: int = 0
    total_s: float = 0.0
    max_s: float = 0.0

    def add(self, delay_s: float) -> None:
        self.count += 1
        self.total_s += delay_s
        self.max_s = max(self.max_s, delay_s)

    def to_dict(self, name: str) -> dict[str, float | None]:
        mean_s = self.total_s / self.count if self.count else None
        return {f"{name}_mean_s": mean_s, f"{name}_max_s": self.max_s if self.count else None}


@dataclass(slots=True)
class _Statistics:
    write: _Lag = field(default_factory=_Lag)
    read: _Lag = field(default_factory=_Lag)
    num_count_mismatches: int = 0


class OpenAIClient:
    """Any number of streams at once, one connection each, no compression, TCP_NODELAY.

    Args:
        url: Of the completions endpoint.
        headers: Of every request.
        timeout_s: Longest silence of a stream, its first token included.

    Raises:
        MissingExtraError: aiohttp is not installed.
    """

    def __init__(self, url: str, headers: dict[str, str], timeout_s: float) -> None:
        _require_aiohttp()
        self._url = url
        self._headers = {**headers, "Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._timeout_s = timeout_s
        self._chunks: SimpleQueue[TokenChunk] = SimpleQueue()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._cancelled: set[int] = set()
        self._statistics = _Statistics()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="qmeter-openai", daemon=True)
        self._thread.start()
        self._session: Any = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    def send(self, request: int, name: str, body: bytes) -> None:
        """Send a completion request now; ``name`` becomes its ``X-Request-Id``.

        Raises:
            EngineError: The client is closed.
        """
        if not self._thread.is_alive():
            raise EngineError("the connection to the server was closed")
        self._cancelled.discard(request)
        self._loop.call_soon_threadsafe(self._start, request, name, body, time.time_ns())

    def receive(self, timeout_s: float) -> TokenChunk | None:
        """The next chunk; None if none came in time. See `Engine.receive`."""
        try:
            chunk = self._chunks.get(timeout=timeout_s)
        except Empty:
            if not self._thread.is_alive():
                raise EngineError("the connection to the server was closed") from None
            return None
        return None if chunk.request in self._cancelled else chunk

    def cancel(self, request: int) -> None:
        """Close a request's connection, which tells the server to stop."""
        self._cancelled.add(request)
        self._loop.call_soon_threadsafe(self._cancel, request)

    def take_statistics(self) -> dict[str, Any]:
        """Since the last call: how late requests were written, and how late the thread was to look at its sockets.

        ``write_lag``: from `send` until the last byte of the request was with the operating system, connecting
        included. ``read_lag``: lateness of a beat of 10 ms, and with it of the stamps. ``num_count_mismatches``:
        requests whose chunks hold another number of tokens than the server says at the end.
        """
        taken, self._statistics = self._statistics, _Statistics()
        return {
            **taken.write.to_dict("write_lag"),
            **taken.read.to_dict("read_lag"),
            "num_count_mismatches": taken.num_count_mismatches,
        }

    def close(self) -> None:
        """Close all connections. Idempotent."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_CLOSE_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_TIMEOUT_S)
        self._loop.close()

    async def _open(self) -> Any:
        import aiohttp

        tracing = aiohttp.TraceConfig()
        tracing.on_request_chunk_sent.append(self._on_written)
        self._loop.call_later(_BEAT_S, self._beat, self._loop.time() + _BEAT_S)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=self._timeout_s),
            headers=self._headers,
            trace_configs=[tracing],
        )

    async def _close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    def _beat(self, due_s: float) -> None:
        now_s = self._loop.time()
        self._statistics.read.add(now_s - due_s)
        self._loop.call_at(now_s + _BEAT_S, self._beat, now_s + _BEAT_S)

    async def _on_written(self, session: Any, context: Any, parameters: Any) -> None:
        self._statistics.write.add(ns_to_s(time.time_ns() - context.trace_request_ctx))

    def _start(self, request: int, name: str, body: bytes, sent_ns: int) -> None:
        self._tasks[request] = self._loop.create_task(self._stream(request, name, body, sent_ns))

    def _cancel(self, request: int) -> None:
        task = self._tasks.get(request)
        if task is not None:
            task.cancel()

    async def _stream(self, request: int, name: str, body: bytes, sent_ns: int) -> None:
        stream = CompletionStream()
        try:
            await self._read(request, name, body, sent_ns, stream)
        except Exception as error:  # whatever it is, the request must not be lost
            if not stream.is_over:
                stream.error = self._explanation(error, stream)
                self._finish(request, stream)
        finally:
            del self._tasks[request]

    async def _read(self, request: int, name: str, body: bytes, sent_ns: int, stream: CompletionStream) -> None:
        headers = {"X-Request-Id": name}
        async with self._session.post(self._url, data=body, headers=headers, trace_request_ctx=sent_ns) as response:
            if response.status != 200:
                stream.error = f"HTTP {response.status}: {error_message(await response.read())}"
            while not stream.is_over:
                data = await response.content.readany()
                time_ns = time.time_ns()
                if not data:
                    stream.end()
                    break
                part = stream.feed(data)
                if part.num_tokens:
                    self._chunks.put(TokenChunk(request, time_ns, part.num_tokens, False, tokens=part.tokens))
            self._finish(request, stream)
            if stream.is_done:  # a connection that was read to its end can be used again
                await response.read()

    def _finish(self, request: int, stream: CompletionStream) -> None:
        total = stream.total_tokens
        if stream.is_counted and total is not None:
            self._statistics.num_count_mismatches += total != stream.num_tokens
            total = None
        self._chunks.put(TokenChunk(request, time.time_ns(), 0, True, stream.error, total_tokens=total))

    def _explanation(self, error: Exception, stream: CompletionStream) -> str:
        import aiohttp

        if isinstance(error, aiohttp.ClientConnectorError):
            return f"cannot connect to {self._url}: {error.os_error.strerror or error.os_error}"
        if isinstance(error, TimeoutError | asyncio.TimeoutError):
            return f"the server sent nothing for {self._timeout_s:g} s"
        if isinstance(error, aiohttp.ClientError):
            return f"the connection was cut after {stream.num_tokens} tokens: {error or type(error).__name__}"
        return f"{type(error).__name__}: {error}"


def _require_aiohttp() -> None:
    try:
        import aiohttp  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("the openai engine needs aiohttp", "pip install 'qmeter-native[serve]'") from error
