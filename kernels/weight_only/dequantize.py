# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: N803, N806
"""The weight itself, from its prepared form: for products of so many tokens that decoding once pays."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_capability, check_dtype
from qmeter_native.kernels.weight_only.constants import dequantize_constants
from qmeter_native.kernels.weight_only.decode import decode
from qmeter_native.kernels.weight_only.product import load_pairs, load_words
from qmeter_native.kernels.weight_only.tensor import WeightOnlyTensor

__all__ = ["NUM_WARPS", "dequantize_kernel", "dequantize_tile_kernel"]

NUM_WARPS = 8
"""So that a thread holds at most 64 weights (3 bits: tiles of 64 by 256): with 4, those of 3 bits spill."""


@triton.jit
def dequantize_tile_kernel(
    words, scales, zeros, row_scales, table, order, out, n_size, k_size, tiles, half_rows,
    KIND: tl.constexpr, ZERO: tl.constexpr, ASSEMBLY: tl.constexpr, CONSTRAINTS: tl.constexpr,
    WORDS: tl.constexpr, SPAN: tl.constexpr, TILE_K: tl.constexpr, GROUP: tl.constexpr,
    HAS_ORDER: tl.constexpr, PLAIN: tl.constexpr,
):  # fmt: skip
    """One tile of 64 outputs. Zero points and scales are applied in float32, where they are exact: the weight is
    rounded once.
    """
    D: tl.constexpr = out.dtype.element_ty
    TILE_WORDS: tl.constexpr = 64 * SPAN
    S: tl.constexpr = TILE_K // GROUP if (GROUP > 0 and GROUP < TILE_K) else 1
    TILES_OF_GROUP: tl.constexpr = GROUP // TILE_K if GROUP > TILE_K else 1
    tile, row_tile = tl.program_id(0), tl.program_id(1)

    first = words + (row_tile.to(tl.int64) * tiles + tile) * (WORDS * TILE_WORDS) + tl.arange(0, TILE_WORDS)[None, :]
    w0 = load_words(first, 1, SPAN)
    w1, w2 = w0, w0
    if WORDS == 3:
        w1 = load_words(first + TILE_WORDS, 1, SPAN)
        w2 = load_words(first + 2 * TILE_WORDS, 1, SPAN)
    w = decode(w0, w1, w2, w0, table, KIND, ZERO, ASSEMBLY, CONSTRAINTS, D, PLAIN).to(tl.float32)
    w = tl.reshape(w, (64, S, TILE_K // S))
    pairs = row_tile * 32 + tl.arange(0, 32)[None, :] + tl.arange(0, S)[:, None] * half_rows
    group = tile * S // TILES_OF_GROUP if GROUP > 0 else 0
    if ZERO == "raw":
        w -= load_pairs(zeros + group * half_rows + pairs, tl.float32)[:, :, None]
    ns = row_tile * 64 + tl.arange(0, 64)
    factor = tl.load(row_scales + ns)[:, None]
    if GROUP > 0:
        factor = factor * load_pairs(scales + group * half_rows + pairs, tl.float32)
    w = tl.reshape(w * factor[:, :, None], (64, TILE_K))

    ks = tile * TILE_K + tl.arange(0, TILE_K)
    columns = ks
    if HAS_ORDER:
        columns = tl.load(order + ks, mask=ks < k_size, other=0)
    inside = (ns < n_size)[:, None] & (ks < k_size)[None, :]
    tl.store(out + ns[:, None].to(tl.int64) * k_size + columns[None, :], w.to(D), mask=inside)


def dequantize_kernel(weight: WeightOnlyTensor, dtype: Any | None = None, out: Any | None = None) -> Any:
    """The weight as ``[N, K]``, inputs in their first order; of integer formats each element is rounded once.

    Args:
        weight: ``[N, K]``.
        dtype: float16 or bfloat16; None: the weight's.
        out: Where to write, ``[N, K]`` and contiguous; None: a new tensor.

    Raises:
        UsageError: ``out`` or ``dtype`` is of another type, shape or device.
    """
    if out is None:
        out = torch.empty(weight.shape, dtype=dtype or weight.dtype, device=weight.device)
    check_dtype("out", out, torch.float16, torch.bfloat16)
    if tuple(out.shape) != weight.shape or not out.is_contiguous() or out.device != weight.device:
        raise UsageError(f"out is {tuple(out.shape)} on {out.device}", f"Give {weight.shape} on {weight.device}.")
    check_capability("Dequantization", out.device, (8, 0))
    (n, k), layout = weight.shape, weight.layout
    unread = weight.row_scales
    scales, zeros, table, order = (
        unread if tensor is None else tensor for tensor in (weight.scales, weight.zeros, weight.table, weight.order)
    )
    dequantize_tile_kernel[(layout.tiles, triton.cdiv(n, 64))](
        weight.words, scales, zeros, weight.row_scales, table, order, out,
        n, k, layout.tiles, layout.padded_shape[0] // 2,
        HAS_ORDER=weight.order is not None, **dequantize_constants(weight, out.dtype), num_warps=NUM_WARPS,
    )  # fmt: skip
    return out
