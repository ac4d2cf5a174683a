"""Which layers a configuration means by the names it lists."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

__all__ = ["is_named"]


def is_named(name: str, entries: Iterable[str]) -> bool:
    """Whether any entry means the layer called ``name``, such as ``model.layers.0.self_attn.q_proj``.

    An entry is its name, the first or last parts of it (``model.layers.0``, ``self_attn``, ``q_proj``), a pattern with
    ``*`` (ModelOpt), or ``re:`` and a regular expression for the beginning of the name (compressed-tensors).
    """
    return any(_means(entry, name) for entry in entries)


def _means(entry: str, name: str) -> bool:
    if entry.startswith("re:"):
        return re.match(entry[3:], name) is not None
    if "*" in entry:
        return fnmatchcase(name, entry)
    return f".{entry}." in f".{name}."
