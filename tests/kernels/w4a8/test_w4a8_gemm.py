"""Products of 4-bit weights with 8-bit activations in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.oracle import relative_step
from qmeter_native.kernels.quantized_weight import IntegerWeight, ProgressiveWeight
from qmeter_native.kernels.w4a8 import W4A8Tensor, candidate_configs, w4a8_gemm, w4a8_reference
from qmeter_native.kernels.w4a8.layout import from_blocks, to_blocks
from qmeter_native.kernels.w4a8.tiles import default_config, shared_bytes

SMALL = GemmConfig(16, 64, 256, 1, 4, 4)
SPLIT = GemmConfig(16, 64, 256, 2, 4, 4)
LARGE = GemmConfig(64, 128, 256, 1, 8, 3)
CONFIGS = pytest.mark.parametrize("config", [SMALL, SPLIT, LARGE], ids=["small", "split", "large"])
SHAPES = pytest.mark.parametrize("shape", [(1, 64, 256), (5, 70, 400), (20, 130, 512)], ids=str)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def codes_of(n: int, k: int) -> Any:
    return torch.randint(0, 16, (n, k), dtype=torch.uint8, generator=generator(1))


def scales_of(*shape: int) -> Any:
    return torch.rand(shape, generator=generator(2)) / 64 + 1e-3


def int8_inputs(m: int, k: int) -> Any:
    return torch.randint(-128, 128, (m, k), dtype=torch.int8, generator=generator(3))


def fp8_inputs(m: int, k: int) -> Any:
    return torch.randn(m, k, generator=generator(3)).to(torch.float8_e4m3fn)


def progressive(n: int, k: int, group: int = 128) -> ProgressiveWeight:
    groups = -(-k // group)
    inner = torch.randint(1, 128, (n, groups), dtype=torch.int8, generator=generator(4))
    zeros = torch.randint(0, 16, (n, groups), dtype=torch.uint8, generator=generator(5))
    return ProgressiveWeight(codes_of(n, k), inner, zeros, scales_of(n), group)


def by_channel(n: int, k: int, zeros: Any) -> IntegerWeight:
    return IntegerWeight(codes_of(n, k), scales_of(n, 1), zeros, 4, k)


def symmetric(n: int, k: int, group: int = 128) -> IntegerWeight:
    return IntegerWeight(codes_of(n, k), scales_of(n, -(-k // group)), None, 4, group)


def assert_equals_integers(out: Any, exact: Any) -> None:
    """Integers are exact: what differs is the product with two float32 scales, and the output's rounding."""
    steps = relative_step(out.dtype) + 4 * relative_step(torch.float32)
    tiny = float(torch.finfo(out.dtype).smallest_normal) * relative_step(out.dtype) * 2
    assert ((out.double() - exact).abs() <= steps * exact.abs() + tiny).all()


@CONFIGS
@SHAPES
def test_progressive_products_are_exact_up_to_the_output_rounding(
    shape: tuple[int, int, int], config: GemmConfig
) -> None:
    m, n, k = shape
    x, x_scales, weight = int8_inputs(m, k), scales_of(m), progressive(n, k)
    out = w4a8_gemm(x, x_scales, W4A8Tensor.prepare(weight), out_dtype=torch.float16, config=config)
    sums = (x.long() @ weight.int8().long().T).double()
    assert_equals_integers(out, sums * x_scales.double()[:, None] * weight.scales.double())


@CONFIGS
@SHAPES
def test_products_with_whole_zero_points_by_channel_are_exact(shape: tuple[int, int, int], config: GemmConfig) -> None:
    m, n, k = shape
    zeros = torch.randint(0, 16, (n, 1), dtype=torch.uint8, generator=generator(6))
    x, x_scales, weight = int8_inputs(m, k), scales_of(m), by_channel(n, k, zeros)
    out = w4a8_gemm(x, x_scales, W4A8Tensor.prepare(weight), config=config)
    sums = (x.long() @ (weight.codes.long() - zeros.long()).T).double()
    assert_equals_integers(out, sums * x_scales.double()[:, None] * weight.scales.double().T)


def test_fractional_zero_points_are_corrected_by_the_sums_of_activations() -> None:
    m, n, k = 5, 70, 400
    zeros = 15 * torch.rand(n, 1, generator=generator(6))
    x, weight = int8_inputs(m, k), by_channel(n, k, zeros)
    out = w4a8_gemm(x, torch.tensor(0.5), W4A8Tensor.prepare(weight), config=SPLIT)
    values, magnitude = weight.dequantize(torch.float64), x.double().abs() @ weight.scales.double().expand(n, k).T * 15
    exact = 0.5 * x.double() @ values.T
    # the sum and its correction are rounded to float32 before they are subtracted, each below the sum of magnitudes
    bound = relative_step(torch.float16) * exact.abs() + 4 * relative_step(torch.float32) * magnitude
    assert ((out.double() - exact).abs() <= bound).all()


