"""Weight-only products in Triton's interpreter, against double precision within the bound of their format."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

from qmeter_native.errors import UsageError
from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.quantized_weight import IntegerWeight
from qmeter_native.kernels.weight_only import (
    WeightOnlyTensor,
    candidate_configs,
    dequantize_kernel,
    weight_only_gemm,
    weight_only_linear,
)
from tests.kernels.weight_only.weights import (
    activations,
    all_weights,
    assert_product,
    codebook_weight,
    integer_weight,
    scaled_weight,
)

N, K = 72, 264
WEIGHTS = all_weights(N, K)
INTEGERS = [name for name, weight in WEIGHTS.items() if isinstance(weight, IntegerWeight) and "-float" not in name]

SMALL = GemmConfig(16, 64, 128, split_k=2)
LARGE = GemmConfig(64, 128, 128)


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_format_is_multiplied_within_its_bound(name: str) -> None:
    weight = WEIGHTS[name]
    prepared = WeightOnlyTensor.prepare(weight)
    for m, config in ((3, SMALL), (40, LARGE)):
        x, bias = activations(m, K), activations(N, seed=2)
        assert_product(weight_only_gemm(x, prepared, bias, config=config), x, weight, bias)


@pytest.mark.parametrize("name", INTEGERS)
def test_integer_formats_are_dequantized_to_the_bit(name: str) -> None:
    expected = WEIGHTS[name].dequantize(torch.float16)
    assert torch.equal(dequantize_kernel(WeightOnlyTensor.prepare(WEIGHTS[name])), expected)


@pytest.mark.parametrize("name", [name for name in WEIGHTS if name not in INTEGERS])
def test_other_formats_are_dequantized_within_their_rounding(name: str) -> None:
    weight = WEIGHTS[name]
    exact = weight.dequantize(torch.float64)
    error = (dequantize_kernel(WeightOnlyTensor.prepare(weight)).double() - exact).abs()
    assert (error <= 3 * 2.0**-11 * exact.abs() + 2.0**-25).all()


@settings(max_examples=8, deadline=None)
@given(
    m=st.integers(1, 40),
    n=st.integers(1, 140),
    k=st.integers(1, 300),
    bits=st.sampled_from([2, 3, 4, 8]),
    group_size=st.sampled_from([16, 32, 64, 128, 10_000]),
    zeros=st.sampled_from(["none", "integer"]),
)
def test_shapes_need_not_be_multiples_of_anything(
    m: int, n: int, k: int, bits: int, group_size: int, zeros: str
) -> None:
    weight = integer_weight(n, k, bits, min(group_size, k) if group_size == 10_000 else group_size, zeros)
    x = activations(m, k)
    assert_product(weight_only_gemm(x, WeightOnlyTensor.prepare(weight)), x, weight)


def test_programs_that_share_a_tile_leave_their_counters_at_zero_and_the_result_does_not_change() -> None:
    weight = integer_weight(72, 512)
    prepared = WeightOnlyTensor.prepare(weight)
    x = activations(5, 512)
    config = GemmConfig(16, 64, 128, split_k=4)
    first = weight_only_gemm(x, prepared, config=config)
    assert not prepared.counters.any()
    assert torch.equal(first, weight_only_gemm(x, prepared, config=config))
    assert_product(first, x, weight)


def test_splits_without_inputs_add_nothing() -> None:
    weight = integer_weight(64, 256)
    x = activations(2, 256)
    out = weight_only_gemm(x, WeightOnlyTensor.prepare(weight), config=GemmConfig(16, 64, 128, split_k=4))
    assert_product(out, x, weight)


def test_leading_dimensions_are_kept_and_may_be_empty() -> None:
    weight = integer_weight(72, 128)
    prepared = WeightOnlyTensor.prepare(weight)
    x = activations(2, 3, 128)
    assert weight_only_gemm(x, prepared).shape == (2, 3, 72)
    assert_product(weight_only_gemm(x, prepared), x, weight)
    assert weight_only_gemm(x[:0], prepared).shape == (0, 3, 72)
    assert_product(weight_only_gemm(x[0, 0], prepared), x[0, 0], weight)


def test_many_tokens_are_multiplied_by_the_dequantized_weight() -> None:
    weight = integer_weight(72, 128, act_order=True, group_size=64)
    x, bias = activations(390, 128), activations(72, seed=2)
    assert_product(weight_only_linear(x, WeightOnlyTensor.prepare(weight), bias), x, weight, bias)


def test_scales_may_be_far_smaller_and_larger_than_float16_holds() -> None:
    weight = integer_weight(64, 256)
    for factor in (2.0**-30, 2.0**-20, 2.0**3):
        scaled = replace(weight, scales=weight.scales.float() * factor)
        x = (activations(3, 256).float() / factor).clamp(-60000, 60000).half()
        assert_product(weight_only_gemm(x, WeightOnlyTensor.prepare(scaled, torch.float16)), x, scaled)


def test_rows_of_zeros_stay_zero() -> None:
    weight = integer_weight(64, 256)
    silent = replace(weight, scales=torch.zeros_like(weight.scales))
    assert not weight_only_gemm(activations(3, 256), WeightOnlyTensor.prepare(silent)).any()


def test_a_prepared_weight_is_about_as_large_as_its_bits() -> None:
    prepared = WeightOnlyTensor.prepare(integer_weight(1024, 1024))
    assert prepared.num_bytes == 1024 * 1024 // 2 + 1024 * 8 * 2 + 1024 * 4
    three = WeightOnlyTensor.prepare(integer_weight(1024, 1024, bits=3, group_size=1024))
    assert three.num_bytes == 1024 * 1024 * 3 // 8 + 1024 * 4


def test_its_tensors_move_with_it() -> None:
    prepared = WeightOnlyTensor.prepare(codebook_weight(64, 128))
    assert set(prepared.tensors()) == {"words", "scales", "row_scales", "table", "counters"}
    moved = prepared.to("cpu")
    assert torch.equal(dequantize_kernel(moved), dequantize_kernel(prepared))


def test_candidate_configurations_run_and_hold_the_default() -> None:
    weight = integer_weight(128, 1024)
    prepared = WeightOnlyTensor.prepare(weight)
    for m in (1, 40, 300):
        candidates = candidate_configs(prepared, m)
        assert 4 <= len(candidates) <= 100
        assert len(set(candidates)) == len(candidates)
    x = activations(3, 1024)
    assert_product(weight_only_gemm(x, prepared, config=candidate_configs(prepared, 3)[-1]), x, weight)


PREPARED = WeightOnlyTensor.prepare(integer_weight(64, 128))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"x": torch.zeros(2, 128)}, "x is float32"),
        ({"x": torch.zeros(2, 64).half()}, "x has shape"),
        ({"x": torch.zeros(2, 256).half()[:, ::2]}, "x has strides"),
        ({"x": torch.zeros(()).half()}, "x has no dimension"),
        ({"x": torch.zeros(2, 128, dtype=torch.float16, device="meta")}, "weight is on cpu"),
        ({"bias": torch.zeros(64)}, "bias is float32"),
        ({"bias": torch.zeros(63).half()}, "bias has shape"),
        ({"config": GemmConfig(16, 96, 128)}, "block_n is 96"),
        ({"config": GemmConfig(24, 64, 128)}, "block_m is 24"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_are_refused_by_name(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        weight_only_gemm(**{"x": torch.zeros(2, 128).half(), "weight": PREPARED} | arguments)


@pytest.mark.parametrize(
    ("weight", "named"),
    [
        (integer_weight(64, 480, group_size=48), "group_size is 48"),
        (integer_weight(64, 128, group_size=8), "group_size is 8"),
        (replace(integer_weight(64, 128), bits=5), "bits is 5"),
        (codebook_weight(64, 128, table=torch.zeros(8)), "table has 8"),
        (scaled_weight(64, 128, torch.float8_e5m2, (64, 128)), "values is float8_e5m2"),
        (replace(integer_weight(64, 128, group_size=64), group_of=torch.zeros(128, dtype=torch.int32)), "members each"),
        (object(), "weight is a object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_weights_that_kernels_cannot_read_are_refused_at_preparation(weight: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        WeightOnlyTensor.prepare(weight, torch.float16)


def test_dequantization_refuses_another_shape() -> None:
    with pytest.raises(UsageError, match=r"out is \(64, 64\)"):
        dequantize_kernel(PREPARED, out=torch.zeros(64, 64).half())


def test_an_order_of_inputs_that_is_none_costs_nothing() -> None:
    weight = integer_weight(64, 256, group_size=64)
    ordered = IntegerWeight(weight.codes, weight.scales, None, 4, 64, torch.arange(256) // 64)
    assert WeightOnlyTensor.prepare(ordered).order is None
