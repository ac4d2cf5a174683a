"""Held-out text, cut into windows that are scored, and into blocks that are drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Document", "HeldOutText", "Window", "spread", "windows_of"]

CONTEXT: Final = 1024
"""Tokens that a window reads at most: the built-in model's context."""

STRETCH: Final = 512
"""Tokens of a window that are scored: each has at least ``CONTEXT - STRETCH`` before it, where its document does."""


@dataclass(frozen=True, slots=True)
class Document:
    """Tokens that belong together.

    Attributes:
        block: Number of the block that it belongs to.
        tokens: int64 ``[T + 1]``: a token that begins a document, then the text's.
        num_bytes: int64 ``[T]``: bytes of UTF-8 of each token of the text.
    """

    block: int
    tokens: NDArray[np.int64]
    num_bytes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """One row of a batch.

    Attributes:
        block: Number of its block.
        tokens: int64 ``[L + 1]``: the model reads all but the last and predicts all but the first.
        num_scored: Predictions that count, the last ones.
        num_bytes: Bytes of the text that they are of.
    """

    block: int
    tokens: NDArray[np.int64]
    num_scored: int
    num_bytes: int

    @property
    def shape(self) -> tuple[int, int]:
        """Windows of one shape can be one batch without padding, which would change what some methods round to."""
        return len(self.tokens), self.num_scored


@dataclass(frozen=True, slots=True)
class HeldOutText:
    """What a model is scored on.

    Attributes:
        name: What it is, for people.
        blocks: Names of the blocks, which intervals are drawn over.
        windows: All windows.
    """

    name: str
    blocks: tuple[str, ...]
    windows: tuple[Window, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes that are scored."""
        return sum(window.num_bytes for window in self.windows)

    @property
    def num_tokens(self) -> int:
        """Tokens that are scored."""
        return sum(window.num_scored for window in self.windows)

    @property
    def digest(self) -> str:
        """SHA-256 of what is read and scored, 16 digits: scores can be compared where it is the same."""
        digest = hashlib.sha256()
        for window in self.windows:
            digest.update(f"{window.block} {window.num_scored} ".encode() + window.tokens.tobytes())
        return digest.hexdigest()[:16]

    def batches(self, size: int) -> Iterator[list[Window]]:
        """Windows of one shape at a time, at most ``size`` of them, always in the same order."""
        shapes: dict[tuple[int, int], list[Window]] = {}
        for window in self.windows:
            shapes.setdefault(window.shape, []).append(window)
        for windows in shapes.values():
            for begin in range(0, len(windows), size):
                yield windows[begin : begin + size]


def windows_of(document: Document, context: int = CONTEXT, stretch: int = STRETCH) -> list[Window]:
    """Windows that score each token of a document once."""
    return [
        Window(
            document.block,
            document.tokens[max(0, end - context) : end + 1],
            end - begin,
            int(document.num_bytes[begin:end].sum()),
        )
        for begin, end in _stretches(len(document.num_bytes), stretch)
    ]


def _stretches(length: int, stretch: int) -> list[tuple[int, int]]:
    return [(begin, min(begin + stretch, length)) for begin in range(0, length, stretch)]


def spread(windows: Sequence[Sequence[Window]], num_bytes: int) -> list[Window]:
    """About ``num_bytes`` of several lists of windows: as much of each as of any other, where it has it.

    Inside a list they are spread evenly. All windows if there are no more bytes than that.

    Args:
        windows: A list a block.
        num_bytes: To score.
    """
    sizes = [sum(window.num_bytes for window in block) for block in windows]
    if sum(sizes) <= num_bytes:
        return [window for block in windows for window in block]
    chosen: list[Window] = []
    for block, size, share in zip(windows, sizes, _level(sizes, num_bytes), strict=True):
        count = max(1, round(len(block) * share / size))
        at = ((np.arange(count) + 0.5) * len(block) / count).astype(int)
        chosen.extend(block[index] for index in at)
    return chosen


def _level(sizes: Sequence[int], total: float) -> list[float]:
    """Equal shares of ``total``; what some do not have goes to the others."""
    level, rest, left = 0.0, total, len(sizes)
    for size in sorted(sizes):
        level = rest / left
        if size >= level:
            break
        rest, left = rest - size, left - 1
    return [min(size, level) for size in sizes]
