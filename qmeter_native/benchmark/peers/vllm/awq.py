"""AWQ's own kernel as vLLM has it, and what vLLM does with many tokens: dequantize, then cuBLAS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qmeter_native.benchmark.contender import Activation, Contender, Product
from qmeter_native.benchmark.peers.vllm.library import vllm_operators
from qmeter_native.kernels.packing import awq

__all__ = ["contenders"]

_SPLITS = 8
_LABELS = ("W4A16-INT g128", "W4A16-INT g128 zp")


def contenders(vllm_ops: Path | None) -> tuple[Contender, ...]:
    """``awq_gemm``, and ``awq_dequantize`` before a product of 16 bits; float16 only.

    Raises:
        MissingExtraError: The library is not here.
    """
    operators = vllm_operators(vllm_ops, "awq_gemm")

    def fused(weight: Any, dtype: Any) -> Product:
        tensors = awq.pack(weight, awq.AwqConfig(group_size=weight.group_size))
        return lambda activation: operators.awq_gemm(
            activation.values, tensors["qweight"], tensors["scales"], tensors["qzeros"], _SPLITS
        )

    def dequantized(weight: Any, dtype: Any) -> Product:
        tensors = awq.pack(weight, awq.AwqConfig(group_size=weight.group_size))

        def product(activation: Activation) -> Any:
            matrix = operators.awq_dequantize(tensors["qweight"], tensors["scales"], tensors["qzeros"], 0, 0, 0)
            return torch.matmul(activation.values, matrix)

        return product

    return (
        Contender("vllm.awq", _LABELS, fused, (7, 5), dtypes=("float16",)),
        Contender("vllm.awq dequantized", _LABELS, dequantized, (7, 5), dtypes=("float16",)),
    )
