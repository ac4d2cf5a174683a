"""Operations and bytes of one call of a kernel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmeter_native.work.cache_work import KvLayout, attention_work, kv_write_work
from qmeter_native.work.gemm_work import InputScales, dequantize_work, product_work, quantize_work
from qmeter_native.work.scheme import WeightLayout

M, N, K = 16, 6144, 4096
W = N * K
W4 = WeightLayout(4, scale_bits=16, block=(1, 128))

sizes = st.integers(1, 20_000)
layouts = st.builds(
    WeightLayout,
    bits=st.sampled_from([2, 3, 4, 8, 16]),
    scale_bits=st.sampled_from([0, 8, 16, 32]),
    zero_bits=st.sampled_from([0, 4, 16]),
    block=st.tuples(st.sampled_from([0, 1, 128]), st.sampled_from([0, 16, 64, 128])),
    row_bits=st.sampled_from([0, 32]),
    channel_bits=st.sampled_from([0, 16]),
)


@pytest.mark.parametrize(
    ("layout", "weight_bytes"),
    [
        (WeightLayout(16), 2 * W),
        (WeightLayout(3, 16, block=(1, 128)), W * 3 // 8 + W // 128 * 2),
        (W4, W // 2 + W // 128 * 2),
        (WeightLayout(4, 16, 4, (1, 128)), W // 2 + W // 128 * 5 // 2),
        (WeightLayout(4, 16, 4, (1, 128), row_bits=32), W // 2 + W // 128 * 5 // 2 + K * 4),
        (WeightLayout(4, 8 + 32 / 256, block=(1, 64)), W // 2 + W // 64 + W // 64 // 256 * 4),
        (WeightLayout(4, 8, block=(1, 16), tensor_bits=32), W // 2 + W // 16 + 4),
        (WeightLayout(8, 32, block=(128, 128)), W + W // 128 // 128 * 4),
        (WeightLayout(4, 8, 4, (1, 128), channel_bits=16), W // 2 + W // 128 * 3 // 2 + N * 2),
    ],
)
def test_a_product_reads_its_weights_with_their_scales_once(layout: WeightLayout, weight_bytes: int) -> None:
    work = product_work(layout, M, N, K)

    assert work.flops == 2 * M * N * K
    assert work.read_bytes == weight_bytes + 2 * M * K
    assert work.write_bytes == 2 * M * N


def test_quantized_activations_are_read_with_their_scales() -> None:
    plain = product_work(WeightLayout(8, 32), M, N, K, input_bits=8)
    of_tokens = product_work(WeightLayout(8, 32), M, N, K, input_bits=8, input_scales=InputScales())
    of_groups = product_work(WeightLayout(8, 32), M, N, K, input_bits=8, input_scales=InputScales(group=128))
    asymmetric = product_work(WeightLayout(8, 32), M, N, K, input_bits=8, input_scales=InputScales(zero_bits=32))

    assert of_tokens.read_bytes - plain.read_bytes == 4 * M
    assert of_groups.read_bytes - plain.read_bytes == 4 * M * K // 128
    assert asymmetric.read_bytes - plain.read_bytes == 8 * M


def test_a_bias_is_read_once_for_each_output() -> None:
    assert product_work(W4, M, N, K, bias_bits=16).bytes - product_work(W4, M, N, K).bytes == 2 * N


@given(layouts, sizes, sizes, sizes)
def test_one_row_more_costs_its_operations_its_input_and_its_output_and_no_weights(
    layout: WeightLayout, m: int, n: int, k: int
) -> None:
    one, next_one = product_work(layout, m, n, k), product_work(layout, m + 1, n, k)

    assert next_one.flops - one.flops == 2 * n * k
    assert next_one.bytes - one.bytes == 2 * k + 2 * n
    assert next_one.intensity > one.intensity


@given(layouts, sizes, sizes)
def test_dequantizing_first_costs_the_plain_matrix_twice_more(layout: WeightLayout, n: int, k: int) -> None:
    """Written once, and read again by a plain product, which no longer reads the quantized one."""
    fused = product_work(layout, M, n, k)
    first, then = dequantize_work(layout, n, k), product_work(WeightLayout(16), M, n, k)

    assert first.bytes + then.bytes - fused.bytes == 4 * n * k


def test_a_quantizer_reads_activations_and_writes_codes_and_scales() -> None:
    assert quantize_work(M, K).read_bytes == 2 * M * K
    assert quantize_work(M, K).write_bytes == M * K + 4 * M
    assert quantize_work(M, K, scales=InputScales(group=128)).write_bytes == M * K + 4 * M * K // 128


def test_a_norm_before_the_quantizer_reads_its_weight_and_passes_the_residual_on() -> None:
    plain, normed = quantize_work(M, K), quantize_work(M, K, is_normed=True, has_residual=True)

    assert normed.read_bytes - plain.read_bytes == 2 * M * K + 2 * K
    assert normed.write_bytes - plain.write_bytes == 2 * M * K


@pytest.mark.parametrize(
    ("layout", "head_bytes"),
    [
        (KvLayout(16), 256),
        (KvLayout(8), 128),
        (KvLayout(8, scale_bits=32), 132),
        (KvLayout(4, scale_bits=16, zero_bits=16), 68),
        (KvLayout(4, scale_bits=16, group=32), 72),
    ],
)
def test_decoding_reads_the_keys_and_values_of_each_head_once(layout: KvLayout, head_bytes: int) -> None:
    sequences, context, heads, kv_heads, width = 32, 1000, 32, 8, 128
    cached = sequences * context
    work = attention_work(layout, sequences, cached, cached, heads, kv_heads, width)

    assert work.flops == 4 * cached * heads * width
    assert work.read_bytes == 2 * cached * kv_heads * head_bytes + 2 * sequences * heads * width
    assert work.write_bytes == 2 * sequences * heads * width


def test_writing_the_cache_reads_plain_keys_and_values_and_writes_quantized_ones() -> None:
    work = kv_write_work(KvLayout(8, scale_bits=32), 10, 8, 128)

    assert work.read_bytes == 2 * 10 * 8 * 128 * 2
    assert work.write_bytes == 2 * 10 * 8 * 132
    assert work.flops == 0
