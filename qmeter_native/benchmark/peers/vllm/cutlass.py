"""vLLM's CUTLASS products of 8-bit weights and activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qmeter_native.benchmark.contender import Activation, Contender, Product, require
from qmeter_native.benchmark.peers.vllm.library import vllm_operators

__all__ = ["contenders"]


def contenders(vllm_ops: Path | None) -> tuple[Contender, ...]:
    """``cutlass_scaled_mm`` on int8 and FP8, and ``cutlass_scaled_mm_azp`` with zero points of activations.

    Raises:
        MissingExtraError: The library is not here.
    """
    operators = vllm_operators(vllm_ops, "cutlass_scaled_mm")

    def scaled(weight: Any, dtype: Any) -> Product:
        return _scaled(operators, weight)

    def asymmetric(weight: Any, dtype: Any) -> Product:
        return _asymmetric(operators, weight)

    return (
        Contender("vllm.cutlass", ("W8A8-INT",), scaled, (7, 5)),
        Contender("vllm.cutlass", ("W8A8-INT asymmetric",), asymmetric, (7, 5)),
        Contender("vllm.cutlass", ("W8A8-FP tensor", "W8A8-FP", "W8A8-FP b128"), scaled, (8, 9)),
    )


def _column_major(weight: Any) -> Any:
    n, k = weight.shape
    require(n % 16 == 0 and k % 16 == 0, "it takes N and K in multiples of 16")
    return weight.values.clone().t()


def _scaled(operators: Any, weight: Any) -> Product:
    """Scales ``[1, N]``, or one, or by blocks ``[K / 128, N / 128]``; those of tokens by group column by column."""
    n, k = weight.shape
    columns, is_block = _column_major(weight), weight.block[1] not in (k, 0)
    is_tensor = weight.block == (n, k)
    scales = weight.scales.t() if is_block else weight.scales.reshape(1, 1 if is_tensor else n).contiguous()

    def product(activation: Activation) -> Any:
        x = activation.values
        x_scales = activation.scales[:1] if is_tensor else activation.scales_by_column
        out = torch.empty(x.shape[0], n, dtype=activation.out_dtype, device=x.device)
        operators.cutlass_scaled_mm(out, x, columns, x_scales, scales, None)
        return out

    return product


def _asymmetric(operators: Any, weight: Any) -> Product:
    n = weight.shape[0]
    columns, scales = _column_major(weight), weight.scales.reshape(1, n).contiguous()
    sums = weight.values.sum(1, dtype=torch.int32).reshape(1, n)

    def product(activation: Activation) -> Any:
        x = activation.values
        out = torch.empty(x.shape[0], n, dtype=activation.out_dtype, device=x.device)
        operators.cutlass_scaled_mm_azp(out, x, columns, activation.scales, scales, sums, activation.zeros, None)
        return out

    return product
