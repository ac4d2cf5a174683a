"""A quantized weight matrix by its meaning: codes, scales and zero points, one element each, whatever bytes hold them.

Formats unpack into these and pack from them, kernels prepare their own layouts from them, and `dequantize` is the
definition that both are tested against. N outputs, K inputs, G groups of inputs that share a scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["CodebookWeight", "IntegerWeight", "ProgressiveWeight", "QuantizedWeight", "ScaledWeight"]


@dataclass(frozen=True, slots=True)
class IntegerWeight:
    """``w[n, k] = (codes[n, k] - zeros[n, g]) * scales[n, g]`` with ``g = group_of[k]``.

    Attributes:
        codes: uint8 ``[N, K]``, below ``2 ** bits``.
        scales: Floating point ``[N, G]``.
        zeros: ``[N, G]``, of an integer type, or floating point (HQQ); None is symmetric: ``2 ** (bits - 1)``.
        bits: 2, 3, 4 or 8.
        group_size: Inputs that share a scale; K where all do.
        group_of: int32 ``[K]``, the group of each input (GPTQ's act-order); None: ``k // group_size``.
    """

    codes: Any
    scales: Any
    zeros: Any | None
    bits: int
    group_size: int
    group_of: Any | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """N, K."""
        return self.codes.shape[0], self.codes.shape[1]

    def dequantize(self, dtype: Any = torch.float32) -> Any:
        """The matrix ``[N, K]``, computed in ``dtype``; exact in float64 for 16-bit scales and integer zeros."""
        groups = _group_index(self.shape[1], self.group_size, self.group_of, self.codes.device)
        zeros = 1 << (self.bits - 1) if self.zeros is None else self.zeros.to(dtype)[:, groups]
        return (self.codes.to(dtype) - zeros) * self.scales.to(dtype)[:, groups]


@dataclass(frozen=True, slots=True)
class CodebookWeight:
    """``w[n, k] = table[codes[n, k]] * scales[n, k // group_size]``: NF4, FP4, MXFP4, NVFP4.

    Attributes:
        codes: uint8 ``[N, K]``, below 16.
        table: float32 ``[16]``.
        scales: ``[N, G]``, floating point, with every level of scales multiplied in.
        group_size: Inputs that share a scale.
    """

    codes: Any
    table: Any
    scales: Any
    group_size: int

    @property
    def shape(self) -> tuple[int, int]:
        """N, K."""
        return self.codes.shape[0], self.codes.shape[1]

    def dequantize(self, dtype: Any = torch.float32) -> Any:
        """The matrix ``[N, K]``, computed in ``dtype``."""
        groups = _group_index(self.shape[1], self.group_size, None, self.codes.device)
        return self.table.to(dtype)[self.codes.int()] * self.scales.to(dtype)[:, groups]


@dataclass(frozen=True, slots=True)
class ScaledWeight:
    """``w[n, k] = values[n, k] * scales[n // rows, k // columns]``: INT8 and FP8, by tensor, channel or block.

    Attributes:
        values: int8 or float8_e4m3fn ``[N, K]``.
        scales: float32 ``[ceil(N / rows), ceil(K / columns)]``.
        block: Rows and columns that share a scale: ``(N, K)`` one for the tensor, ``(1, K)`` one an output channel,
            ``(128, 128)`` DeepSeek's blocks.
    """

    values: Any
    scales: Any
    block: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """N, K."""
        return self.values.shape[0], self.values.shape[1]

    def dequantize(self, dtype: Any = torch.float32) -> Any:
        """The matrix ``[N, K]``, computed in ``dtype``."""
        (n, k), (rows, columns) = self.shape, self.block
        of_row = torch.arange(n, device=self.values.device) // rows
        of_column = torch.arange(k, device=self.values.device) // columns
        return self.values.to(dtype) * self.scales.to(dtype)[of_row][:, of_column]


@dataclass(frozen=True, slots=True)
class ProgressiveWeight:
    """``w[n, k] = ((codes[n, k] - zeros[n, g]) * group_scales[n, g]) * scales[n]``: QoQ's two levels, the inner int8.

    Attributes:
        codes: uint8 ``[N, K]``, below 16.
        group_scales: int8 ``[N, G]``, above 0.
        zeros: uint8 ``[N, G]``, below 16.
        scales: Floating point ``[N]``.
        group_size: Inputs that share an inner scale.
    """

    codes: Any
    group_scales: Any
    zeros: Any
    scales: Any
    group_size: int

    @property
    def shape(self) -> tuple[int, int]:
        """N, K."""
        return self.codes.shape[0], self.codes.shape[1]

    def int8(self) -> Any:
        """The inner level: int8 ``[N, K]``, what the tensor cores multiply."""
        groups = _group_index(self.shape[1], self.group_size, None, self.codes.device)
        inner = (self.codes.to(torch.int16) - self.zeros.to(torch.int16)[:, groups]) * self.group_scales[:, groups]
        return inner.to(torch.int8)

    def dequantize(self, dtype: Any = torch.float32) -> Any:
        """The matrix ``[N, K]``, computed in ``dtype``."""
        return self.int8().to(dtype) * self.scales.to(dtype)[:, None]


QuantizedWeight = IntegerWeight | CodebookWeight | ScaledWeight | ProgressiveWeight


def _group_index(k: int, group_size: int, group_of: Any | None, device: Any) -> Any:
    """The group of each input, ``[K]``."""
    return torch.arange(k, device=device) // group_size if group_of is None else group_of.long()
