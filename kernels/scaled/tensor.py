"""An INT8 or FP8 weight as the kernel reads it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_dtype, check_shape
from qmeter_native.kernels.quantized_weight import ScaledWeight

__all__ = ["SPLIT_TILES", "ScaledTensor", "padded_inputs"]

SPLIT_TILES = 1024
"""Output tiles that a product split over its inputs may have: more than that fill any GPU without splitting."""

_SCALED_BLOCK = (128, 128)
_ALIGNMENT = 16
"""Bytes that rows start at a multiple of: the tensor memory accelerator asks for it, vector loads gain by it."""


@dataclass(frozen=True, slots=True)
class ScaledTensor:
    """``w[n, k] = values[n, k] * scale``. Build it with `prepare`.

    Attributes:
        values: int8 or float8_e4m3fn ``[N, K up to a multiple of 16]``, zero beyond K.
        scales: float32 ``[N]``, or for blocks of 128 x 128 ``[ceil(N / 128), ceil(K / 128)]``.
        column_sums: int32 ``[N]``, the sum of each output's values: what a zero point of activations is multiplied
            with. None for FP8 and for blocks.
        counters: int32 ``[SPLIT_TILES]``, zeros: programs that share an output tile count their arrival here. A
            weight must therefore not be multiplied in two streams at once.
        inputs: K.
    """

    values: Any
    scales: Any
    column_sums: Any | None
    counters: Any
    inputs: int

    @classmethod
    def prepare(cls, weight: ScaledWeight) -> ScaledTensor:
        """Lay out a weight with one scale, one an output channel, or one a block of 128 x 128.

        Raises:
            UsageError: Other types or blocks of scales.
        """
        check_dtype("weight.values", weight.values, torch.int8, torch.float8_e4m3fn)
        (n, k), (rows, columns) = weight.shape, weight.block
        check_shape("weight.scales", weight.scales, -(-n // rows), -(-k // columns))
        scales = weight.scales.float().contiguous()
        if weight.block == _SCALED_BLOCK:
            pass  # also where one block holds the matrix: activations may come with [M, 1] scales
        elif columns >= k and (rows == 1 or rows >= n):
            scales = scales.reshape(-1).expand(n).contiguous()
        else:
            allowed = f"({n}, {k}) a tensor, (1, {k}) an output channel or (128, 128)"
            raise UsageError(f"weight.block is {weight.block}", f"It must be {allowed}.")
        has_sums = weight.values.dtype == torch.int8 and scales.ndim == 1
        return cls(
            values=padded_inputs(weight.values).contiguous(),
            scales=scales,
            column_sums=weight.values.sum(1, dtype=torch.int32) if has_sums else None,
            counters=torch.zeros(SPLIT_TILES, dtype=torch.int32, device=weight.values.device),
            inputs=k,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """N, K."""
        return self.values.shape[0], self.inputs

    @property
    def dtype(self) -> Any:
        """Of the values, and of activations that can be multiplied with them."""
        return self.values.dtype

    @property
    def is_block_scaled(self) -> bool:
        """Whether scales go by blocks of 128 x 128."""
        return bool(self.scales.ndim == 2)

    @property
    def num_bytes(self) -> int:
        """What a product reads of the weight."""
        return sum(tensor.nbytes for name, tensor in self.tensors().items() if name in ("values", "scales"))

    def tensors(self) -> dict[str, Any]:
        """By attribute."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}

    def to(self, device: Any) -> ScaledTensor:
        """On another device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in self.tensors().items()})


def padded_inputs(matrix: Any) -> Any:
    """``[rows, K]`` of one-byte elements with zeros up to a multiple of 16 columns; itself where there are none."""
    missing = -matrix.shape[1] % _ALIGNMENT
    if missing == 0:
        return matrix
    padded = torch.zeros(matrix.shape[0], matrix.shape[1] + missing, dtype=torch.uint8, device=matrix.device)
    padded[:, : matrix.shape[1]] = matrix.view(torch.uint8)
    return padded.view(matrix.dtype)
