"""What the load generator needs of a serving engine, embedded or behind a socket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from qmeter_native.model.manifest import EngineInfo

__all__ = ["Engine", "TokenChunk", "Vocabulary"]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The token ids that prompts may be made of.

    Attributes:
        size: Ids are ``0 … size - 1``.
        special_ids: Ids with a meaning of their own (begin, end, padding), which random prompts avoid.
        is_bytes: Id ``n`` is the byte ``n``, so that text can be a prompt.
    """

    size: int
    special_ids: frozenset[int] = frozenset()
    is_bytes: bool = False


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """What a client receives at once.

    Attributes:
        request: The request's number.
        time_ns: When it was received (CLOCK_REALTIME).
        tokens: The new token ids.
        is_finished: Nothing follows, be it for success or for an error.
        error: What went wrong; empty if nothing.
    """

    request: int
    time_ns: int
    tokens: tuple[int, ...]
    is_finished: bool
    error: str = ""


class Engine(Protocol):
    """An engine that serves requests as they arrive. Methods may be called from different threads."""

    @property
    def info(self) -> EngineInfo:
        """The engine as asked for and as it really runs."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's token ids."""

    def submit(self, request: int, prompt: Sequence[int], num_output_tokens: int) -> str:
        """Queue a request that yields exactly ``num_output_tokens`` tokens, whatever they are.

        Returns:
            The engine's own id of the request.

        Raises:
            EngineError: The engine has stopped or refuses the request.
        """

    def receive(self, timeout_s: float) -> TokenChunk | None:
        """The next chunk of any request; None if there is none within ``timeout_s``.

        Raises:
            EngineError: The engine has stopped and no chunk is left.
        """

    def cancel(self, request: int) -> None:
        """Give up a request. No chunk of it may follow."""

    def close(self) -> None:
        """Stop serving and free what is held. Idempotent."""
