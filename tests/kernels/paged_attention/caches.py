"""Caches with random contents, pages in no order, and rubbish behind every context."""

from __future__ import annotations

import torch

from qmeter_native.kernels.packing.kv_cache import KvCacheFormat
from qmeter_native.kernels.paged_attention.cache import PagedKvCache
from qmeter_native.kernels.paged_attention.reference import write_kv_reference


def filled_cache(
    form: KvCacheFormat,
    context_lens: list[int],
    num_kv_heads: int,
    head_size: int,
    page_size: int = 16,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    seed: int = 0,
):
    """A cache of these contexts, its block table and the lengths; page 0 belongs to nobody."""
    generator = torch.Generator().manual_seed(seed)
    per_sequence = [-(-length // page_size) for length in context_lens]
    max_pages = max(*per_sequence, 1) + 1
    cache = PagedKvCache.empty(form, sum(per_sequence) + 2, page_size, num_kv_heads, head_size, device)
    order = (torch.randperm(sum(per_sequence), generator=generator) + 1).to(torch.int32)
    table = torch.full((len(context_lens), max_pages), 2**31 - 1, dtype=torch.int32)  # never to be followed
    if form.scaling == "head":
        cache.key_scales[:] = torch.linspace(0.005, 0.02, num_kv_heads)
        cache.value_scales[:] = torch.linspace(0.02, 0.01, num_kv_heads)
    _fill_with_rubbish(cache)
    dtype = dtype or (form.dtype if form.bits == 16 else torch.float16)
    for sequence, (length, pages) in enumerate(zip(context_lens, per_sequence, strict=True)):
        own, order = order[:pages], order[pages:]
        table[sequence, :pages] = own
        at = torch.arange(length)
        slots = own.long()[at // page_size] * page_size + at % page_size
        shape = (length, num_kv_heads, head_size)
        channels = torch.logspace(-1, 0.5, head_size)  # as of real keys, some channels are large
        keys = (torch.randn(shape, generator=generator) * channels).to(dtype)
        values = (
            torch.randn(shape, generator=generator) * torch.logspace(-2, 1, max(length, 1))[:length, None, None]
        ).to(dtype)
        write_kv_reference(keys.to(device), values.to(device), cache, slots.to(device))
    return cache, table.to(device), torch.tensor(context_lens, dtype=torch.int32, device=device)


def _fill_with_rubbish(cache: PagedKvCache) -> None:
    """NaN where a byte can hold it: what no context covers must not be seen."""
    for pages in (cache.keys, cache.values):
        if cache.form.bits == 16:
            pages.fill_(float("nan"))
        else:
            pages.view(torch.uint8).fill_(0x7F)
    if cache.form.scaling == "token_head":
        cache.key_scales.fill_(float("nan"))
        cache.value_scales.fill_(float("nan"))
