"""The server-sent events of one completion → how many tokens each read brought.

Tokens are counted by what the server says, never by guess: ids in the chunk (``token_ids``), else the running count in
the chunk (``usage`` with ``continuous_usage_stats``), else only the count of the whole answer (``usage`` at its end);
until that comes, a piece of text is one token, the fewest that it can be.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from qmeter_native.engines.openai_server import message_of

__all__ = ["CompletionStream", "StreamPart"]


@dataclass(slots=True)
class StreamPart:
    """What one read brought."""

    num_tokens: int = 0
    tokens: tuple[int, ...] = ()


class CompletionStream:
    """Reads one stream. One ``data:`` line is one event, as all servers write it.

    Attributes:
        num_tokens: Output tokens so far.
        total_tokens: The server's own count of all output tokens; None until it has come.
        is_done: The server has said that nothing follows.
        error: Why the request failed; empty if it has not.
        has_ids: Token ids came.
        has_counts: Running counts came.
    """

    def __init__(self) -> None:
        self.num_tokens = 0
        self.total_tokens: int | None = None
        self.is_done = False
        self.error = ""
        self.has_ids = False
        self.has_counts = False
        self._rest = b""
        self._finish_reason: str | None = None

    @property
    def is_counted(self) -> bool:
        """Whether each chunk says how many tokens it holds."""
        return self.has_ids or self.has_counts

    @property
    def is_over(self) -> bool:
        """Whether what follows does not matter."""
        return self.is_done or bool(self.error)

    def feed(self, data: bytes) -> StreamPart:
        """Take in what was read. What came before an error counts."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        part = StreamPart()
        for line in lines:
            if line.startswith(b"data:") and not self.is_over:
                self._event(line[5:].strip(), part)
        return part

    def end(self) -> None:
        """The connection was closed, which is an error if the answer was not complete."""
        if not self.is_over and self._finish_reason is None:
            self.error = f"the stream ended after {self.num_tokens} tokens without being finished"

    def _event(self, data: bytes, part: StreamPart) -> None:
        if data == b"[DONE]":
            self.is_done = True
            return
        try:
            self._document(json.loads(data), part)
        except (ValueError, TypeError, AttributeError, LookupError):
            self.error = f"the stream is malformed: {data[:80].decode(errors='replace')}"

    def _document(self, document: dict[str, Any], part: StreamPart) -> None:
        choices, usage = document.get("choices"), document.get("usage")
        if choices:
            self._choice(choices[0], usage, part)
        elif choices is None and ("error" in document or document.get("object") == "error"):
            self.error = f"the server failed: {message_of(document)}"
        elif usage:
            self.total_tokens = int(usage["completion_tokens"])

    def _choice(self, choice: dict[str, Any], usage: dict[str, Any] | None, part: StreamPart) -> None:
        tokens = choice.get("token_ids")
        if tokens is not None:
            self.has_ids = True
            part.tokens += tuple(tokens)
            self._count(part, len(tokens))
        elif usage:
            self.has_counts = True
            self._count(part, usage["completion_tokens"] - self.num_tokens)
        elif choice.get("text"):
            self._count(part, 1)
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        if self._finish_reason in ("abort", "error"):
            self.error = f"the server gave the request up: finish_reason {self._finish_reason}"

    def _count(self, part: StreamPart, num_tokens: int) -> None:
        self.num_tokens += num_tokens
        part.num_tokens += num_tokens
