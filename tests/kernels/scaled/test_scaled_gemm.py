"""8-bit products in Triton's interpreter, against exact integers and against double precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.oracle import relative_step
from qmeter_native.kernels.quantized_weight import ScaledWeight
from qmeter_native.kernels.scaled import ScaledTensor, candidate_configs, scaled_gemm, scaled_linear_reference
from qmeter_native.kernels.scaled.tiles import default_config

SMALL = GemmConfig(16, 64, 256)
SPLIT = GemmConfig(16, 64, 64, split_k=3)
LARGE = GemmConfig(64, 128, 128)
SHAPES = [(1, 64, 256), (5, 96, 200), (20, 130, 333)]


def of_type(dtype: Any, *shape: int, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.int8:
        return torch.randint(-128, 128, shape, dtype=torch.int8, generator=generator)
    return torch.randn(shape, generator=generator).clamp(-4, 4).to(dtype)


def positive(*shape: int, seed: int = 0) -> Any:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) / 64 + 1e-3


def weight_of(dtype: Any, n: int, k: int, block: str = "channel") -> ScaledWeight:
    rows, columns = {"tensor": (n, k), "channel": (1, k), "block": (128, 128)}[block]
    scales = positive(-(-n // rows), -(-k // columns), seed=1)
    return ScaledWeight(of_type(dtype, n, k, seed=2), scales, (rows, columns))


def assert_equals_integers(out: Any, exact: Any) -> None:
    """Integers are exact: what differs is the product with two float32 scales, a bias, and the output's rounding."""
    steps = relative_step(out.dtype) + 4 * relative_step(torch.float32)
    tiny = float(torch.finfo(out.dtype).smallest_normal) * relative_step(out.dtype) * 2
    assert ((out.double() - exact).abs() <= steps * exact.abs() + tiny).all()


def assert_near(out: Any, exact: Any, magnitude: Any, k: int) -> None:
    """Float32 sums of ``k`` products (Higham 2002, eq. 3.5), then the output's rounding."""
    of_sum = (k + 4) * relative_step(torch.float32)
    assert ((out.double() - exact).abs() <= of_sum * magnitude + relative_step(out.dtype) * exact.abs() + 1e-7).all()


@pytest.mark.parametrize("config", [SMALL, SPLIT, LARGE], ids=["small", "split", "large"])
@pytest.mark.parametrize("shape", SHAPES)
def test_int8_products_are_exact_up_to_the_output_rounding(shape: tuple[int, int, int], config: GemmConfig) -> None:
    m, n, k = shape
    x, x_scales, weight = of_type(torch.int8, m, k), positive(m), weight_of(torch.int8, n, k)
    out = scaled_gemm(x, x_scales, ScaledTensor.prepare(weight), config=config)
    exact = (x.long() @ weight.values.long().T).double() * x_scales.double()[:, None] * weight.scales.double().T
    assert_equals_integers(out, exact)


@pytest.mark.parametrize("block", ["tensor", "channel"])
@pytest.mark.parametrize("config", [SPLIT, LARGE], ids=["split", "large"])
def test_a_zero_point_and_a_bias_are_taken_in(config: GemmConfig, block: str) -> None:
    m, n, k = 6, 70, 144
    x, x_scales, weight = of_type(torch.int8, m, k), positive(m), weight_of(torch.int8, n, k, block)
    zeros, bias = torch.arange(-3, 3, dtype=torch.int32) * 40, torch.randn(n).half()
    out = scaled_gemm(x, x_scales, ScaledTensor.prepare(weight), bias, x_zeros=zeros, config=config)
    inner = ((x.long() - zeros.long()[:, None]) @ weight.values.long().T).double()
    exact = inner * x_scales.double()[:, None] * weight.scales.double().T
    difference = (out.double() - exact - bias.double()).abs()
    assert (
        difference <= relative_step(out.dtype) * out.double().abs() + 4 * relative_step(torch.float32) * exact.abs()
    ).all()


def test_one_scale_and_one_zero_point_serve_all_tokens() -> None:
    x, weight = of_type(torch.int8, 20, 64), ScaledTensor.prepare(weight_of(torch.int8, 64, 64, "tensor"))
    scale, zero = torch.tensor(0.01), torch.tensor(7, dtype=torch.int32)
    out = scaled_gemm(x, scale, weight, x_zeros=zero, config=LARGE)
    expected = scaled_gemm(x, scale.expand(20).contiguous(), weight, x_zeros=zero.expand(20).contiguous(), config=LARGE)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("config", [SMALL, SPLIT, LARGE], ids=["small", "split", "large"])
