"""Attention over paged caches on a GPU: every format against double precision within its bound, and writing to the bit.

What the interpreter cannot do is done here: bfloat16, and FP8 by the GPU's own conversions.
"""

from __future__ import annotations

import pytest
import torch

from qmeter_native.errors import QmeterError
from qmeter_native.kernels.packing.kv_cache import FORMATS, format_named
from qmeter_native.kernels.paged_attention.cache import PagedKvCache
from qmeter_native.kernels.paged_attention.decode import DecodeConfig, candidate_configs, paged_attention
from qmeter_native.kernels.paged_attention.reference import (
    attention_bound,
    paged_attention_oracle,
    write_kv_reference,
)
from qmeter_native.kernels.paged_attention.write import write_kv
from tests.kernels.paged_attention.caches import filled_cache

LENGTHS = [1, 15, 16, 17, 0, 500, 1023, 2049]


def queries(*shape: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).cuda()


def dtypes_of(form) -> list[torch.dtype]:
    return [form.dtype] if form.bits == 16 else [torch.float16, torch.bfloat16]


def assert_right(query, cache, table, lengths, **options) -> None:
    ours = paged_attention(query, cache, table, lengths, **options)
    options.pop("config", None)
    expected = paged_attention_oracle(query, cache, table, lengths, **options)
    bound = attention_bound(query, cache, table, lengths, scale=options.get("scale"))
    excess = ((ours.double() - expected).abs() / bound.clamp(min=1e-30)).max().item()
    assert excess <= 1, f"{excess:.3g} times the bound"


@pytest.mark.parametrize("head_size", [64, 80, 96, 128, 192, 256])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_format_and_size_of_heads_is_right(form, head_size: int) -> None:
    cache, table, lengths = filled_cache(form, LENGTHS, num_kv_heads=2, head_size=head_size, device="cuda")
    for dtype in dtypes_of(form):
        assert_right(queries(len(LENGTHS), 8, head_size, dtype=dtype), cache, table, lengths)


@pytest.mark.parametrize("group_heads", [1, 7, 8, 9, 16, 20, 64])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_any_number_of_heads_a_group_is_right(form, group_heads: int) -> None:
    cache, table, lengths = filled_cache(form, [777, 33], num_kv_heads=2, head_size=128, device="cuda")
    assert_right(queries(2, 2 * group_heads, 128, dtype=dtypes_of(form)[-1]), cache, table, lengths)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_candidate_of_tuning_is_right_and_the_same_run_to_run(form) -> None:
    cache, table, lengths = filled_cache(form, [1500, 90], num_kv_heads=2, head_size=128, device="cuda")
    query = queries(2, 8, 128, dtype=dtypes_of(form)[-1])
    for config in candidate_configs(form):
        assert_right(query, cache, table, lengths, config=config)
        first, second = (paged_attention(query, cache, table, lengths, config=config) for _ in range(2))
        assert torch.equal(first, second)


@pytest.mark.parametrize("window", [None, 1, 100])
@pytest.mark.parametrize("splits", [1, 7])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_drafts_and_windows_are_right(form, splits: int, window: int | None) -> None:
    cache, table, lengths = filled_cache(form, [3, 70, 1290], num_kv_heads=2, head_size=128, device="cuda")
    config = DecodeConfig(tokens=64, splits=splits)
    query = queries(3, 4, 8, 128, dtype=dtypes_of(form)[-1])
    assert_right(query, cache, table, lengths, window=window, scale=0.2, config=config)


@pytest.mark.parametrize("page_size", [16, 48, 128, 784])
def test_any_page_size_is_right(page_size: int) -> None:
    form = format_named("int8_per_token_head")
    cache, table, lengths = filled_cache(
        form, [1000, 47, 48], num_kv_heads=2, head_size=128, page_size=page_size, device="cuda"
    )
    assert_right(queries(3, 8, 128, dtype=torch.bfloat16), cache, table, lengths)


def test_pages_may_lie_token_by_token() -> None:
    form = format_named("int4_per_token_head")
    cache, table, lengths = filled_cache(form, [500], num_kv_heads=4, head_size=128, device="cuda")
    tensors = (cache.keys, cache.values, cache.key_scales, cache.value_scales)
    same = PagedKvCache(form, *(tensor.contiguous() for tensor in tensors))
    query = queries(1, 16, 128, dtype=torch.float16)
    ours, theirs = (paged_attention(query, pages, table, lengths) for pages in (cache, same))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("head_size", [64, 80, 128, 256])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_slots_hold_what_the_format_stores(form, head_size: int) -> None:
    generator = torch.Generator().manual_seed(2)
    slots = torch.randperm(16 * 40, generator=generator)[:300]
    slots[7] = -1
    for dtype in dtypes_of(form):
        ours, expected = (PagedKvCache.empty(form, 40, 16, 4, head_size, "cuda") for _ in range(2))
        if form.scaling == "head":
            for cache in (ours, expected):
                cache.key_scales[:] = torch.linspace(0.001, 0.1, 4)
                cache.value_scales[:] = torch.linspace(0.1, 0.001, 4)
        sizes = torch.logspace(-3, 3, 300)[:, None, None]
        keys, values = (
            (torch.randn(300, 4, head_size, generator=generator) * sizes).to(dtype).cuda() for _ in range(2)
        )
        write_kv(keys, values, ours, slots.cuda())
        write_kv_reference(keys, values, expected, slots.cuda())
        for name in ("keys", "values", "key_scales", "value_scales"):
            one, other = getattr(ours, name), getattr(expected, name)
            if one is not None:
                assert torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)), name


def test_a_graph_replays_over_growing_contexts() -> None:
    form = format_named("int8_per_token_head")
    cache, table, lengths = filled_cache(form, [400], num_kv_heads=2, head_size=128, device="cuda")
    query = queries(1, 8, 128, dtype=torch.float16)
    paged_attention(query, cache, table, lengths)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = paged_attention(query, cache, table, lengths)
    for length in (400, 17, 399):
        lengths.fill_(length)
        graph.replay()
        expected = paged_attention_oracle(query, cache, table, lengths)
        assert bool(((out.double() - expected).abs() <= attention_bound(query, cache, table, lengths)).all())


def test_tensors_on_two_devices_are_refused() -> None:
    form = format_named("float16")
    cache, table, lengths = filled_cache(form, [40], num_kv_heads=1, head_size=64, device="cuda")
    with pytest.raises(QmeterError, match="context_lens is on cpu"):
        paged_attention(queries(1, 2, 64, dtype=torch.float16), cache, table, lengths.cpu())
