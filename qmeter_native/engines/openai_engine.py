"""An OpenAI-compatible server as an engine: vLLM, SGLang, llama.cpp, TensorRT-LLM …, on this host or another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final
from urllib.error import HTTPError
from uuid import uuid4

from qmeter_native.engines.openai_client import OpenAIClient
from qmeter_native.engines.openai_server import OpenAIServer, error_message, vocabulary_of
from qmeter_native.engines.openai_stream import CompletionStream
from qmeter_native.engines.protocol import TokenChunk, Vocabulary
from qmeter_native.errors import EngineError
from qmeter_native.model.manifest import EngineInfo

__all__ = ["OpenAIEngine"]

_PATH: Final = "/v1/completions"
_NEEDS: Final = "The openai engine needs a /v1/completions that takes token ids as prompt, streams, and counts tokens."


class OpenAIEngine:
    """Constructed = connected: one token has been generated to find out what the server understands.

    Greedy decoding, one connection a request, each with an ``X-Request-Id`` of its own. Where the server knows
    ``ignore_eos`` output lengths are exact, elsewhere they are limits (``info.effective["ignore_eos"]``).

    Args:
        base_url: Such as ``http://localhost:8000``.
        model: Id of one of the server's models; the first one if None.
        api_key: Sent as bearer token.
        timeout_s: Longest silence of a request, until its first token and between chunks, before it fails.
        vocab_size: Number of token ids, where the model's files are not on this machine. Without it prompts are made
            of the ids 1000 to 29 999, which are ordinary in every vocabulary in use.

    Raises:
        EngineError: Nobody answers at ``base_url``, or nobody who can be used.
        UsageError: ``base_url`` is no HTTP address.
    """

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        timeout_s: float = 600.0,
        vocab_size: int | None = None,
    ) -> None:
        server = OpenAIServer(base_url, api_key)
        self._model = server.model(model)
        self._vocabulary = vocabulary_of(self._model, vocab_size)
        self._run = uuid4().hex[:8]
        self._client = OpenAIClient(server, _PATH, timeout_s)
        try:
            self._fields, answer = self._probe(server, timeout_s)
        except BaseException:
            self._client.close()
            raise
        requested = {"base_url": server.base_url, "model": model, "timeout_s": timeout_s, "vocab_size": vocab_size}
        effective: dict[str, Any] = {
            "model": self._model.name,
            "root": self._model.root,
            "server": self._model.owner,
            "is_local": server.is_local,
            "max_model_len": self._model.max_model_len,
            "ignore_eos": "ignore_eos" in self._fields,
            "token_counts": _counting(answer),
        }
        if self._model.hf_config is not None:
            effective["hf_config"] = self._model.hf_config
        self._info = EngineInfo("openai", server.version() or "unknown", self._model.name, requested, effective)

    @property
    def info(self) -> EngineInfo:
        """The server as it describes itself. ``effective["token_counts"]`` says what tokens are counted by."""
        return self._info

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's token ids, as far as they are known to be ordinary."""
        return self._vocabulary

    def submit(self, request: int, prompt: Sequence[int], num_output_tokens: int) -> str:
        """Send a request; see `Engine.submit`. Its name is its ``X-Request-Id``: ``qm-<run>-<number>``."""
        limit = self._model.max_model_len
        if limit is not None and len(prompt) + num_output_tokens > limit:
            raise EngineError(
                f"request {request} has {len(prompt) + num_output_tokens} tokens, and the server takes {limit}",
                "Use shorter prompts or outputs, or start the server with a larger context.",
            )
        name = self._name(str(request) if request >= 0 else f"warmup-{-1 - request}")
        self._client.send(request, name, _body(self._fields, prompt, num_output_tokens))
        return name

    def receive(self, timeout_s: float) -> TokenChunk | None:
        """The next chunk of any request; see `Engine.receive`. Requests fail one by one, not the engine."""
        return self._client.receive(timeout_s)

    def cancel(self, request: int) -> None:
        """Give up a request by closing its connection."""
        self._client.cancel(request)

    def prepare(self, num_at_once: int) -> None:
        """Open as many connections; see `Engine.prepare`."""
        self._client.connect_ahead(num_at_once)
        self._client.take_lag()

    def take_lag(self) -> dict[str, Any]:
        """See `ClientLag.to_dict`."""
        return self._client.take_lag()

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._client.close()

    def __enter__(self) -> OpenAIEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _name(self, part: str) -> str:
        return f"qm-{self._run}-{part}"

    def _probe(self, server: OpenAIServer, timeout_s: float) -> tuple[dict[str, Any], CompletionStream]:
        """The fields of requests that the server takes, and its answer to them.

        Servers that do not know a field ignore it or refuse the request; those that refuse name it, mostly.
        """
        extensions = {"ignore_eos": True, "return_token_ids": True, "cache_salt": self._run}
        while True:
            fields = {
                "model": self._model.name,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True, **({"continuous_usage_stats": True} if extensions else {})},
                **extensions,
            }
            try:
                answer = self._ask(server, fields, timeout_s)
                break
            except HTTPError as error:
                message = error_message(error.read())
                if error.code not in (400, 422) or not extensions:
                    raise EngineError(f"{server.base_url} refuses: HTTP {error.code}: {message}", _NEEDS) from error
                named = [name for name in extensions if name in message]
                extensions = {name: extensions[name] for name in extensions if named and name not in named}
            except OSError as error:
                raise EngineError(f"{server.base_url} does not answer: {error}") from error
        if answer.has_ids:  # the running counts would only cost time
            fields["stream_options"] = {"include_usage": True}
        return fields, answer

    def _ask(self, server: OpenAIServer, fields: dict[str, Any], timeout_s: float) -> CompletionStream:
        ordinary = next(token for token in range(self._vocabulary.size) if token not in self._vocabulary.special_ids)
        headers = {"X-Request-Id": self._name("probe")}
        answer = CompletionStream()
        answer.feed(server.post(_PATH, _body(fields, [ordinary], 1), headers, timeout_s))
        answer.end()
        if answer.error:
            raise EngineError(f"{server.base_url} cannot be used: {answer.error}", _NEEDS)
        if not answer.is_counted and answer.total_tokens is None:
            raise EngineError(f"{server.base_url} does not say how many tokens it generates", _NEEDS)
        return answer


def _counting(answer: CompletionStream) -> str:
    """What tokens are counted by: ``ids`` or ``running`` count in each chunk, or the ``total`` at the end."""
    return "ids" if answer.has_ids else "running" if answer.has_counts else "total"


def _body(fields: dict[str, Any], prompt: Sequence[int], num_output_tokens: int) -> bytes:
    return json.dumps({**fields, "prompt": list(prompt), "max_tokens": num_output_tokens}).encode()
