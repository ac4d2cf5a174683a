"""Attention of the newest tokens of each sequence over a paged cache: one a sequence, or a few where some are drafts.

The context of a sequence is split, each split attended to by itself, and the parts combined (Dao et al. 2023,
"Flash-Decoding for long-context inference"). Bytes moved are ``2 * sum(context_lens) * G *
form.bytes_per_token_head(D)``, a split's result of ``4 (D + 2)`` bytes a query and head twice, queries and output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import triton

from qmeter_native.errors import UsageError
from qmeter_native.kernels.activation.rounding import has_fp8_instructions
from qmeter_native.kernels.aot import KernelVariant
from qmeter_native.kernels.checks import check_capability, check_dtype, check_same_device, check_shape
from qmeter_native.kernels.packing.kv_cache import FORMATS, KvCacheFormat
from qmeter_native.kernels.paged_attention.cache import PagedKvCache
from qmeter_native.kernels.paged_attention.kernel import attend, combine

__all__ = ["DecodeConfig", "aot_variants", "candidate_configs", "default_config", "paged_attention"]


@dataclass(frozen=True, slots=True)
class DecodeConfig:
    """How a launch is cut.

    Attributes:
        tokens: Of a tile: 32 or 64; of four bits 64, below which a thread would hold less than a whole register.
        splits: Parts of each context, 1 to 128.
        num_stages: Tiles' page numbers, then keys and values, that are fetched ahead; as Triton's.
    """

    tokens: int = 32
    splits: int = 1
    num_stages: int = 5


def candidate_configs(form: KvCacheFormat) -> tuple[DecodeConfig, ...]:
    """What tuning tries."""
    tokens = (64,) if form.bits == 4 else (32, 64)
    return tuple(DecodeConfig(*of) for of in product(tokens, (1, 2, 4, 8, 16, 32, 64), (3, 5)))


def paged_attention(
    query: Any,
    cache: PagedKvCache,
    block_table: Any,
    context_lens: Any,
    *,
    scale: float | None = None,
    window: int | None = None,
    config: DecodeConfig | None = None,
) -> Any:
    """Attend from the T newest tokens of each sequence to its context, themselves included.

    Query t of sequence s stands at position ``context_lens[s] - T + t`` and sees positions up to its own. Head h reads
    head ``h // (H / G)`` of the cache. Positions in the context must have a page. The result is the same from run to
    run, and for other splits the same up to rounding in float32.

    Args:
        query: float16 or bfloat16 ``[S, H, D]``, or ``[S, T, H, D]``; the last dimension has no gaps. Over a 16-bit
            cache, of its type.
        cache: Of G heads; H is a multiple of G.
        block_table: int32 ``[S, max_pages]``: the page of each ``page_size`` positions.
        context_lens: int32 ``[S]``; a sequence of none gets zeros.
        scale: Of the scores; None: ``1 / sqrt(D)``.
        window: Newest positions that a query sees, its own included; None: all.
        config: None: `default_config`.

    Returns:
        As ``query``, contiguous.

    Raises:
        UsageError: Naming the argument.
        DeviceError: The GPU is too old.
    """
    cache.check()
    queries = query[:, None] if query.dim() == 3 else query
    _check_arguments(queries, cache, block_table, context_lens, window)
    out = torch.empty(queries.shape, dtype=query.dtype, device=query.device)
    if out.numel():
        scale = scale if scale is not None else cache.head_size**-0.5
        longest = block_table.shape[1] * cache.page_size
        config = config or default_config(queries, cache, longest)
        _check_config(config)
        _launch(queries, cache, block_table, context_lens, out, scale, window, config)
    return out.reshape(query.shape)


def default_config(queries: Any, cache: PagedKvCache, longest_context: int) -> DecodeConfig:
    """Enough splits for eight warps on each multiprocessor, and at least 256 tokens in each; not tuned yet.

    Args:
        queries: ``[S, T, H, D]``.
        cache: That they read.
        longest_context: Tokens that a row of the block table has pages for.
    """
    device = queries.device
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    programs = queries.shape[0] * cache.num_kv_heads * _rows(queries, cache)[1]
    splits = min(triton.cdiv(8 * multiprocessors, programs), triton.cdiv(longest_context, 256), 64)
    return DecodeConfig(tokens=64 if cache.form.bits == 4 else 32, splits=max(splits, 1))


def _rows(queries: Any, cache: PagedKvCache) -> tuple[int, int]:
    """Queries of a program, and programs for those that share a head of the cache."""
    queries_of_head = queries.shape[1] * queries.shape[2] // cache.num_kv_heads
    rows = 8 if queries_of_head <= 8 else 16
    return rows, triton.cdiv(queries_of_head, rows)


def _launch(
    queries: Any,
    cache: PagedKvCache,
    block_table: Any,
    context_lens: Any,
    out: Any,
    scale: float,
    window: int | None,
    config: DecodeConfig,
) -> None:
    splits, num_tokens, num_heads = config.splits, queries.shape[1], queries.shape[2]
    rows = out.shape[:3].numel()
    partials, peaks, sums = out, None, None
    if splits > 1:
        buffer = torch.empty(rows * splits * (cache.head_size + 2), dtype=torch.float32, device=out.device)
        partials, peaks, sums = buffer.split([rows * splits * cache.head_size, rows * splits, rows * splits])
    rows_of_program, tiles_of_rows = _rows(queries, cache)
    attend[(cache.num_kv_heads * tiles_of_rows, splits, queries.shape[0])](
        queries, *pointers(cache), block_table, context_lens, partials, peaks, sums,
        scale * math.log2(math.e), window or 0, splits, num_tokens,
        *queries.stride()[:3], block_table.stride(0), *strides(cache),
        GROUP_HEADS=num_heads // cache.num_kv_heads, PAGE_SIZE=cache.page_size, HAS_WINDOW=window is not None,
        ROWS=rows_of_program, HAS_FP8=has_fp8_instructions(out.device), SPLIT=splits > 1,
        **_constants(cache.form, cache.head_size, config.tokens), num_warps=1, num_stages=config.num_stages,
    )  # fmt: skip
    if splits > 1:
        combine[(rows, triton.cdiv(cache.head_size, 64))](
            partials, peaks, sums, out, splits, HEAD_SIZE=cache.head_size, BLOCK_D=64,
            BLOCK_SPLITS=triton.next_power_of_2(splits), num_warps=2,
        )  # fmt: skip


def _check_arguments(
    queries: Any, cache: PagedKvCache, block_table: Any, context_lens: Any, window: int | None
) -> None:
    check_dtype("query", queries, *((cache.form.dtype,) if cache.form.bits == 16 else (torch.float16, torch.bfloat16)))
    check_shape("query", queries, None, None, None, cache.head_size)
    if queries.stride(3) != 1:
        raise UsageError(f"query has strides {queries.stride()}", "The elements of a head must have no gaps.")
    if queries.shape[2] % cache.num_kv_heads:
        raise UsageError(
            f"query has {queries.shape[2]} heads", f"They must be shared by the cache's {cache.num_kv_heads}."
        )
    check_dtype("block_table", block_table, torch.int32)
    check_shape("block_table", block_table, queries.shape[0], None)
    if block_table.stride(1) != 1:
        raise UsageError(f"block_table has strides {block_table.stride()}", "Its rows must have no gaps.")
    check_dtype("context_lens", context_lens, torch.int32)
    check_shape("context_lens", context_lens, queries.shape[0])
    if window is not None and window < 1:
        raise UsageError(f"window is {window}", "A query sees at least itself: give 1 or more, or None.")
    check_same_device(query=queries, keys=cache.keys, block_table=block_table, context_lens=context_lens)
    check_capability("paged_attention", queries.device, (8, 0))


def _check_config(config: DecodeConfig) -> None:
    if config.tokens not in (32, 64):
        raise UsageError(f"config.tokens is {config.tokens}", "It must be 32 or 64.")
    if not 1 <= config.splits <= 128:
        raise UsageError(f"config.splits is {config.splits}", "It must be 1 to 128.")


def code_of(form: KvCacheFormat) -> str:
    """How kernels call what the format stores."""
    if form.bits == 16:
        return "half"
    return "e4m3" if form.dtype == torch.float8_e4m3fn else f"int{form.bits}"


def _constants(form: KvCacheFormat, head_size: int, tokens: int) -> dict[str, Any]:
    """What depends on the format: a thread reads 16 bytes at once, less where a head has too few for all threads."""
    block_d = triton.next_power_of_2(head_size)
    stored, item_size = form.stored_size(block_d), form.dtype.itemsize
    return {
        "CODE": code_of(form),
        "HEAD_SIZE": head_size,
        "BLOCK_D": block_d,
        "KEY_VECTOR": min(16 // item_size, stored // 4),
        "VALUE_VECTOR": min(16 // item_size, stored // 8),
        "TOKENS": tokens,
        "KW": 32 // form.bits,
    }


def pointers(cache: PagedKvCache) -> tuple[Any, ...]:
    """Keys, values and scales as kernels read them: codes of 8 bits as uint8, pairs of float16 as int32."""
    if cache.key_scales is None:
        return cache.keys, cache.values, None, None
    keys, values = cache.keys.view(torch.uint8), cache.values.view(torch.uint8)
    if cache.form.bits == 4:
        return keys, values, *(pair.view(torch.int32)[..., 0] for pair in (cache.key_scales, cache.value_scales))
    return keys, values, cache.key_scales, cache.value_scales


def strides(cache: PagedKvCache) -> tuple[int, ...]:
    """Of page, token and head: of keys, values and their scales; 0 where a scale is of all tokens."""
    _, _, *scales = pointers(cache)
    of_scales = []
    for tensor in scales:
        if cache.form.scaling == "token_head":
            of_scales += tensor.stride()
        else:
            of_scales += (0, 0, 0 if tensor is None else tensor.stride(0))
    return (*cache.keys.stride()[:3], *cache.values.stride()[:3], *of_scales)


def aot_variants() -> tuple[KernelVariant, ...]:
    """Every kind of code at 128 elements a head, split; 64 and 256 elements of some; and the sum of splits."""
    variants = []
    for form in FORMATS:
        if form.name in ("fp8", "float16"):
            continue  # the kernels of fp8_per_token_head and bfloat16
        minimum = (8, 9) if form.dtype == torch.float8_e4m3fn else (8, 0)
        sizes = {"int8_per_token_head": (64, 128, 256), "int4_per_token_head": (64, 128)}.get(form.name, (128,))
        variants += [_attend_variant(form, size, minimum) for size in sizes]
    signature = {"partials": "*fp32", "peaks": "*fp32", "sums": "*fp32", "out": "*bf16", "num_splits": "i32"}
    constants = {"HEAD_SIZE": 128, "BLOCK_D": 64, "BLOCK_SPLITS": 64}
    variants.append(KernelVariant("combine", combine, signature, constants, ("partials", "out"), 2))
    return tuple(variants)


def _attend_variant(form: KvCacheFormat, head_size: int, minimum: tuple[int, int]) -> KernelVariant:
    config = DecodeConfig(tokens=64 if form.bits == 4 else 32)
    constants = {
        **_constants(form, head_size, config.tokens),
        "GROUP_HEADS": 4,
        "ROWS": 8,
        "PAGE_SIZE": 16,
        "HAS_WINDOW": False,
        "HAS_FP8": minimum > (8, 0),
        "SPLIT": True,
    }
    kind = "fp16" if form.dtype == torch.float16 else "bf16"
    codes = "*u8" if form.bits < 16 else f"*{kind}"
    scales = "*i32" if form.bits == 4 else "*fp32"
    types = {"query": f"*{kind}", "keys": codes, "values": codes, "key_scales": scales, "value_scales": scales}
    types |= {"block_table": "*i32", "context_lens": "*i32", "out": "*fp32", "peaks": "*fp32", "sums": "*fp32"}
    types["scale"] = "fp32"
    signature = {name: types.get(name, "i32") for name in attend.arg_names if name not in constants}
    unaligned = ("scale", "window", "num_splits", "num_tokens")
    aligned = tuple(name for name in signature if name not in unaligned)
    name = f"attend_{form.name}_{head_size}"
    return KernelVariant(name, attend, signature, constants, aligned, 1, config.num_stages, minimum)
