"""Real model architectures by name, for runs with random weights: `shape:llama-3.1-8b` downloads nothing.

``model_shapes.json`` holds, for each name, the fields of the published ``config.json`` that decide the shape of the
computation, and where it was read.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from qmeter_native.errors import ModelNotFoundError

__all__ = ["ModelShape", "near_names", "shape_names", "shape_of"]


@dataclass(frozen=True, slots=True)
class ModelShape:
    """One architecture: its name, the fields of its ``config.json``, and the address they come from."""

    name: str
    config: dict[str, Any]
    source: str


@cache
def _registry() -> dict[str, dict[str, Any]]:
    text = resources.files(__package__).joinpath("model_shapes.json").read_text(encoding="utf-8")
    registry: dict[str, dict[str, Any]] = json.loads(text)
    return registry


def shape_names() -> tuple[str, ...]:
    """All names, in the order of the data file."""
    return tuple(_registry())


def near_names(name: str) -> tuple[str, ...]:
    """Up to three names that ``name`` may have meant, nearest first; case and an owner before a slash do not count."""
    wanted = name.lower().rsplit("/", 1)[-1].removeprefix("shape:")
    return tuple(difflib.get_close_matches(wanted, shape_names(), n=3, cutoff=0.5))


def shape_of(name: str) -> ModelShape:
    """The architecture called ``name`` (``llama-3.1-8b``).

    Raises:
        ModelNotFoundError: No architecture goes by that name; the hint lists near names, or all.
    """
    entry = _registry().get(name.lower())
    if entry is None:
        near = near_names(name)
        offered = ", ".join(f"shape:{each}" for each in near or shape_names())
        raise ModelNotFoundError(
            f"no model shape is called {name!r}", f"Did you mean {offered}?" if near else f"There are {offered}."
        )
    return ModelShape(name.lower(), dict(entry["config"]), entry["source"])
