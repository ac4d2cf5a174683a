# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: N803
"""Writes new keys and values into pages, quantized as the cache's format wants it.

A program takes one head of one token. Bytes moved for T tokens: ``4 T G D`` read, and
``2 T G form.bytes_per_token_head(D)`` written.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from qmeter_native.errors import UsageError
from qmeter_native.kernels.activation.rounding import (
    has_fp8_instructions,
    magnitude_bits,
    nearest,
    symmetric_scale,
    to_e4m3,
    to_int8,
)
from qmeter_native.kernels.aot import KernelVariant
from qmeter_native.kernels.checks import check_capability, check_dtype, check_same_device, check_shape
from qmeter_native.kernels.paged_attention.cache import PagedKvCache
from qmeter_native.kernels.paged_attention.decode import code_of, pointers, strides

__all__ = ["aot_variants", "write_kv"]

_INFINITY_BITS = tl.constexpr(0x7F800000)
_SMALLEST_STEP = tl.constexpr(2.0**-14)


def write_kv(keys: Any, values: Any, cache: PagedKvCache, slot_mapping: Any) -> None:
    """Quantize keys and values of T tokens and write them to their slots.

    What is stored is what `quantize_kv` gives, to the bit. Tokens whose slot is negative are left out; two tokens of
    one slot leave it undefined.

    Args:
        keys: float16 or bfloat16 ``[T, G, D]``; the last dimension has no gaps. For a 16-bit cache, of its type.
        values: As ``keys``.
        cache: Written in place.
        slot_mapping: int64 ``[T]``: page times page size plus place in the page.

    Raises:
        UsageError: Naming the argument.
    """
    cache.check()
    _check_arguments(keys, values, cache, slot_mapping)
    if keys.shape[0] == 0:
        return
    key_codes, value_codes, key_scales, value_scales = pointers(cache)
    is_given = cache.form.scaling == "head"
    block_d = triton.next_power_of_2(cache.head_size)
    _write[(keys.shape[0], cache.num_kv_heads, 2)](
        keys, values, key_codes, value_codes, key_scales, value_scales, slot_mapping, cache.page_size,
        *keys.stride()[:2], *values.stride()[:2], *strides(cache),
        CODE=code_of(cache.form), IS_GIVEN=is_given, HEAD_SIZE=cache.head_size, BLOCK_D=block_d,
        HAS_FP8=has_fp8_instructions(keys.device), num_warps=1,
    )  # fmt: skip


def _check_arguments(keys: Any, values: Any, cache: PagedKvCache, slot_mapping: Any) -> None:
    allowed = (cache.form.dtype,) if cache.form.bits == 16 else (torch.float16, torch.bfloat16)
    for name, new in (("keys", keys), ("values", values)):
        check_dtype(name, new, *allowed)
        check_shape(name, new, keys.shape[0], cache.num_kv_heads, cache.head_size)
        if new.stride(2) != 1:
            raise UsageError(f"{name} has strides {new.stride()}", "The elements of a head must have no gaps.")
    check_dtype("values", values, keys.dtype)
    check_dtype("slot_mapping", slot_mapping, torch.int64)
    check_shape("slot_mapping", slot_mapping, keys.shape[0])
    check_same_device(keys=keys, values=values, pages=cache.keys, slot_mapping=slot_mapping)
    check_capability("write_kv", keys.device, (8, 0))


@triton.jit
def _write(
    keys, values, key_codes, value_codes, key_scales, value_scales, slot_mapping, page_size,
    key_token, key_head, value_token, value_head, k_page, k_slot, k_head, v_page, v_slot, v_head,
    ks_page, ks_slot, ks_head, vs_page, vs_slot, vs_head,
    CODE: tl.constexpr, IS_GIVEN: tl.constexpr, HEAD_SIZE: tl.constexpr, BLOCK_D: tl.constexpr, HAS_FP8: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    at = tl.load(slot_mapping + token)
    page = at // page_size
    slot = at % page_size
    if at >= 0:
        if tl.program_id(2) == 0:
            new = keys + token * key_token + head * key_head
            codes = key_codes + page * k_page + slot * k_slot + head * k_head
            scales = key_scales
            if CODE != "half":
                scales = key_scales + page * ks_page + slot * ks_slot + head * ks_head
            _write_head(new, codes, scales, CODE, IS_GIVEN, HEAD_SIZE, BLOCK_D, HAS_FP8)
        else:
            new = values + token * value_token + head * value_head
            codes = value_codes + page * v_page + slot * v_slot + head * v_head
            scales = value_scales
            if CODE != "half":
                scales = value_scales + page * vs_page + slot * vs_slot + head * vs_head
            _write_head(new, codes, scales, CODE, IS_GIVEN, HEAD_SIZE, BLOCK_D, HAS_FP8)


@triton.jit
def _write_head(
    new, codes, scales, code: tl.constexpr, is_given: tl.constexpr, head_size: tl.constexpr, block_d: tl.constexpr,
    has_fp8: tl.constexpr,
):  # fmt: skip
    element = tl.arange(0, block_d)
    if code == "half":
        tl.store(codes + element, tl.load(new + element, mask=element < head_size), mask=element < head_size)
    elif code == "int4":
        _write_int4(new, codes, scales, head_size, block_d)
    else:
        x = tl.load(new + element, mask=element < head_size, other=0.0).to(tl.float32)
        if is_given:
            inverse = tl.div_rn(1.0, tl.load(scales))
        else:
            limit: tl.constexpr = 127.0 if code == "int8" else 448.0
            scale, inverse = symmetric_scale(tl.max(magnitude_bits(x)), limit, False)
            tl.store(scales, scale)
        stored = to_int8(x * inverse, 0) if code == "int8" else to_e4m3(x * inverse, has_fp8)
        tl.store(codes + element, stored, mask=element < head_size)


@triton.jit
def _write_int4(new, codes, scales, head_size: tl.constexpr, block_d: tl.constexpr):
    """Two elements a byte, and scale and minimum as one int32 of two float16."""
    pair = tl.arange(0, block_d // 2)
    within = pair < head_size // 2
    even = tl.load(new + 2 * pair, mask=within, other=0.0).to(tl.float32)
    odd = tl.load(new + 2 * pair + 1, mask=within, other=0.0).to(tl.float32)
    low = tl.min(tl.where(within, tl.minimum(even, odd), float("inf")))
    high = tl.max(tl.where(within, tl.maximum(even, odd), float("-inf")))
    peak_bits = tl.max(tl.maximum(magnitude_bits(even), magnitude_bits(odd)))
    span = tl.where(peak_bits < _INFINITY_BITS, high - low, peak_bits.to(tl.float32, bitcast=True))
    step = tl.div_rn(span, 15.0)
    scale = tl.where(step < _SMALLEST_STEP, _SMALLEST_STEP, step).to(tl.float16)
    minimum = low.to(tl.float16)
    inverse = tl.div_rn(1.0, scale.to(tl.float32))
    first = _int4(even, minimum.to(tl.float32), inverse)
    second = _int4(odd, minimum.to(tl.float32), inverse)
    tl.store(codes + pair, (first | (second << 4)).to(tl.uint8), mask=within)
    scale_bits = scale.to(tl.uint16, bitcast=True).to(tl.int32)
    tl.store(scales, scale_bits | (minimum.to(tl.uint16, bitcast=True).to(tl.int32) << 16))


@triton.jit
def _int4(x, minimum, inverse):
    return tl.minimum(tl.maximum(nearest((x - minimum) * inverse), 0), 15)


def aot_variants() -> tuple[KernelVariant, ...]:
    """Every kind of code at 128 elements a head."""
    return tuple(
        _variant(code, minimum)
        for code, minimum in (("half", (8, 0)), ("e4m3", (8, 9)), ("int8", (8, 0)), ("int4", (8, 0)))
    )


def _variant(code: str, minimum: tuple[int, int]) -> KernelVariant:
    constants = {"CODE": code, "IS_GIVEN": False, "HEAD_SIZE": 128, "BLOCK_D": 128, "HAS_FP8": code == "e4m3"}
    codes = "*bf16" if code == "half" else "*u8"
    scales = "*i32" if code == "int4" else "*fp32"
    types = {"keys": "*bf16", "values": "*bf16", "key_codes": codes, "value_codes": codes}
    types |= {"key_scales": scales, "value_scales": scales, "slot_mapping": "*i64"}
    signature = {name: types.get(name, "i32") for name in _write.arg_names if name not in constants}
    aligned = tuple(name for name in signature if name != "page_size")
    return KernelVariant(f"write_{code}", _write, signature, constants, aligned, 1, minimum=minimum)
