"""What the load generator needs of a serving engine, embedded or behind a socket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
        num_tokens: New output tokens. An engine that sends text and says only at the end how many tokens it was counts
            one for each piece of text, the fewest that it can be.
        is_finished: Nothing follows, be it for success or for an error.
        error: What went wrong; empty if nothing.
        tokens: Ids of the new tokens; empty if the engine does not tell them.
        total_tokens: With the last chunk of an engine that counts only at the end, the request's output tokens.
    """

    request: int
    time_ns: int
    num_tokens: int
    is_finished: bool
    error: str = ""
    tokens: tuple[int, ...] = ()
    total_tokens: int | None = None


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
            The name by which the engine knows the request.

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

    def prepare(self, num_at_once: int) -> None:
        """A workload is about to begin with ``num_at_once`` requests: have the means ready to send them."""

    def take_lag(self) -> dict[str, Any]:
        """How late the client's side was since `prepare`, plain JSON; empty where nothing lies between."""

    def close(self) -> None:
        """Stop serving and free what is held. Idempotent."""
