"""Decoding over paged caches in Triton's interpreter, against double precision within the bound of the arithmetic.

The interpreter reads FP8 through the arithmetic that GPUs without FP8 instructions use; tests/gpu reads it through
these, and bfloat16.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing.kv_cache import FORMATS, format_named
from qmeter_native.kernels.paged_attention.decode import DecodeConfig, paged_attention
from qmeter_native.kernels.paged_attention.reference import (
    attention_bound,
    paged_attention_oracle,
    paged_attention_reference,
)
from tests.kernels.paged_attention.caches import filled_cache

INTERPRETED = [form for form in FORMATS if form.name != "bfloat16"]


def queries(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).half()


def assert_right(query, cache, table, lengths, *, config, **options) -> None:
    ours = paged_attention(query, cache, table, lengths, config=config, **options)
    expected = paged_attention_oracle(query, cache, table, lengths, **options)
    bound = attention_bound(query, cache, table, lengths, scale=options.get("scale"))
    assert ours.dtype == query.dtype
    error = (ours.double() - expected).abs()
    assert bool((error <= bound).all()), f"{(error / bound).max():.3g} of the bound"


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("form", INTERPRETED, ids=lambda form: form.name)
def test_every_format_is_read_right_at_odd_lengths(form, splits: int) -> None:
    cache, table, lengths = filled_cache(form, [16, 77], num_kv_heads=2, head_size=64)
    assert_right(queries(2, 8, 64), cache, table, lengths, config=DecodeConfig(64, splits))


@pytest.mark.parametrize("head_size", [80, 128, 256])
@pytest.mark.parametrize("name", ["float16", "int8_per_token_head", "int4_per_token_head"])
def test_every_size_of_heads_is_read_right(name: str, head_size: int) -> None:
    form = format_named(name)
    cache, table, lengths = filled_cache(form, [45], num_kv_heads=1, head_size=head_size)
    assert_right(queries(1, 2, head_size), cache, table, lengths, config=DecodeConfig(64))


@pytest.mark.parametrize("group_heads", [1, 7, 16, 20])
def test_heads_of_a_group_share_a_program_and_more_than_16_take_several(group_heads: int) -> None:
    form = format_named("int8_per_token_head")
    cache, table, lengths = filled_cache(form, [33], num_kv_heads=2, head_size=64)
    assert_right(queries(1, 2 * group_heads, 64), cache, table, lengths, config=DecodeConfig(64))


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("window", [None, 5])
def test_drafts_see_what_is_before_them_and_their_window(window: int | None, splits: int) -> None:
    form = format_named("int8_per_token_head")
    cache, table, lengths = filled_cache(form, [3, 70], num_kv_heads=1, head_size=64)
    assert_right(queries(2, 3, 6, 64), cache, table, lengths, config=DecodeConfig(32, splits), window=window, scale=0.3)


def test_a_window_skips_what_is_before_it() -> None:
    form = format_named("float16")
    cache, table, lengths = filled_cache(form, [200], num_kv_heads=1, head_size=64)
    first_page = int(table[0, 0])
    cache.keys[first_page] = float("nan")
    cache.values[first_page] = float("nan")
    out = paged_attention(queries(1, 2, 64), cache, table, lengths, window=100, config=DecodeConfig(32))
    assert bool(out.isfinite().all())


def test_an_empty_context_gives_zeros() -> None:
    for splits in (1, 2):
        form = format_named("int8_per_token_head")
        cache, table, lengths = filled_cache(form, [0, 20], num_kv_heads=1, head_size=64)
        out = paged_attention(queries(2, 2, 64), cache, table, lengths, config=DecodeConfig(64, splits))
        assert bool((out[0] == 0).all())
        assert bool((out[1] != 0).any())


def test_splits_give_the_same_up_to_rounding_and_the_same_run_to_run() -> None:
    form = format_named("int8_per_token_head")
    cache, table, lengths = filled_cache(form, [130], num_kv_heads=1, head_size=64)
    query = queries(1, 4, 64)
    whole = paged_attention(query, cache, table, lengths, config=DecodeConfig(32, 1))
    for splits in (2, 6):  # the last has more splits than tiles
        parts = paged_attention(query, cache, table, lengths, config=DecodeConfig(32, splits))
        again = paged_attention(query, cache, table, lengths, config=DecodeConfig(32, splits))
        assert torch.equal(parts, again)
        assert bool(((parts - whole).abs() <= 2 * attention_bound(query, cache, table, lengths)).all())


def test_pages_may_lie_token_by_token_as_well_as_head_by_head() -> None:
    form = format_named("int8_per_token_head")
    cache, table, lengths = filled_cache(form, [50], num_kv_heads=2, head_size=64, page_size=32)
    same = type(cache)(
        form, cache.keys.contiguous(), cache.values.contiguous(), cache.key_scales.contiguous(), cache.value_scales
    )
    query = queries(1, 4, 64)
    ours, theirs = (paged_attention(query, pages, table, lengths, config=DecodeConfig(32)) for pages in (cache, same))
    assert torch.equal(ours, theirs)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=2), st.integers(1, 4), st.integers(1, 3))
def test_any_lengths_are_right(context_lens: list[int], splits: int, num_tokens: int) -> None:
    form = format_named("int4_per_token_head")
    cache, table, lengths = filled_cache(form, context_lens, num_kv_heads=1, head_size=64)
    query = queries(len(context_lens), num_tokens, 2, 64)
    assert_right(query, cache, table, lengths, config=DecodeConfig(64, splits))


def test_the_reference_is_the_oracle_in_single_precision() -> None:
    form = format_named("int4_per_token_head")
    cache, table, lengths = filled_cache(form, [0, 45], num_kv_heads=2, head_size=64)
    query = queries(2, 2, 4, 64)
    expected = paged_attention_oracle(query, cache, table, lengths)
    error = (paged_attention_reference(query, cache, table, lengths).double() - expected).abs()
    assert bool((error <= attention_bound(query, cache, table, lengths)).all())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"query": torch.zeros(1, 4, 64)}, "query is float32"),
        ({"query": torch.zeros(1, 4, 128).half()}, "query has shape"),
        ({"query": torch.zeros(1, 3, 64).half()}, "query has 3 heads"),
        ({"block_table": torch.zeros(1, 4)}, "block_table is float32"),
        ({"block_table": torch.zeros(2, 4, dtype=torch.int32)}, "block_table has shape"),
        ({"context_lens": torch.zeros(1, dtype=torch.int64)}, "context_lens is int64"),
        ({"window": 0}, "window is 0"),
        ({"config": DecodeConfig(splits=0)}, "splits is 0"),
        ({"config": DecodeConfig(tokens=16)}, "tokens is 16"),
    ],
)
def test_bad_arguments_are_refused_by_name(change, name: str) -> None:
    cache, table, lengths = filled_cache(format_named("int8_per_token_head"), [5], num_kv_heads=2, head_size=64)
    arguments = {"query": queries(1, 4, 64), "block_table": table, "context_lens": lengths, **change}
    with pytest.raises(UsageError, match=name):
        paged_attention(arguments.pop("query"), cache, **arguments)
