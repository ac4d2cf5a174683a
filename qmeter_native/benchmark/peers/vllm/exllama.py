"""ExLlamaV2's kernel as vLLM has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qmeter_native.benchmark.contender import Contender, Product
from qmeter_native.benchmark.peers.vllm.library import vllm_operators
from qmeter_native.kernels.packing.gptq import GptqConfig, pack

__all__ = ["contenders"]


def contenders(vllm_ops: Path | None) -> tuple[Contender, ...]:
    """``gptq_gemm`` after ``gptq_shuffle``; float16 only.

    Raises:
        MissingExtraError: The library is not here.
    """
    operators = vllm_operators(vllm_ops, "gptq_gemm")

    def prepare(weight: Any, dtype: Any) -> Product:
        return _prepare(operators, weight)

    labels = ("W4A16-INT g128", "W4A16-INT g128 zp", "W4A16-INT g128 act-order", "W8A16-INT g128")
    return (Contender("vllm.exllama", labels, prepare, (6, 0), dtypes=("float16",)),)


def _prepare(operators: Any, weight: Any) -> Product:
    """Zero points as ``gptq_v2`` stores them: of our asymmetric weights some are 0, which v1 cannot store."""
    config = GptqConfig(
        bits=weight.bits,
        group_size=weight.group_size,
        desc_act=weight.group_of is not None,
        sym=weight.zeros is None,
        checkpoint_format="gptq_v2",
    )
    tensors = pack(weight, config)
    order = torch.empty(0, dtype=torch.int32, device=weight.codes.device)
    if weight.group_of is not None:
        order = torch.argsort(weight.group_of, stable=True).int()
    words = tensors["qweight"].contiguous()
    operators.gptq_shuffle(words, order, weight.bits)
    bits = weight.bits
    return lambda activation: operators.gptq_gemm(
        activation.values, words, tensors["qzeros"], tensors["scales"], order, True, True, bits
    )