def test_given_sums_of_activations_are_taken() -> None:
    x, weight = int8_inputs(3, 256), W4A8Tensor.prepare(by_channel(64, 256, torch.full((64, 1), 7.5)))
    expected = w4a8_gemm(x, scales_of(3), weight)
    assert torch.equal(w4a8_gemm(x, scales_of(3), weight, x_sums=x.sum(1, dtype=torch.int32)), expected)


@CONFIGS
@SHAPES
def test_fp8_products_are_within_the_bound_of_float32_sums(shape: tuple[int, int, int], config: GemmConfig) -> None:
    m, n, k = shape
    x, x_scales, weight = fp8_inputs(m, k), scales_of(m), symmetric(n, k)
    out = w4a8_gemm(x, x_scales, W4A8Tensor.prepare(weight), config=config)
    inputs, values = x.double() * x_scales.double()[:, None], weight.dequantize(torch.float64)
    exact, magnitude = inputs @ values.T, inputs.abs() @ values.abs().T
    of_sum = (k + 4) * relative_step(torch.float32)  # Higham 2002, eq. 3.5
    bound = of_sum * magnitude + relative_step(out.dtype) * exact.abs() + 1e-7
    assert ((out.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("group", [128, 256, 600])
@pytest.mark.parametrize("make", [progressive, symmetric])
def test_groups_of_any_multiple_of_128_inputs_and_a_bias_are_applied(make: Any, group: int) -> None:
    m, n, k = 4, 64, 600
    weight, bias = W4A8Tensor.prepare(make(n, k, group)), torch.randn(n, generator=generator(7))
    x = int8_inputs(m, k) if weight.dtype == torch.int8 else fp8_inputs(m, k)
    out = w4a8_gemm(x, scales_of(m), weight, bias)
    values = make(n, k, group).dequantize(torch.float64)
    exact = scales_of(m).double()[:, None] * x.double() @ values.T + bias.double()
    torch.testing.assert_close(out.double(), exact, rtol=2 * relative_step(torch.float16), atol=1e-2)


@pytest.mark.parametrize(
    "weight",
    [progressive(70, 300), symmetric(70, 300), by_channel(70, 300, torch.full((70, 1), 6.25))],
    ids=["progressive", "fp8", "channel"],
)
def test_the_reference_equals_the_kernel(weight: Any) -> None:
    prepared, bias = W4A8Tensor.prepare(weight), torch.randn(70, generator=generator(7))
    x = int8_inputs(3, 300) if prepared.dtype == torch.int8 else fp8_inputs(3, 300)
    out, expected = (f(x, scales_of(3), prepared, bias) for f in (w4a8_gemm, w4a8_reference))
    torch.testing.assert_close(out, expected, rtol=2 * relative_step(torch.float16), atol=1e-2)


@pytest.mark.parametrize("make", [progressive, symmetric])
def test_the_tensor_memory_accelerator_loads_the_same(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = W4A8Tensor.prepare(make(64, 400))
    x = int8_inputs(5, 400) if weight.dtype == torch.int8 else fp8_inputs(5, 400)
    by_pointers = w4a8_gemm(x, scales_of(5), weight, config=SPLIT)
    monkeypatch.setattr("qmeter_native.kernels.w4a8.gemm.has_tma", lambda x: True)
    assert torch.equal(w4a8_gemm(x, scales_of(5), weight, config=SPLIT), by_pointers)


def test_splits_leave_their_counters_at_zero_and_repeat_to_the_bit() -> None:
    x, weight = fp8_inputs(4, 512), W4A8Tensor.prepare(symmetric(64, 512))
    first = w4a8_gemm(x, scales_of(4), weight, config=SPLIT)
    assert not weight.counters.any()
    assert torch.equal(first, w4a8_gemm(x, scales_of(4), weight, config=SPLIT))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 200), st.integers(1, 600), st.integers(0, 1000))
def test_blocks_give_back_the_codes(n: int, k: int, seed: int) -> None:
    codes = torch.randint(0, 16, (n, k), dtype=torch.uint8, generator=generator(seed))
    assert torch.equal(from_blocks(to_blocks(codes), n, k), codes)


def test_sixteen_bytes_are_what_one_thread_of_the_matrix_unit_holds() -> None:
    codes = torch.zeros(64, 256, dtype=torch.uint8)
    warp, g, t, step = 2, 5, 3, 1
    for half in range(2):
        for eighth in range(2):
            column = 32 * step + 16 * half + 4 * t
            codes[16 * warp + 8 * eighth + g, column : column + 4] = 1 + 2 * half + eighth
    block = to_blocks(codes)[0, 0].view(4, 4, 32, 16)
    assert block[step, warp, 4 * g + t].tolist() == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    assert block.count_nonzero() == 16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_16_bit_scales_of_groups_are_read_as_they_are(dtype: Any) -> None:
    logical = symmetric(70, 400)
    half = replace(logical, scales=logical.scales.to(dtype))
    x, rounded = fp8_inputs(5, 400), replace(logical, scales=half.scales.float())
    out = w4a8_gemm(x, scales_of(5), W4A8Tensor.prepare(half))
    assert torch.equal(out, w4a8_gemm(x, scales_of(5), W4A8Tensor.prepare(rounded)))
    assert torch.equal(out, w4a8_reference(x, scales_of(5), W4A8Tensor.prepare(half)))
    assert W4A8Tensor.prepare(half).num_bytes == 128 * 512 // 2 + 128 * 4 * 2


def test_a_prepared_weight_gives_back_its_integers() -> None:
    assert torch.equal(W4A8Tensor.prepare(progressive(70, 300)).integers(), progressive(70, 300).int8())
    assert torch.equal(W4A8Tensor.prepare(symmetric(70, 300)).integers(), symmetric(70, 300).codes.to(torch.int8) - 8)


def test_a_product_reads_half_a_byte_a_weight_and_four_bytes_a_group() -> None:
    assert W4A8Tensor.prepare(symmetric(128, 512)).num_bytes == 128 * 512 // 2 + 128 * 4 * 4
    assert W4A8Tensor.prepare(progressive(128, 512)).num_bytes == 128 * 512 // 2 + 128 * 4 * 2 + 128 * 4
    assert W4A8Tensor.prepare(symmetric(128, 512)).to("cpu").tensors().keys() == {"codes", "groups", "counters"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"x": torch.zeros(2, 256)}, "x is float32"),
        ({"x": torch.zeros(2, 256, dtype=torch.float8_e4m3fn)}, "x is float8_e4m3fn"),
        ({"x": torch.zeros(2, 64, dtype=torch.int8)}, "x has shape"),
        ({"x": torch.zeros(256, 2, dtype=torch.int8).T}, "x has strides"),
        ({"x_scales": torch.ones(2).half()}, "x_scales is float16"),
        ({"x_scales": torch.ones(3)}, "x_scales has shape"),
        ({"x_sums": torch.ones(3, dtype=torch.int32)}, "x_sums has shape"),
        ({"x_sums": torch.ones(2)}, "x_sums is float32"),
        ({"bias": torch.ones(5)}, "bias has shape"),
        ({"bias": torch.ones(64, device="meta")}, "bias is on meta"),
        ({"out_dtype": torch.float32}, "out_dtype is"),
        ({"config": GemmConfig(16, 64, 128)}, r"config\.block_k is 128"),
        ({"config": GemmConfig(16, 256, 256)}, r"config\.block_n is 256"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(change: dict[str, Any], named: str) -> None:
    weight = W4A8Tensor.prepare(progressive(64, 256))
    arguments = {"x": int8_inputs(2, 256), "x_scales": torch.ones(2), "weight": weight} | change
    with pytest.raises(UsageError, match=named):
        w4a8_gemm(**arguments)


@pytest.mark.parametrize(
    ("weight", "named"),
    [
        (symmetric(64, 256, 64), r"weight\.group_size is 64"),
        (IntegerWeight(codes_of(64, 256), scales_of(64, 2), None, 8, 128), r"weight\.bits is 8"),
        (IntegerWeight(codes_of(64, 256), scales_of(64, 2), None, 4, 128, torch.zeros(256)), "act-order"),
        (IntegerWeight(codes_of(64, 256), scales_of(64, 2), torch.ones(64, 2), 4, 128), "zero points by groups"),
        (IntegerWeight(codes_of(64, 256), scales_of(64, 3), None, 4, 128), r"weight\.scales has shape"),
        (IntegerWeight(codes_of(64, 256).int(), scales_of(64, 2), None, 4, 128), r"weight\.codes is int32"),
    ],
)
def test_weights_of_other_forms_are_refused(weight: IntegerWeight, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        W4A8Tensor.prepare(weight)


def test_inner_scales_below_one_are_refused() -> None:
    weight = progressive(64, 256)
    weight.group_scales[0, 0] = 0
    with pytest.raises(UsageError, match="below 1"):
        W4A8Tensor.prepare(weight)


@pytest.mark.parametrize("m", [1, 16, 64, 200, 4096])
def test_default_and_candidate_tiles_fit_shared_memory(m: int) -> None:
    for capability, limit in (((8, 0), 163), ((8, 9), 99), ((9, 0), 227), ((10, 0), 227), ((12, 0), 99)):
        assert shared_bytes(default_config(m, 4096, 14336, capability, 132)) <= limit << 10
    assert candidate_configs(m, 4096, 14336)


def test_no_tokens_give_no_rows() -> None:
    assert w4a8_gemm(int8_inputs(0, 256), scales_of(0), W4A8Tensor.prepare(progressive(64, 256))).shape == (0, 64)
