"""8-bit products on a GPU: int8 against exact integers, FP8 against double precision, whatever the tiles."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qmeter_native.errors import DeviceError
from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.oracle import fp8_sum_loss, linear_bound, relative_step
from qmeter_native.kernels.quantized_weight import ScaledWeight
from qmeter_native.kernels.scaled import ScaledTensor, candidate_configs, scaled_gemm, scaled_linear_reference

HALVES = [torch.float16, torch.bfloat16]
SHAPES = [(1, 4096, 4096), (7, 130, 333), (33, 1000, 1104), (100, 768, 2048), (300, 1024, 512), (1111, 2050, 777)]
TYPES = [torch.int8, torch.float8_e4m3fn]


def skip_without_fp8(dtype: Any) -> None:
    if dtype == torch.float8_e4m3fn and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("FP8 needs compute capability 8.9")


def integers(dtype: Any, *shape: int, seed: int = 0) -> Any:
    """int8 of the whole range; FP8 of -2 to 2, whose sums even 14 bits hold exactly below 2048 inputs."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.int8:
        return torch.randint(-128, 128, shape, dtype=torch.int8, generator=generator).cuda()
    return torch.randint(-2, 3, shape, generator=generator).float().to(dtype).cuda()


def positive(*shape: int, seed: int = 0) -> Any:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) / 64 + 1e-3).cuda()


