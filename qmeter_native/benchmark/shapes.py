"""Sizes of the products that are timed: layers of well-known models, squares, numbers of tokens."""

from __future__ import annotations

from typing import Final

from qmeter_native.errors import UsageError

__all__ = ["DEFAULT_M", "SHAPE_SETS", "find_shapes", "parse_m"]

Shape = tuple[int, int]
"""N, K."""

SHAPE_SETS: Final[dict[str, dict[str, Shape]]] = {
    "llama-8b": {
        "qkv": (6144, 4096),
        "o": (4096, 4096),
        "gate_up": (28672, 4096),
        "down": (4096, 14336),
    },
    "llama-70b": {
        "qkv": (10240, 8192),
        "o": (8192, 8192),
        "gate_up": (57344, 8192),
        "down": (8192, 28672),
    },
    "square": {"8192": (8192, 8192), "16384": (16384, 16384)},
}
"""N and K of the linear layers of Llama 3.1 on one GPU, by its ``config.json``."""

DEFAULT_M: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def find_shapes(text: str) -> tuple[Shape, ...]:
    """Shapes by sets and sizes, such as ``llama-8b,square,5120x5120``; each once, in that order.

    Raises:
        UsageError: Something is neither a set nor ``NxK``.
    """
    found: dict[Shape, None] = {}
    for word in text.split(","):
        if word in SHAPE_SETS:
            found |= dict.fromkeys(SHAPE_SETS[word].values())
        else:
            found[_size(word)] = None
    return tuple(found)


def _size(word: str) -> Shape:
    n, _, k = word.partition("x")
    if not (n.isdigit() and k.isdigit() and int(n) and int(k)):
        raise UsageError(f"{word!r} is no shape", f"Give {', '.join(SHAPE_SETS)}, or NxK such as 4096x11008.")
    return int(n), int(k)


def parse_m(text: str) -> tuple[int, ...]:
    """Numbers of tokens from ``1,16,256``, ascending, each once.

    Raises:
        UsageError: One is no positive integer.
    """
    words = text.split(",")
    if not all(word.isdigit() and int(word) for word in words):
        raise UsageError(f"{text!r} are no numbers of tokens", "Give --m 1,16,256.")
    return tuple(sorted({int(word) for word in words}))
