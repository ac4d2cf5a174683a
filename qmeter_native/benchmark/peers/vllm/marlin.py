"""vLLM's Marlin: weight-only products of 4 and 8 bits on ``mma.sync``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from qmeter_native.benchmark.contender import Activation, Contender, Product, require
from qmeter_native.benchmark.peers.vllm.library import (
    FLOAT4_E2M1,
    FLOAT8_E4M3,
    UINT4,
    UINT4_BIAS_8,
    UINT8_BIAS_128,
    vllm_operators,
)
from qmeter_native.benchmark.peers.vllm.marlin_layout import (
    channel_scales,
    float8_e5m3_scales,
    group_scales,
    group_zeros,
)
from qmeter_native.kernels.packing.bits import pack_bits
from qmeter_native.kernels.packing.e2m1 import pack_e2m1

__all__ = ["contenders"]

_FP8_MAX: Final = 448.0
_FP8_BIAS: Final = {torch.float16: 8, torch.bfloat16: 120}
_FP4_BIAS: Final = {torch.float16: 14, torch.bfloat16: 126}
"""Of the 16-bit type's exponent over that of E4M3 and E2M1: decoding only moves bits, scales make up for it."""


def contenders(vllm_ops: Path | None) -> tuple[Contender, ...]:
    """``marlin_gemm`` with reductions in float32, as vLLM calls it.

    Raises:
        MissingExtraError: The library is not here.
    """
    operators = vllm_operators(vllm_ops, "marlin_gemm")

    def integer(weight: Any, dtype: Any) -> Product:
        return _integer(operators, weight, dtype)

    def scaled(weight: Any, dtype: Any) -> Product:
        return _scaled(operators, weight, dtype)

    def nvfp4(weight: Any, dtype: Any) -> Product:
        return _nvfp4(operators, weight, dtype)

    labels = ("W4A16-INT g128", "W4A16-INT g128 zp", "W4A16-INT g128 act-order", "W8A16-INT g128")
    return (
        Contender("vllm.marlin", labels, integer),
        Contender("vllm.marlin", ("W8A16-INT", "W8A16-FP"), scaled),
        Contender("vllm.marlin", ("W4A16-NVFP4 g16",), nvfp4),
    )


def _integer(operators: Any, weight: Any, dtype: Any) -> Product:
    n, k = weight.shape
    _check_shape(n, k)
    device = weight.codes.device
    order, groups = _empty(device), _empty(device)
    if weight.group_of is not None:
        order = torch.argsort(weight.group_of, stable=True).int()
        groups = weight.group_of[order.long()].contiguous()
    words = pack_bits(weight.codes, weight.bits, torch.int32, 1).t().contiguous()
    tiles = operators.gptq_marlin_repack(words, order, k, n, weight.bits, False)
    scales = group_scales(weight.scales.t().to(dtype))
    zeros = _empty(device) if weight.zeros is None else group_zeros(weight.zeros.t().contiguous())
    kind = UINT8_BIAS_128 if weight.bits == 8 else UINT4_BIAS_8 if weight.zeros is None else UINT4
    return _product(operators, tiles, scales, kind, n, k, zeros=zeros, groups=groups, order=order)


def _scaled(operators: Any, weight: Any, dtype: Any) -> Product:
    """One scale an output channel; int8 is stored with 128 added."""
    n, k = weight.shape
    _check_shape(n, k)
    is_int8 = weight.values.dtype == torch.int8
    codes = (weight.values.view(torch.uint8) ^ 0x80) if is_int8 else weight.values.view(torch.uint8)
    words = codes.contiguous().view(torch.int32).t().contiguous()
    tiles = operators.gptq_marlin_repack(words, _empty(codes.device), k, n, 8, False)
    raised = 1.0 if is_int8 else 2.0 ** _FP8_BIAS[dtype]
    scales = channel_scales((weight.scales * raised).reshape(1, n).to(dtype))
    return _product(operators, tiles, scales, UINT8_BIAS_128 if is_int8 else FLOAT8_E4M3, n, k)


def _nvfp4(operators: Any, weight: Any, dtype: Any) -> Product:
    """Scales E4M3 under one of the tensor, which is taken from the largest."""
    n, k = weight.shape
    _check_shape(n, k)
    words = pack_e2m1(weight.codes).view(torch.int32).t().contiguous()
    tiles = operators.gptq_marlin_repack(words, _empty(words.device), k, n, 4, False)
    overall = weight.scales.amax() / _FP8_MAX
    scales = float8_e5m3_scales(group_scales((weight.scales / overall).t().to(dtype)))
    overall = (overall * 2.0 ** (_FP4_BIAS[dtype] - 7)).float().reshape(1)
    return _product(operators, tiles, scales, FLOAT4_E2M1, n, k, overall=overall)


def _check_shape(n: int, k: int) -> None:
    fits = (n % 64 == 0 and k % 128 == 0) or (n % 128 == 0 and k % 64 == 0)
    require(fits, "it takes N and K in multiples of 64 and 128")


def _product(
    operators: Any,
    tiles: Any,
    scales: Any,
    kind: int,
    n: int,
    k: int,
    zeros: Any = None,
    groups: Any = None,
    order: Any = None,
    overall: Any = None,
) -> Product:
    """``is_k_full``, no atomic additions, sums in float32, integer zero points."""
    processors = torch.cuda.get_device_properties(tiles.device).multi_processor_count
    workspace = torch.zeros(processors, dtype=torch.int32, device=tiles.device)
    before = (tiles, None, scales, None, overall, zeros, groups, order, workspace, kind)

    def product(activation: Activation) -> Any:
        x = activation.values
        return operators.marlin_gemm(x, None, *before, x.shape[0], n, k, True, False, True, False)

    return product


def _empty(device: Any) -> Any:
    return torch.empty(0, dtype=torch.int32, device=device)
