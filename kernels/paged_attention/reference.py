"""Attention over a paged cache in plain torch: the definition, the bound of a right kernel's error, and CPUs' way."""

from __future__ import annotations

import math
from typing import Any

import torch

from qmeter_native.kernels.oracle import relative_step
from qmeter_native.kernels.packing.kv_cache import dequantize_kv, quantize_kv, unpack_int4
from qmeter_native.kernels.paged_attention.cache import PagedKvCache

__all__ = ["attention_bound", "paged_attention_oracle", "paged_attention_reference", "write_kv_reference"]


def paged_attention_reference(
    query: Any,
    cache: PagedKvCache,
    block_table: Any,
    context_lens: Any,
    *,
    scale: float | None = None,
    window: int | None = None,
) -> Any:
    """As `decode.paged_attention`, computed in float32, one sequence after the other."""
    return _attend(query, cache, block_table, context_lens, scale, window, torch.float32).to(query.dtype)


def paged_attention_oracle(
    query: Any,
    cache: PagedKvCache,
    block_table: Any,
    context_lens: Any,
    *,
    scale: float | None = None,
    window: int | None = None,
) -> Any:
    """As `decode.paged_attention`, in float64, from the numbers that the cache holds; float64 of the query's shape."""
    return _attend(query, cache, block_table, context_lens, scale, window, torch.float64)


def write_kv_reference(keys: Any, values: Any, cache: PagedKvCache, slot_mapping: Any) -> None:
    """As `write.write_kv`, to the bit."""
    kept = slot_mapping >= 0
    page, slot = slot_mapping[kept] // cache.page_size, slot_mapping[kept] % cache.page_size
    for new, pages, scales in (
        (keys, cache.keys, cache.key_scales),
        (values, cache.values, cache.value_scales),
    ):
        stored, found = quantize_kv(new[kept], cache.form, scales if cache.form.scaling == "head" else None)
        _as_indexed(pages)[page, slot] = _as_indexed(stored)
        if cache.form.scaling == "token_head":
            scales[page, slot] = found


def attention_bound(
    query: Any, cache: PagedKvCache, block_table: Any, context_lens: Any, *, scale: float | None = None
) -> Any:
    """How far a right kernel may be from the oracle, float64 of the query's shape; a window only narrows it.

    A score is a sum of D products in float32 (Higham 2002, eq. 3.5) of a query that, over quantized caches, is rounded
    where an element is below 2**-14 of the largest; an error of d in scores changes weights by the factor exp(d), in
    numerator and denominator. Weights are rounded to 16 bits for the product with values, by at most half a step of
    that type or, where it has no more normal numbers, 2**-25 of the largest scale of values; the rest is float32.
    Four-bit numbers are a code's part and the middle of their range, which may cancel: magnitudes are summed apart.
    """
    queries = (query[:, None] if query.dim() == 3 else query).double()
    bounds = torch.zeros_like(queries)
    scale = scale if scale is not None else queries.shape[3] ** -0.5
    group_heads = queries.shape[2] // cache.num_kv_heads
    weight_dtype = cache.form.dtype if cache.form.bits == 16 else torch.float16
    out_dtype = query.dtype
    for sequence, length in enumerate(context_lens.tolist()):
        if length == 0:
            continue
        keys, values = (_magnitudes(cache, part, block_table[sequence], length) for part in ("keys", "values"))
        keys, values = (part.repeat_interleave(group_heads, dim=1) for part in (keys, values))  # [L, H, D]
        q = queries[sequence].abs()
        products = torch.einsum("thd,lhd->thl", q, keys).amax(dim=-1)
        lost = 2.0**-25 * q.amax(dim=-1) * keys.sum(dim=-1).amax(dim=0)
        of_score = scale * ((keys.shape[2] + 8) * 2.0**-24 * products + lost)
        step = relative_step(weight_dtype) + (2 * length + 64) * 2.0**-24 + 2 * torch.expm1(of_score)
        weighted = values.amax(dim=0)  # of all positions: weights sum to 1
        underflow = 2.0**-25 * values.sum(dim=0) if weight_dtype == torch.float16 else 0.0
        error = step[..., None] * weighted + underflow
        bounds[sequence] = error + relative_step(out_dtype) * (weighted + error) + 2.0**-25
    return bounds.reshape(query.shape)


def _magnitudes(cache: PagedKvCache, part: str, pages: Any, length: int) -> Any:
    """Magnitudes that a kernel sums, ``[L, G, D]``."""
    stored, scales = _gather(cache, part, pages, length)
    if cache.form.bits != 4:
        return dequantize_kv(stored, scales, cache.form, torch.float64).abs()
    scale, minimum = scales.double().unbind(dim=-1)
    codes = (unpack_int4(stored).double() - 8).abs() * scale[..., None]
    return codes + (minimum + 8 * scale).abs()[..., None]


def _attend(
    query: Any,
    cache: PagedKvCache,
    block_table: Any,
    context_lens: Any,
    scale: float | None,
    window: int | None,
    dtype: Any,
) -> Any:
    queries = (query[:, None] if query.dim() == 3 else query).to(dtype)
    out = torch.zeros_like(queries)
    num_tokens, num_heads, head_size = queries.shape[1:]
    scale = scale if scale is not None else head_size**-0.5
    for sequence, length in enumerate(context_lens.tolist()):
        if length == 0:
            continue
        keys, values = (
            dequantize_kv(*_gather(cache, part, block_table[sequence], length), cache.form, dtype).repeat_interleave(
                num_heads // cache.num_kv_heads, dim=1
            )
            for part in ("keys", "values")
        )
        at = torch.arange(length, device=query.device)
        own = torch.arange(length - num_tokens, length, device=query.device)[:, None]
        seen = (at <= own) & (at > own - (window or math.inf))
        scores = torch.einsum("thd,lhd->htl", queries[sequence], keys) * scale
        weights = scores.masked_fill(~seen, -math.inf).softmax(dim=-1).nan_to_num(0.0)
        out[sequence] = torch.einsum("htl,lhd->thd", weights, values)
    return out.reshape(query.shape)


def _gather(cache: PagedKvCache, part: str, pages: Any, length: int) -> tuple[Any, Any]:
    """What is stored of the first ``length`` positions of one sequence, and its scales."""
    at = torch.arange(length, device=cache.keys.device)
    page, slot = pages[at // cache.page_size].long(), at % cache.page_size
    stored, scales = (cache.keys, cache.key_scales) if part == "keys" else (cache.values, cache.value_scales)
    if cache.form.scaling == "token_head":
        scales = scales[page, slot]
    return _as_indexed(stored)[page, slot].view(stored.dtype), scales


def _as_indexed(stored: Any) -> Any:
    """As a type that torch can index: FP8 it cannot on every device."""
    return stored.view(torch.uint8) if stored.dtype.itemsize == 1 else stored
