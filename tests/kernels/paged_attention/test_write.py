"""Writing keys and values into pages in Triton's interpreter: to the bit what `quantize_kv` stores."""

from __future__ import annotations

import pytest
import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing.kv_cache import FORMATS, format_named
from qmeter_native.kernels.paged_attention.cache import PagedKvCache
from qmeter_native.kernels.paged_attention.reference import write_kv_reference
from qmeter_native.kernels.paged_attention.write import write_kv

SLOTS = torch.tensor([17, 0, -1, 15, 47])


def empty(form, head_size: int = 64) -> PagedKvCache:
    cache = PagedKvCache.empty(form, 3, 16, 2, head_size, "cpu")
    if form.scaling == "head":
        cache.key_scales[:] = torch.tensor([0.01, 0.3])
        cache.value_scales[:] = torch.tensor([0.02, 0.1])
    return cache


def new_tokens(form, head_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    dtype = form.dtype if form.bits == 16 else torch.float16
    sizes = torch.logspace(-3, 3, len(SLOTS))[:, None, None]
    return tuple((torch.randn(len(SLOTS), 2, head_size, generator=generator) * sizes).to(dtype) for _ in range(2))


def contents(cache: PagedKvCache) -> list[torch.Tensor]:
    tensors = (cache.keys, cache.values, cache.key_scales, cache.value_scales)
    return [tensor.contiguous().view(torch.uint8) for tensor in tensors if tensor is not None]


@pytest.mark.parametrize("head_size", [64, 80])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_slots_hold_what_the_format_stores_and_others_nothing(form, head_size: int) -> None:
    ours, expected = empty(form, head_size), empty(form, head_size)
    keys, values = new_tokens(form, head_size)
    write_kv(keys, values, ours, SLOTS)
    write_kv_reference(keys, values, expected, SLOTS)
    for ours_part, expected_part in zip(contents(ours), contents(expected), strict=True):
        assert torch.equal(ours_part, expected_part)
    assert not bool(ours.keys[1, 0].float().any())


@pytest.mark.parametrize("name", ["fp8_per_token_head", "int8_per_token_head", "int4_per_token_head"])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_an_infinity_or_nan_is_kept_in_the_scale(name: str, bad: float) -> None:
    cache = empty(format_named(name))
    keys, values = new_tokens(cache.form)
    keys[0, 1, 5] = bad
    write_kv(keys, values, cache, SLOTS)
    assert not bool(cache.key_scales[1, 1, 1].isfinite().all())
    assert bool(cache.key_scales[1, 1, 0].isfinite().all())


def test_no_tokens_are_no_error() -> None:
    cache = empty(format_named("float16"))
    write_kv(torch.empty(0, 2, 64).half(), torch.empty(0, 2, 64).half(), cache, SLOTS[:0])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"keys": torch.zeros(5, 2, 64)}, "keys is float32"),
        ({"values": torch.zeros(5, 2, 80).half()}, "values has shape"),
        ({"values": torch.zeros(5, 2, 64).bfloat16()}, "values is bfloat16"),
        ({"slot_mapping": SLOTS.int()}, "slot_mapping is int32"),
        ({"slot_mapping": SLOTS[:4]}, "slot_mapping has shape"),
    ],
)
def test_bad_arguments_are_refused_by_name(change, name: str) -> None:
    cache = empty(format_named("int8_per_token_head"))
    keys, values = new_tokens(cache.form)
    arguments = {"keys": keys, "values": values, "slot_mapping": SLOTS, **change}
    with pytest.raises(UsageError, match=name):
        write_kv(arguments["keys"], arguments["values"], cache, arguments["slot_mapping"])


@pytest.mark.parametrize(
    ("sizes", "name"),
    [((3, 16, 2, 40), "40 elements"), ((3, 16, 2, 272), "272 elements"), ((3, 24, 2, 64), "24 tokens")],
)
def test_caches_that_kernels_do_not_read_are_refused(sizes, name: str) -> None:
    with pytest.raises(UsageError, match=name):
        PagedKvCache.empty(format_named("float16"), *sizes, "cpu")


def test_a_cache_of_the_wrong_scales_is_refused() -> None:
    cache = empty(format_named("int8_per_token_head"))
    wrong = PagedKvCache(cache.form, cache.keys, cache.values, cache.key_scales.half(), cache.value_scales)
    with pytest.raises(UsageError, match="key_scales is float16"):
        wrong.check()
    with pytest.raises(UsageError, match="key_scales are missing"):
        PagedKvCache(cache.form, cache.keys, cache.values).check()
