"""What an OpenAI-compatible server says about itself: model, version, vocabulary. Blocking; standard library alone."""

from __future__ import annotations

import ipaddress
import json
import socket
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from qmeter_native.engines.protocol import Vocabulary
from qmeter_native.errors import EngineError, UsageError

__all__ = ["OpenAIServer", "ServedModel", "error_message", "message_of", "reason_of", "vocabulary_of"]

_TIMEOUT_S: Final = 10.0
_MAX_MESSAGE: Final = 500
_SAFE_IDS: Final = range(1000, 30_000)
"""Ordinary words in every vocabulary in use: special ids lie below, or above the 32 000 of the smallest ones."""
_OPENER: Final = build_opener(ProxyHandler({}))
"""Without proxies: what would be measured through one is the proxy."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as ``/v1/models`` shows it; ``root`` and ``max_model_len`` are None where the server does not tell."""

    name: str
    root: str | None
    max_model_len: int | None
    owner: str | None

    @property
    def folder(self) -> Path | None:
        """The model's folder, if it is one of this machine."""
        path = None if self.root is None else Path(self.root)
        return path if path is not None and (path / "config.json").is_file() else None

    @property
    def hf_config(self) -> dict[str, Any] | None:
        """The model's ``config.json``, if it is on this machine."""
        return None if self.folder is None else _read_json(self.folder / "config.json")


@dataclass(frozen=True, slots=True)
class OpenAIServer:
    """A server's address.

    Args:
        base_url: Such as ``http://localhost:8000``; a trailing ``/v1`` is dropped.
        api_key: Sent as bearer token; None sends none.

    Raises:
        UsageError: ``base_url`` is no HTTP address.
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not _is_address(self.base_url):
            raise UsageError(f"{self.base_url!r} is no address of a server", "Give one like http://localhost:8000.")
        object.__setattr__(self, "base_url", self.base_url.rstrip("/").removesuffix("/v1").rstrip("/"))

    @property
    def headers(self) -> dict[str, str]:
        """What every request to the server carries."""
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}

    @property
    def is_local(self) -> bool:
        """Whether the server runs on this host, as far as its address tells."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
        except OSError:
            return False
        return any(_is_own(address) for address in found)

    def get(self, path: str, timeout_s: float = _TIMEOUT_S) -> Any:
        """The JSON at ``path``; None if the body is empty or no JSON.

        Raises:
            HTTPError: The server answered with an error.
            OSError: Nobody answered, or not in HTTP (`URLError` and timeouts are among them).
        """
        try:
            return json.loads(self._answer(Request(self.base_url + path, headers=self.headers), timeout_s))
        except ValueError:
            return None

    def post(self, path: str, body: bytes, headers: dict[str, str], timeout_s: float) -> bytes:
        """The whole answer to ``body``, which is JSON.

        Raises:
            HTTPError: The server answered with an error.
            OSError: Nobody answered.
        """
        headers = {**self.headers, **headers, "Content-Type": "application/json"}
        return self._answer(Request(self.base_url + path, data=body, headers=headers), timeout_s)

    def _answer(self, request: Request, timeout_s: float) -> bytes:
        try:
            with _OPENER.open(request, timeout=timeout_s) as response:
                return bytes(response.read())
        except HTTPException as error:
            raise ConnectionError(f"no proper HTTP: {error or type(error).__name__}") from error

    def version(self) -> str | None:
        """What ``/version`` says; None if the server does not tell."""
        try:
            document = self.get("/version")
        except OSError:
            return None
        version = document.get("version") if isinstance(document, dict) else None
        return version if isinstance(version, str) else None

    def model(self, name: str | None) -> ServedModel:
        """The model called ``name``, or the first one.

        Raises:
            EngineError: Nobody answers, the answer is an error or no list of models, or none has that name.
        """
        cards = self._model_cards()
        for card in cards:
            if name is None or card["id"] == name:
                limit = card.get("max_model_len")
                return ServedModel(card["id"], card.get("root"), limit, card.get("owned_by"))
        raise EngineError(
            f"{self.base_url} serves no model called {name!r}", f"It serves {', '.join(card['id'] for card in cards)}."
        )

    def _model_cards(self) -> list[dict[str, Any]]:
        url = f"{self.base_url}/v1/models"
        try:
            document = self.get("/v1/models")
        except HTTPError as error:
            hint = "Give the server's API key." if error.code in (401, 403) else None
            message = error_message(error.read())
            raise EngineError(f"{url} answered HTTP {error.code}: {message}", hint) from error
        except OSError as error:
            raise EngineError(
                f"no server answers at {self.base_url}: {reason_of(error)}", "Start it, or check the address."
            ) from error
        cards = document.get("data") if isinstance(document, dict) else None
        if not cards or not all(isinstance(card, dict) and isinstance(card.get("id"), str) for card in cards):
            raise EngineError(f"{url} lists no models", "Is this an OpenAI-compatible server?")
        return list(cards)


def vocabulary_of(model: ServedModel, vocab_size: int | None) -> Vocabulary:
    """Token ids for prompts: those of the model's files if they are on this machine, else a range that is safe.

    Args:
        model: The model.
        vocab_size: The size, if the caller knows it. It wins over what the files say.
    """
    folder, config = model.folder, model.hf_config
    if folder is not None and config is not None:
        size = vocab_size or config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
        if isinstance(size, int):
            return Vocabulary(size, _special_ids(folder), is_bytes=size == 256)
    size = min(vocab_size or _SAFE_IDS.stop, _SAFE_IDS.stop)
    return Vocabulary(size, frozenset(range(min(_SAFE_IDS.start, size - 1))), is_bytes=vocab_size == 256)


def error_message(body: bytes) -> str:
    """What an error's body says, in one line."""
    try:
        return message_of(json.loads(body))
    except ValueError:
        return message_of(body.decode(errors="replace"))


def reason_of(error: BaseException) -> str:
    """Why a connection failed, in the operating system's words."""
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, OSError):
        return reason.strerror or str(reason) or "no answer"
    return str(reason) or "no answer"


def message_of(document: Any) -> str:
    """One line of an error document: the OpenAI schema's message, FastAPI's detail, or its text."""
    while isinstance(document, dict):
        document = next((document[key] for key in ("error", "message", "detail") if key in document), str(document))
    return str(document).strip().partition("\n")[0][:_MAX_MESSAGE] or "no message"


def _is_address(url: str) -> bool:
    """Whether ``url`` is one of HTTP, without user, query or fragment."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # brackets that do not close, or a port that is no number up to 65 535
        return False
    is_plain = parts.username is None and not parts.query and not parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and is_plain


def _special_ids(folder: Path) -> frozenset[int]:
    """Begin, end and padding of the model, and all tokens that were added to its tokenizer's own."""
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        config = _read_json(folder / name)
        for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = config.get(key)
            found.update(value if isinstance(value, list) else () if value is None else (value,))
    found.update(int(token) for token in _read_json(folder / "tokenizer_config.json").get("added_tokens_decoder", {}))
    found.update(int(token["id"]) for token in _read_json(folder / "tokenizer.json").get("added_tokens", []))
    return frozenset(found)


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is none."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_own(address: str) -> bool:
    """Whether an IP address is one of this host's: only those can be bound."""
    family = socket.AF_INET6 if ipaddress.ip_address(address.partition("%")[0]).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
