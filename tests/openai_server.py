"""A small OpenAI-compatible server: answers from a counter, and fails in whatever way it is told to.

Imported, it runs in a thread of the test; as a program (``python tests/openai_server.py --port 8000``) it is a server
to launch. Standard library alone, with the bytes on the wire in its own hands, so that it can send broken ones.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

STANDARD_FIELDS = frozenset({"model", "prompt", "max_tokens", "temperature", "stream", "stream_options", "seed"})
FAULTS = ("status", "refuse", "error_event", "cut", "cut_cleanly", "malformed", "stall", "abort", "die")


@dataclass
class ServerOptions:
    """How the server behaves.

    Attributes:
        model: Id of the one model that it serves.
        root: Where that model lies; ``model`` if None.
        max_model_len: Longest sequence; None = not told.
        version: What ``/version`` says; None = there is no such path.
        load_s: Seconds after its start during which ``/health`` says 503.
        has_health: Whether there is a ``/health``.
        first_delay_s: Before the first token of each answer.
        token_delay_s: Between chunks.
        tokens_per_chunk: Tokens in each chunk.
        known_fields: Other fields of a request are refused with 400; None = anything is taken.
        takes_token_ids: Whether prompts may be token ids.
        tells_token_ids: Whether ``return_token_ids`` is obeyed.
        tells_counts: Whether ``continuous_usage_stats`` is obeyed.
        tells_usage: Whether ``include_usage`` is obeyed.
        api_key: Needed as bearer token; None = anybody is served.
        fault: One of `FAULTS`, None = none.
        fault_from: Number of the first completion that has the fault, from 0.
        fault_after: Chunks that are sent before a fault in mid-stream.
    """

    model: str = "test-model"
    root: str | None = None
    max_model_len: int | None = 4096
    version: str | None = "0.0.test"
    load_s: float = 0.0
    has_health: bool = True
    first_delay_s: float = 0.0
    token_delay_s: float = 0.0
    tokens_per_chunk: int = 1
    known_fields: frozenset[str] | None = None
    takes_token_ids: bool = True
    tells_token_ids: bool = True
    tells_counts: bool = True
    tells_usage: bool = True
    api_key: str | None = None
    fault: str | None = None
    fault_from: int = 0
    fault_after: int = 2


@dataclass
class Received:
    """One completion request, as it came."""

    headers: dict[str, str]
    body: dict[str, Any]
    is_aborted: bool = False


class _DiedError(Exception):
    """The server was told to end here."""


@dataclass
class OpenAIServer:
    """Context manager: listening while it is open."""

    options: ServerOptions = field(default_factory=ServerOptions)
    port: int = 0
    received: list[Received] = field(default_factory=list)

    def __enter__(self) -> OpenAIServer:
        is_listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve(is_listening.set)))
        self._thread.start()
        assert is_listening.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """What a client is given."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End at once, in the middle of what is being sent. Idempotent."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it may be ending by itself just now
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    async def serve(self, on_listening: Any = None) -> None:
        """Listen until told to stop; the port is `port` from then on."""
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._start = time.monotonic()
        self._writers: set[asyncio.StreamWriter] = set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        if on_listening is not None:
            on_listening()
        await self._stop.wait()
        server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while (request := await _read_request(reader)) is not None:
                await self._answer(*request, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except _DiedError:
            self._stop.set()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer(self, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> None:
        options = self.options
        if options.api_key is not None and headers.get("authorization") != f"Bearer {options.api_key}":
            _reply(writer, 401, {"error": "Unauthorized"})
        elif path == "/health" and options.has_health:
            _reply(writer, 503 if time.monotonic() - self._start < options.load_s else 200, None)
        elif path == "/version" and options.version is not None:
            _reply(writer, 200, {"version": options.version})
        elif path == "/v1/models":
            card = {"id": options.model, "root": options.root or options.model, "owned_by": "test"}
            if options.max_model_len is not None:
                card["max_model_len"] = options.max_model_len  # type: ignore[assignment]
            _reply(writer, 200, {"object": "list", "data": [card]})
        elif path == "/v1/completions":
            await self._complete(Received(headers, json.loads(body)), writer)
        else:
            _reply(writer, 404, {"detail": "Not Found"})

    async def _complete(self, received: Received, writer: asyncio.StreamWriter) -> None:
        fault = self.options.fault if len(self.received) >= self.options.fault_from else None
        self.received.append(received)
        refusal = self._refusal(received.body)
        if fault == "status":
            _reply(writer, 500, {"error": {"message": "the engine is broken", "type": "InternalServerError"}})
        elif fault == "refuse" or refusal is not None:
            _reply(writer, 400, {"error": {"message": refusal or "no such luck", "type": "BadRequestError"}})
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                async for event in self._events(received.body, fault):
                    writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                    await writer.drain()
            except ConnectionError:
                received.is_aborted = True
                raise
            writer.write(b"0\r\n\r\n")

    def _refusal(self, body: dict[str, Any]) -> str | None:
        if body["model"] != self.options.model:
            return f"The model `{body['model']}` does not exist."
        if self.options.known_fields is not None and (unknown := sorted(body.keys() - self.options.known_fields)):
            return f"Unrecognized request argument supplied: {unknown[0]}"
        if not self.options.takes_token_ids and not isinstance(body["prompt"], str):
            return "prompt must be a string"
        return None

    async def _events(self, body: dict[str, Any], fault: str | None) -> AsyncIterator[bytes]:
        options = self.options
        if options.first_delay_s:
            await asyncio.sleep(options.first_delay_s)
        num_sent, num_prompt = 0, len(body["prompt"])
        wants = body.get("stream_options", {})
        for number, size in enumerate(_sizes(body["max_tokens"], options.tokens_per_chunk)):
            if number and options.token_delay_s:
                await asyncio.sleep(options.token_delay_s)
            if fault is not None and number == options.fault_after:
                async for event in self._broken(fault):
                    yield event
                return
            ids = list(range(100 + num_sent, 100 + num_sent + size))
            num_sent += size
            choice = {"index": 0, "text": " x" * size, "finish_reason": None}
            if num_sent == body["max_tokens"]:
                choice["finish_reason"] = "length"
            if options.tells_token_ids and body.get("return_token_ids"):
                choice["token_ids"] = ids
            chunk = {"id": "cmpl-1", "object": "text_completion", "model": options.model, "choices": [choice]}
            if options.tells_counts and wants.get("continuous_usage_stats"):
                chunk["usage"] = _usage(num_prompt, num_sent)
            yield _event(chunk)
        if options.tells_usage and wants.get("include_usage"):
            yield _event({"id": "cmpl-1", "choices": [], "usage": _usage(num_prompt, num_sent)})
        yield b"data: [DONE]\n\n"

    async def _broken(self, fault: str) -> AsyncIterator[bytes]:
        if fault == "error_event":
            yield _event({"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}})
            yield b"data: [DONE]\n\n"
        elif fault == "malformed":
            yield b'data: {"choices": [{"text"\n\n'
        elif fault == "abort":
            yield _event({"choices": [{"index": 0, "text": "", "finish_reason": "abort"}]})
            yield b"data: [DONE]\n\n"
        elif fault == "cut":
            raise ConnectionResetError
        elif fault == "stall":
            await self._stop.wait()
            raise ConnectionResetError
        elif fault == "die":
            raise _DiedError


def _sizes(num_tokens: int, tokens_per_chunk: int) -> Iterable[int]:
    for start in range(0, num_tokens, tokens_per_chunk):
        yield min(tokens_per_chunk, num_tokens - start)


def _usage(num_prompt: int, num_output: int) -> dict[str, int]:
    return {"prompt_tokens": num_prompt, "completion_tokens": num_output, "total_tokens": num_prompt + num_output}


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes] | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return first.split(" ")[1], headers, body


def _reply(writer: asyncio.StreamWriter, status: int, document: Any) -> None:
    body = b"" if document is None else json.dumps(document).encode()
    writer.write(b"HTTP/1.1 %d Status\r\nContent-Type: application/json\r\n" % status)
    writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before it listens")
    parser.add_argument("--load", type=float, default=0.0, help="seconds after that before /health says 200")
    parser.add_argument("--token-delay", type=float, default=0.0, help="seconds between chunks")
    parser.add_argument("--tokens-per-chunk", type=int, default=1)
    parser.add_argument("--model", default="test-model")
    parser.add_argument("--fault", choices=FAULTS, help="what goes wrong in completions")
    parser.add_argument("--fault-from", type=int, default=0, help="number of the first completion that fails")
    arguments = parser.parse_args()
    time.sleep(arguments.delay)
    options = ServerOptions(
        model=arguments.model,
        load_s=arguments.load,
        token_delay_s=arguments.token_delay,
        tokens_per_chunk=arguments.tokens_per_chunk,
        fault=arguments.fault,
        fault_from=arguments.fault_from,
    )
    asyncio.run(_serve_until_signal(OpenAIServer(options, arguments.port)))


async def _serve_until_signal(server: OpenAIServer) -> None:
    def ready() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, server._stop.set)

    await server.serve(ready)


if __name__ == "__main__":
    main()