def weight_of(values: Any, block: str) -> ScaledWeight:
    n, k = values.shape
    rows, columns = {"tensor": (n, k), "channel": (1, k), "block": (128, 128)}[block]
    return ScaledWeight(values, positive(-(-n // rows), -(-k // columns), seed=1), (rows, columns))


def activation_scales(m: int, k: int, block: str) -> Any:
    return positive(m, -(-k // 128), seed=3) if block == "block" else positive(m, seed=3)


def assert_near(out: Any, exact: Any, magnitude: Any, k: int) -> None:
    """Float32 steps for each of the sum's blocks and for scales, then the output's rounding."""
    of_scales = (k / 128 + 4) * relative_step(torch.float32)
    tiny = float(torch.finfo(out.dtype).smallest_normal) * relative_step(out.dtype) * 2
    allowed = of_scales * magnitude + relative_step(out.dtype) * exact.abs() + tiny
    excess = ((out.double() - exact).abs() / allowed).max().item()
    assert excess <= 1, f"{excess:.2f} times the bound"


def scaled_inputs(x: Any, x_scales: Any) -> Any:
    of_block = torch.arange(x.shape[1], device=x.device) // 128
    return x.double() * (x_scales.double()[:, of_block] if x_scales.ndim == 2 else x_scales.double()[:, None])


@pytest.mark.parametrize("out_dtype", HALVES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("block", ["tensor", "channel", "block"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_sums_of_integers_are_exact(dtype: Any, block: str, shape: tuple[int, int, int], out_dtype: Any) -> None:
    skip_without_fp8(dtype)
    m, n, k = shape
    k = min(k, 2048) if dtype != torch.int8 else k
    x, weight = integers(dtype, m, k), weight_of(integers(dtype, n, k, seed=2), block)
    x_scales, bias = activation_scales(m, k, block), torch.randn(n, device="cuda").to(out_dtype)
    out = scaled_gemm(x, x_scales, ScaledTensor.prepare(weight), bias, out_dtype)
    inputs, values = scaled_inputs(x, x_scales), weight.dequantize(torch.float64)
    magnitude = (inputs @ values.T).abs() + bias.double().abs()
    if block == "block":
        magnitude = inputs.abs() @ values.abs().T + bias.double().abs()
    assert_near(out, inputs @ values.T + bias.double(), magnitude, k)


@pytest.mark.parametrize("m", [1, 16, 40, 200, 600])
@pytest.mark.parametrize("block", ["channel", "block"])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_candidate_of_tiles_multiplies_right(dtype: Any, block: str, m: int) -> None:
    skip_without_fp8(dtype)
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("candidates are those of Hopper and later")
    n, k = 1152, 2048
    x, weight = integers(dtype, m, k), weight_of(integers(dtype, n, k, seed=2), block)
    x_scales, prepared = activation_scales(m, k, block), ScaledTensor.prepare(weight)
    inputs, values = scaled_inputs(x, x_scales), weight.dequantize(torch.float64)
    exact, magnitude = inputs @ values.T, inputs.abs() @ values.abs().T
    for config in candidate_configs(m, n, k, block == "block"):
        out = scaled_gemm(x, x_scales, prepared, config=config)
        assert_near(out, exact, magnitude, k)


@pytest.mark.parametrize("m", [3, 500])
def test_zero_points_of_activations_are_taken_off_exactly(m: int) -> None:
    n, k = 520, 1040
    x, weight = integers(torch.int8, m, k), weight_of(integers(torch.int8, n, k, seed=2), "channel")
    zeros = torch.randint(-128, 128, (m,), dtype=torch.int32, device="cuda")
    out = scaled_gemm(x, positive(m), ScaledTensor.prepare(weight), x_zeros=zeros)
    inputs = (x.double() - zeros.double()[:, None]) * positive(m).double()[:, None]
    exact = inputs @ weight.dequantize(torch.float64).T
    assert_near(out, exact, exact.abs(), k)


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize("m", [8, 256])
def test_random_fp8_is_within_what_the_tensor_cores_drop(m: int, is_fast: bool) -> None:
    skip_without_fp8(torch.float8_e4m3fn)
    n, k = 256, 2048
    generator = torch.Generator().manual_seed(5)
    x, w = (torch.randn(rows, k, generator=generator).to(torch.float8_e4m3fn).cuda() for rows in (m, n))
    weight, one = ScaledWeight(w, torch.ones(1, 1, device="cuda"), (n, k)), torch.ones((), device="cuda")
    config = GemmConfig(16 if m == 8 else 128, 64, 128)
    out = scaled_gemm(x, one, ScaledTensor.prepare(weight), config=config, fast_accumulation=is_fast)
    exact = x.double() @ w.double().T
    bound = fp8_sum_loss(x.double(), weight, None if is_fast else 128)
    bound += linear_bound(x.double(), weight, out.dtype, None)
    assert ((out.double() - exact).abs() <= bound).all()


def test_loads_by_pointers_and_by_descriptors_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = (
        integers(torch.int8, 70, 1000),
        ScaledTensor.prepare(weight_of(integers(torch.int8, 300, 1000), "channel")),
    )
    expected = scaled_gemm(x, positive(70), weight)
    monkeypatch.setattr("qmeter_native.kernels.scaled.gemm.has_tma", lambda x: False)
    assert torch.equal(scaled_gemm(x, positive(70), weight, config=GemmConfig(64, 128, 128, 1, 4, 3)), expected)


def test_rows_that_start_anywhere_in_memory_are_read() -> None:
    x = integers(torch.int8, 9, 512).flatten()[1 : 1 + 8 * 512].view(8, 512)
    weight = ScaledTensor.prepare(weight_of(integers(torch.int8, 128, 512), "channel"))
    assert torch.equal(scaled_gemm(x, positive(8), weight), scaled_gemm(x.clone(), positive(8), weight))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_split_products_repeat_to_the_bit_and_replay_in_a_graph(dtype: Any) -> None:
    skip_without_fp8(dtype)
    generator = torch.Generator().manual_seed(6)
    x, w = (torch.randn(rows, 4096, generator=generator).mul(30).to(dtype).cuda() for rows in (4, 1024))
    weight, config = ScaledTensor.prepare(weight_of(w, "channel")), GemmConfig(16, 64, 256, 8)
    first = scaled_gemm(x, positive(4), weight, config=config)
    scales = positive(4)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = scaled_gemm(x, scales, weight, config=config)
    for _ in range(50):
        graph.replay()
        assert torch.equal(captured, first)
    assert not weight.counters.any()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_the_reference_agrees(dtype: Any) -> None:
    skip_without_fp8(dtype)
    x, weight = integers(dtype, 20, 512), ScaledTensor.prepare(weight_of(integers(dtype, 256, 512), "channel"))
    out, expected = (f(x, positive(20), weight) for f in (scaled_gemm, scaled_linear_reference))
    torch.testing.assert_close(out, expected, rtol=2 * relative_step(torch.float16), atol=1e-4)


def test_fp8_is_refused_on_ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = ScaledTensor.prepare(weight_of(integers(torch.float8_e4m3fn, 128, 128), "channel"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    with pytest.raises(DeviceError, match=r"needs compute capability 8\.9"):
        scaled_gemm(integers(torch.float8_e4m3fn, 2, 128), positive(2), weight)
