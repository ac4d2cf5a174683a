"""Compile-time arguments of the weight-only kernels, by format and tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.weight_only.assembly import constraints, decode_assembly
from qmeter_native.kernels.weight_only.config import scales_sum
from qmeter_native.kernels.weight_only.decode import INTERPRET
from qmeter_native.kernels.weight_only.encoding import ENCODINGS
from qmeter_native.kernels.weight_only.tensor import WeightOnlyTensor

__all__ = ["Format", "dequantize_constants", "product_constants"]


@dataclass(frozen=True, slots=True)
class Format:
    """What a compiled kernel depends on of a weight and its activations.

    Attributes:
        kind: Of the encoding.
        dtype: ``fp16`` or ``bf16``, of activations.
        span: Inputs of a part in a tile.
        group_size: Inputs that share a scale; 0: all.
        zeros: ``none``, ``integer`` or ``float``.
        table: Values of codes.
    """

    kind: str
    dtype: str
    span: int
    group_size: int
    zeros: str = "none"
    table: tuple[float, ...] = ()

    @classmethod
    def of(cls, weight: WeightOnlyTensor, dtype: Any) -> Format:
        """Of a prepared weight."""
        name = "fp16" if dtype == torch.float16 else "bf16"
        zeros = "none" if weight.zeros is None else "float" if weight.float_zeros else "integer"
        return cls(weight.kind, name, weight.span, weight.group_size, zeros, weight.values)

    @property
    def tile_k(self) -> int:
        """Inputs of a tile."""
        return ENCODINGS[self.kind].parts * self.span

    @property
    def fused_zero(self) -> str:
        """How the product takes zero points off: in the decoding where a tile has one integer of them for an output,
        else after it.
        """
        if self.zeros == "none":
            return "none"
        return "raw" if self.zeros == "float" or 0 < self.group_size < self.tile_k else "fused"

    def constants(self, zero: str) -> dict[str, Any]:
        """Arguments of both kernels."""
        return {
            "KIND": self.kind,
            "ZERO": zero,
            "ASSEMBLY": decode_assembly(self.kind, self.dtype, zero, self.table),
            "CONSTRAINTS": constraints(self.kind),
            "WORDS": ENCODINGS[self.kind].words,
            "SPAN": self.span,
            "TILE_K": self.tile_k,
            "GROUP": self.group_size,
            "PLAIN": INTERPRET,
        }

    def product_constants(self, config: GemmConfig) -> dict[str, Any]:
        """Arguments of the product but HAS_BIAS and EVEN_K."""
        return self.constants(self.fused_zero) | {
            "SCALE_SUM": scales_sum(self.group_size, self.tile_k, config.block_m),
            "BLOCK_M": config.block_m,
            "BLOCK_N": config.block_n,
            "UNROLL": config.block_k // self.tile_k,
            "IS_SPLIT": config.split_k > 1,
        }


def product_constants(weight: WeightOnlyTensor, dtype: Any, config: GemmConfig) -> dict[str, Any]:
    """Arguments of the product of this weight."""
    return _product_constants(Format.of(weight, dtype), config)


@cache
def _product_constants(format_: Format, config: GemmConfig) -> dict[str, Any]:
    return format_.product_constants(config)


def dequantize_constants(weight: WeightOnlyTensor, dtype: Any) -> dict[str, Any]:
    """Arguments of the dequantization of this weight: zero points are left to float32."""
    found = Format.of(weight, dtype)
    return found.constants("none" if found.zeros == "none" else "raw")
