"""vLLM's Machete: weight-only products by CUTLASS on Hopper's ``wgmma``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from qmeter_native.benchmark.contender import Contender, Product, require
from qmeter_native.benchmark.peers.vllm.library import UINT4, UINT4_BIAS_8, UINT8_BIAS_128, vllm_operators
from qmeter_native.kernels.packing.bits import pack_bits

__all__ = ["column_major_words", "contenders", "negative_zeros"]

_GROUPS: Final = (64, 128)


def contenders(vllm_ops: Path | None) -> tuple[Contender, ...]:
    """``machete_mm`` with the schedule that it chooses by itself.

    Raises:
        MissingExtraError: The library is not here.
    """
    operators = vllm_operators(vllm_ops, "machete_mm")

    def prepare(weight: Any, dtype: Any) -> Product:
        return _prepare(operators, weight, dtype)

    labels = ("W4A16-INT g128", "W4A16-INT g128 zp", "W8A16-INT g128")
    return (Contender("vllm.machete", labels, prepare, (9, 0), (9, 0)),)


def column_major_words(weight: Any) -> Any:
    """int32 ``[K * bits / 32, N]``, packed along K from the lowest bits on, column by column."""
    return pack_bits(weight.codes, weight.bits, torch.int32, 1).t()


def negative_zeros(weight: Any, dtype: Any) -> Any | None:
    """``-scale * zero``, ``[G, N]``; None for symmetric weights."""
    if weight.zeros is None:
        return None
    return (-weight.scales.to(dtype) * weight.zeros.to(dtype)).t().contiguous()


def _prepare(operators: Any, weight: Any, dtype: Any) -> Product:
    n, k = weight.shape
    require(weight.group_of is None, "act-order is not compared")
    require(weight.group_size in _GROUPS, f"it takes groups of {_GROUPS}")
    require(n % 128 == 0 and k % 64 == 0, "it takes N in multiples of 128 and K of 64")
    kind = UINT8_BIAS_128 if weight.bits == 8 else UINT4_BIAS_8 if weight.zeros is None else UINT4
    tiles = operators.machete_prepack_B(column_major_words(weight), dtype, kind, dtype)
    scales, zeros = weight.scales.t().to(dtype).contiguous(), negative_zeros(weight, dtype)
    group = weight.group_size
    return lambda activation: operators.machete_mm(
        activation.values, tiles, kind, None, scales, zeros, group, None, None, None
    )
