"""What a prepared weight is apart from its numbers: hashable, so that choices that follow from it are made once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qmeter_native.kernels.weight_only.encoding import ENCODINGS, TILE_ROWS, Encoding

__all__ = ["Layout"]

ROW_MULTIPLE = 128
"""Outputs are padded to this: what most configurations take of them."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Shape and format of a prepared weight.

    Attributes:
        shape: N, K.
        kind: Of the encoding.
        span: Inputs of a part in a tile.
        group_size: Inputs that share a scale; 0: all do.
        device: Where the weight is.
    """

    shape: tuple[int, int]
    kind: str
    span: int
    group_size: int
    device: Any

    @property
    def encoding(self) -> Encoding:
        """How its codes are packed."""
        return ENCODINGS[self.kind]

    @property
    def tile_k(self) -> int:
        """Inputs of a tile."""
        return self.encoding.parts * self.span

    @property
    def tiles(self) -> int:
        """Tiles along the inputs."""
        return -(-self.shape[1] // self.tile_k)

    @property
    def padded_shape(self) -> tuple[int, int]:
        """N and K as they are stored."""
        return -(-self.shape[0] // ROW_MULTIPLE) * ROW_MULTIPLE, self.tiles * self.tile_k

    @property
    def groups(self) -> int:
        """Scales of an output."""
        return -(-self.padded_shape[1] // self.group_size) if self.group_size else 1

    @property
    def num_counters(self) -> int:
        """Most tiles of the output that several programs may share: 16 along the tokens."""
        return self.padded_shape[0] // TILE_ROWS * 16