@pytest.mark.parametrize("block", ["tensor", "channel"])
def test_fp8_products_are_within_the_bound_of_float32_sums(block: str, config: GemmConfig) -> None:
    m, n, k = 5, 96, 200
    x, x_scales, weight = of_type(torch.float8_e4m3fn, m, k), positive(m), weight_of(torch.float8_e4m3fn, n, k, block)
    out = scaled_gemm(x, x_scales, ScaledTensor.prepare(weight), config=config)
    inputs, values = x.double() * x_scales.double()[:, None], weight.dequantize(torch.float64)
    assert_near(out, inputs @ values.T, inputs.abs() @ values.abs().T, k)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn], ids=str)
@pytest.mark.parametrize(
    "config",
    [GemmConfig(16, 64, 128, split_k=2), GemmConfig(64, 64, 128), GemmConfig(64, 256, 128), GemmConfig(32, 256, 128)],
    ids=["split", "large", "two blocks a tile", "swapped two blocks"],
)
def test_scales_by_block_of_both_matrices_are_applied_to_each_partial_sum(config: GemmConfig, dtype: Any) -> None:
    m, n, k = 5, 300, 400
    x, weight = of_type(dtype, m, k), weight_of(dtype, n, k, "block")
    x_scales = positive(4, m).T  # token-major strides do not matter
    out = scaled_gemm(x, x_scales, ScaledTensor.prepare(weight), config=config)
    inputs = x.double() * x_scales.double().repeat_interleave(128, 1)[:, :k]
    values = weight.dequantize(torch.float64)
    assert_near(out, inputs @ values.T, inputs.abs() @ values.abs().T, k)


def test_a_block_scaled_weight_takes_scales_by_token_too() -> None:
    m, n, k = 3, 128, 256
    x, x_scales, weight = (
        of_type(torch.int8, m, k),
        positive(m),
        ScaledTensor.prepare(weight_of(torch.int8, n, k, "block")),
    )
    by_block = x_scales[:, None].expand(m, 2).contiguous()
    config = GemmConfig(16, 64, 128)
    assert torch.equal(scaled_gemm(x, x_scales, weight, config=config), scaled_gemm(x, by_block, weight, config=config))


def test_splits_leave_their_counters_at_zero_and_repeat_to_the_bit() -> None:
    x, x_scales = of_type(torch.float8_e4m3fn, 4, 512), positive(4)
    weight = ScaledTensor.prepare(weight_of(torch.float8_e4m3fn, 128, 512))
    first = scaled_gemm(x, x_scales, weight, config=SPLIT)
    assert not weight.counters.any()
    assert torch.equal(first, scaled_gemm(x, x_scales, weight, config=SPLIT))


