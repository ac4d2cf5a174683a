"""What ``--model`` names: a local directory, a hub id, a shape with random weights, or the built-in language model."""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from qmeter_native.engines.model_shapes import near_names, shape_names, shape_of
from qmeter_native.errors import EngineError, ModelNotFoundError

__all__ = ["BUILTIN_MODEL", "ModelSource", "is_hub_reachable", "resolve_model"]

BUILTIN_MODEL = "builtin:stdlib-lm"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_KINDS_HINT = f"--model takes a local directory, a hub id, shape:NAME or {BUILTIN_MODEL}."


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that has been found, with its configuration and not yet its weights.

    Attributes:
        name: As the user wrote it.
        kind: Where it comes from.
        location: What transformers loads weights from: a folder or a hub id; None for a shape.
        config: transformers' ``PretrainedConfig``.
    """

    name: str
    kind: Literal["builtin", "shape", "directory", "hub"]
    location: str | None
    config: Any


def resolve_model(name: str) -> ModelSource:
    """Find the model called ``name`` and read its configuration.

    Raises:
        ModelNotFoundError: No model goes by that name, or it cannot be downloaded.
        EngineError: Its ``config.json`` is missing or broken.
    """
    if name.startswith("shape:"):
        return _shape(name)
    if name.startswith("builtin:"):
        return _builtin(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return ModelSource(name, "directory", str(path), _read_config(path))
    if path.is_file():
        raise ModelNotFoundError(f"{path} is a file", "Give the directory that holds config.json and the weights.")
    if name.startswith((".", "/", "~")):
        raise ModelNotFoundError(f"there is no directory {path}", _KINDS_HINT)
    return ModelSource(name, "hub", name, _hub_config(name))


def _shape(name: str) -> ModelSource:
    from transformers import AutoConfig

    shape = shape_of(name.removeprefix("shape:"))
    fields = dict(shape.config)
    return ModelSource(name, "shape", None, AutoConfig.for_model(fields.pop("model_type"), **fields))


def _builtin(name: str) -> ModelSource:
    if name != BUILTIN_MODEL:
        raise ModelNotFoundError(f"no built-in model is called {name!r}", f"There is {BUILTIN_MODEL}.")
    folder = Path(str(resources.files(__package__).joinpath("stdlib_lm")))
    if not (folder / "model.safetensors").is_file():
        raise ModelNotFoundError(
            f"{BUILTIN_MODEL} has no weights in this installation: {folder / 'model.safetensors'} is missing",
            "Install the package again, or train it with tools/train_stdlib_lm.py.",
        )
    return ModelSource(name, "builtin", str(folder), _read_config(folder))


def _read_config(folder: Path) -> Any:
    from transformers import AutoConfig

    path = folder / "config.json"
    hint = "It must be the config.json of a transformers causal language model."
    try:
        json.loads(path.read_text(encoding="utf-8"))
        return AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except FileNotFoundError as error:
        raise EngineError(f"{folder} has no config.json", _KINDS_HINT) from error
    except Exception as error:  # transformers and its validators raise many types
        raise EngineError(f"{path} cannot be used: {_cause(error)}", hint) from error


def _hub_config(name: str) -> Any:
    from transformers import AutoConfig

    if not _HUB_ID.fullmatch(name):
        raise ModelNotFoundError(f"no model is called {name!r}", _suggestion(name))
    try:
        return AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        if not is_hub_reachable():
            raise ModelNotFoundError(
                f"no model called {name!r} is here: it is no local directory, it is not in the local hub cache, "
                "and the hub cannot be reached",
                _suggestion(name),
            ) from error
    try:
        return AutoConfig.from_pretrained(name)
    except Exception as error:
        raise ModelNotFoundError(f"the hub gave no model {name!r}: {_cause(error)}", _suggestion(name)) from error


def is_hub_reachable() -> bool:
    """Whether the hub's name resolves. Without this, transformers retries for 23 s before it gives up."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE", "0") not in ("", "0"):
        return False
    address = urlsplit(constants.ENDPOINT)
    try:
        socket.getaddrinfo(address.hostname, address.port or 443)
    except OSError:
        return False
    return True


def _suggestion(name: str) -> str:
    near = near_names(name)
    if name.lower().removeprefix("builtin-") in BUILTIN_MODEL:
        return f"Did you mean {BUILTIN_MODEL}?"
    if near:
        return f"Did you mean {', '.join(f'shape:{each}' for each in near)} (random weights, nothing downloaded)?"
    return f"{_KINDS_HINT} Shapes: {', '.join(shape_names())}."


def _cause(error: BaseException) -> str:
    """The first line that says something, of a message that may be long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
