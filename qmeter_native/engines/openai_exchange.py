"""One completion on one connection: a request goes out, the chunks of its answer come in, stamped at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, cast

from qmeter_native.engines.http_response import HttpResponse, MalformedResponseError
from qmeter_native.engines.openai_server import error_message
from qmeter_native.engines.openai_stream import CompletionStream
from qmeter_native.engines.protocol import TokenChunk
from qmeter_native.units import ns_to_s

__all__ = ["Exchange"]

_OK: Final = 200


class Exchange(asyncio.Protocol):
    """Lives on the event loop; connected first or given its request first, as it comes.

    Args:
        deliver: Gets each chunk; the last one has ``is_finished``, and comes exactly once unless `abandon` is called.
        on_closed: Told when there is no connection any more.

    Attributes:
        stream: What has been understood of the answer.
        is_connected: A connection is open.
        last_ns: When anything came last, or the request was sent.
        write_lag_s: From when the request was to be sent until it was with the operating system; None if it never was.
    """

    def __init__(self, deliver: Callable[[TokenChunk], None], on_closed: Callable[[Exchange], None]) -> None:
        self.stream = CompletionStream()
        self.is_connected = False
        self.last_ns = 0
        self.write_lag_s: float | None = None
        self._deliver = deliver
        self._on_closed = on_closed
        self._response = HttpResponse()
        self._error_body = b""
        self._request = 0
        self._message: bytes | None = None
        self._is_over = False
        self._transport: asyncio.Transport | None = None

    def send(self, request: int, message: bytes, sent_ns: int) -> None:
        """Send the bytes of request number ``request`` now, or as soon as there is a connection."""
        self._request, self._message, self.last_ns = request, message, sent_ns
        if self.is_connected:
            self._write()

    def fail(self, error: str) -> None:
        """End with an error, unless it has ended already."""
        if not self._is_over:
            self.stream.error = self.stream.error or error
            self._finish(time.time_ns())

    def abandon(self) -> None:
        """End without a word."""
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_connected = True
        if self._is_over:
            self._transport.abort()
        elif self._message is not None:
            self._write()

    def data_received(self, data: bytes) -> None:
        """Stamp and understand what has come."""
        time_ns = self.last_ns = time.time_ns()
        try:
            body = self._response.feed(data)
        except MalformedResponseError as error:
            self.fail(str(error))
            return
        if not self._is_over:
            self._take_in(body, time_ns)
        if self._response.is_complete:
            self._end(time_ns)
            self._close()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection ended, for whatever reason."""
        self.is_connected = False
        self._on_closed(self)
        if self._message is None:
            return
        self._response.end()
        if self._response.is_complete:
            self._end(time.time_ns())
        else:
            self.fail(f"the connection was cut after {self.stream.num_tokens} tokens{f': {error}' if error else ''}")

    def _write(self) -> None:
        if self._transport is not None and self._message is not None:
            self._transport.write(self._message)
            self.write_lag_s = ns_to_s(time.time_ns() - self.last_ns)

    def _take_in(self, body: bytes, time_ns: int) -> None:
        if self._response.status != _OK:
            self._error_body += body
            return
        part = self.stream.feed(body)
        if part.num_tokens:
            self._deliver(TokenChunk(self._request, time_ns, part.num_tokens, False, tokens=part.tokens))
        if self.stream.is_over:
            self._finish(time_ns)

    def _end(self, time_ns: int) -> None:
        """The whole response has come."""
        if self._is_over:
            return
        if self._response.status != _OK:
            self.stream.error = f"HTTP {self._response.status}: {error_message(self._error_body)}"
        self.stream.end()
        self._finish(time_ns)

    def _finish(self, time_ns: int) -> None:
        self._is_over = True
        stream = self.stream
        total = None if stream.is_counted else stream.total_tokens
        self._deliver(TokenChunk(self._request, time_ns, 0, True, stream.error, total_tokens=total))
        if stream.error:  # otherwise the server ends its response first, so as not to see a client that ran away
            self._close()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