@pytest.mark.parametrize("block", ["channel", "block"])
@pytest.mark.parametrize("config", [GemmConfig(16, 64, 128, split_k=2), LARGE], ids=["split", "large"])
def test_the_tensor_memory_accelerator_loads_the_same(
    config: GemmConfig, block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    m, n, k = 5, 70, 208
    x, x_scales, weight = (
        of_type(torch.int8, m, k),
        positive(m),
        ScaledTensor.prepare(weight_of(torch.int8, n, k, block)),
    )
    by_pointers = scaled_gemm(x, x_scales, weight, config=config)
    monkeypatch.setattr("qmeter_native.kernels.scaled.gemm.has_tma", lambda x: True)
    assert torch.equal(scaled_gemm(x, x_scales, weight, config=config), by_pointers)


@pytest.mark.parametrize("block", ["tensor", "channel", "block"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn], ids=str)
def test_the_reference_equals_the_kernel(dtype: Any, block: str) -> None:
    m, n, k = 4, 130, 150
    x, weight, bias = of_type(dtype, m, k), ScaledTensor.prepare(weight_of(dtype, n, k, block)), torch.randn(n)
    x_scales = positive(m, 2) if block == "block" else positive(m)
    zeros = None
    if dtype == torch.int8 and block != "block":
        zeros = torch.full((m,), 9, dtype=torch.int32)
    out = scaled_gemm(x, x_scales, weight, bias, x_zeros=zeros)
    expected = scaled_linear_reference(x, x_scales, weight, bias, x_zeros=zeros)
    torch.testing.assert_close(out, expected, rtol=2 * relative_step(torch.float16), atol=1e-3)


@pytest.mark.parametrize("block", ["channel", "block"])
def test_persistent_programs_walk_over_all_tiles(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, x_scales = of_type(torch.int8, 130, 160), positive(130)
    weight = ScaledTensor.prepare(weight_of(torch.int8, 300, 160, block))
    expected = scaled_gemm(x, x_scales, weight, config=LARGE)
    monkeypatch.setattr("qmeter_native.kernels.scaled.gemm.gpu_of", lambda device: ((9, 0), 4))
    config = GemmConfig(64, 128, 128, persistent=1)  # nine tiles on four multiprocessors
    assert torch.equal(scaled_gemm(x, x_scales, weight, config=config), expected)


def test_no_tokens_give_no_rows() -> None:
    weight = ScaledTensor.prepare(weight_of(torch.int8, 64, 64))
    assert scaled_gemm(of_type(torch.int8, 0, 64), positive(0), weight).shape == (0, 64)


def test_a_prepared_weight_knows_its_shape_and_what_a_product_reads() -> None:
    weight = ScaledTensor.prepare(weight_of(torch.int8, 70, 100))
    assert weight.shape == (70, 100)
    assert weight.num_bytes == 70 * 112 + 70 * 4
    assert weight.to("cpu").tensors().keys() == {"values", "scales", "column_sums", "counters"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"x": torch.zeros(2, 64)}, "x is float32"),
        ({"x": torch.zeros(2, 64, dtype=torch.float8_e4m3fn)}, "x is float8_e4m3fn"),
        ({"x": torch.zeros(2, 32, dtype=torch.int8)}, "x has shape"),
        ({"x": torch.zeros(64, 2, dtype=torch.int8).T}, "x has strides"),
        ({"x_scales": torch.ones(2).half()}, "x_scales is float16"),
        ({"x_scales": torch.ones(3)}, "x_scales has shape"),
        ({"x_scales": torch.ones(2, 1)}, "x_scales has shape"),
        ({"bias": torch.ones(5)}, "bias has shape"),
        ({"bias": torch.ones(64).int()}, "bias is int32"),
        ({"out_dtype": torch.float32}, "out_dtype is"),
        ({"x_zeros": torch.zeros(2)}, "x_zeros is float32"),
        ({"x_zeros": torch.zeros(5, dtype=torch.int32)}, "x_zeros has shape"),
        ({"bias": torch.ones(64, device="meta")}, "bias is on meta"),
        ({"config": GemmConfig(16, 64, 128, split_k=2)}, None),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(change: dict[str, Any], named: str | None) -> None:
    weight = ScaledTensor.prepare(weight_of(torch.int8, 64, 64))
    arguments = {"x": torch.zeros(2, 64, dtype=torch.int8), "x_scales": torch.ones(2), "weight": weight} | change
    if named is None:
        assert scaled_gemm(**arguments).shape == (2, 64)
        return
    with pytest.raises(UsageError, match=named):
        scaled_gemm(**arguments)


def test_zero_points_are_refused_where_no_column_sums_can_serve_them() -> None:
    zeros = torch.zeros(2, dtype=torch.int32)
    for dtype, block in ((torch.int8, "block"), (torch.float8_e4m3fn, "channel")):
        weight = ScaledTensor.prepare(weight_of(dtype, 128, 128, block))
        with pytest.raises(UsageError, match="x_zeros is given with"):
            scaled_gemm(of_type(dtype, 2, 128), positive(2), weight, x_zeros=zeros)


def test_weights_of_other_types_or_blocks_are_refused() -> None:
    with pytest.raises(UsageError, match=r"weight\.block is \(1, 64\)"):
        ScaledTensor.prepare(ScaledWeight(of_type(torch.int8, 64, 128), positive(64, 2), (1, 64)))
    with pytest.raises(UsageError, match=r"weight\.values is int16"):
        ScaledTensor.prepare(ScaledWeight(torch.zeros(4, 4, dtype=torch.int16), positive(1, 1), (4, 4)))
    with pytest.raises(UsageError, match=r"weight\.scales has shape"):
        ScaledTensor.prepare(ScaledWeight(of_type(torch.int8, 64, 128), positive(1, 1), (1, 128)))


def test_tiles_that_do_not_fit_a_block_scaled_weight_are_refused() -> None:
    weight = ScaledTensor.prepare(weight_of(torch.int8, 128, 128, "block"))
    with pytest.raises(UsageError, match=r"config\.block_k is 64"):
        scaled_gemm(of_type(torch.int8, 2, 128), positive(2), weight, config=GemmConfig(16, 64, 64))


@pytest.mark.parametrize("is_block_scaled", [False, True])
@pytest.mark.parametrize("m", [1, 16, 64, 200, 4096])
def test_default_and_candidate_tiles_fit_shared_memory(m: int, is_block_scaled: bool) -> None:
    for capability, limit in (((8, 0), 163), ((8, 9), 99), ((9, 0), 227), ((10, 0), 227), ((12, 0), 99)):
        config = default_config(m, 4096, 14336, capability, 132, is_block_scaled)
        assert (config.block_m + config.block_n) * config.block_k * config.num_stages <= limit << 10
    candidates = candidate_configs(m, 4096, 14336, is_block_scaled)
    assert candidates
    assert all(config.block_k == 128 for config in candidates if is_block_scaled)
