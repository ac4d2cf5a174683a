"""4-bit weights times 8-bit activations on a GPU: they are decoded by inline PTX, which no interpreter runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qmeter_native.errors import DeviceError
from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.oracle import relative_step
from qmeter_native.kernels.quantized_weight import IntegerWeight, ProgressiveWeight
from qmeter_native.kernels.w4a8 import W4A8Tensor, candidate_configs, w4a8_gemm, w4a8_reference

HALVES = [torch.float16, torch.bfloat16]
KINDS = ["progressive", "channel", "fractional", "fp8", "fp8 half", "fp8 bfloat"]
SCALES = {"fp8": torch.float32, "fp8 half": torch.float16, "fp8 bfloat": torch.bfloat16}
SHAPES = [(1, 4096, 4096), (7, 130, 400), (33, 1000, 1104), (100, 768, 2048), (300, 1024, 512), (1111, 2050, 777)]


def codes_of(n: int, k: int) -> Any:
    return torch.randint(0, 16, (n, k), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).cuda()


def positive(*shape: int, seed: int = 2) -> Any:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) / 64 + 1e-3).cuda()


def weight_of(kind: str, n: int, k: int) -> IntegerWeight | ProgressiveWeight:
    generator, groups = torch.Generator().manual_seed(3), -(-k // 128)
    if kind == "progressive":
        inner = torch.randint(1, 128, (n, groups), dtype=torch.int8, generator=generator).cuda()
        zeros = torch.randint(0, 16, (n, groups), dtype=torch.uint8, generator=generator).cuda()
        return ProgressiveWeight(codes_of(n, k), inner, zeros, positive(n), 128)
    if kind in SCALES:
        return IntegerWeight(codes_of(n, k), positive(n, groups).to(SCALES[kind]), None, 4, 128)
    zeros = 15 * torch.rand(n, 1, generator=generator).cuda()
    return IntegerWeight(codes_of(n, k), positive(n, 1), zeros.round() if kind == "channel" else zeros, 4, k)


def inputs_of(kind: str, m: int, k: int) -> Any:
    """int8 of the whole range; FP8 of -2 to 2, so that sums of 128 products with -8 to 7 fit the 14 bits of Hopper."""
    generator = torch.Generator().manual_seed(4)
    if kind in SCALES:
        if torch.cuda.get_device_capability() < (8, 9):
            pytest.skip("FP8 needs compute capability 8.9")
        return torch.randint(-2, 3, (m, k), generator=generator).float().to(torch.float8_e4m3fn).cuda()
    return torch.randint(-128, 128, (m, k), dtype=torch.int8, generator=generator).cuda()


def assert_right(out: Any, x: Any, x_scales: Any, weight: Any, bias: Any = None) -> None:
    """Sums of a group are exact; float32 steps for each group, correction and scale, then the output's rounding."""
    inputs, values = x.double() * x_scales.double()[:, None], weight.dequantize(torch.float64)
    exact, magnitude = inputs @ values.T, inputs.abs() @ values.abs().T
    if isinstance(weight, IntegerWeight) and weight.zeros is not None:
        magnitude += inputs.abs() @ (weight.codes.double() * weight.scales.double()).T  # before the zero is taken off
    if bias is not None:
        exact, magnitude = exact + bias.double(), magnitude + bias.double().abs()
    of_sum = (x.shape[1] / 128 + 6) * relative_step(torch.float32)
    tiny = float(torch.finfo(out.dtype).smallest_normal) * relative_step(out.dtype) * 2
    allowed = of_sum * magnitude + relative_step(out.dtype) * exact.abs() + tiny
    excess = ((out.double() - exact).abs() / allowed).max().item()
    assert excess <= 1, f"{excess:.2f} times the bound"


@pytest.mark.parametrize("out_dtype", HALVES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_right_for_every_kind_and_shape(kind: str, shape: tuple[int, int, int], out_dtype: Any) -> None:
    m, n, k = shape
    x, weight, bias = inputs_of(kind, m, k), weight_of(kind, n, k), torch.randn(n, device="cuda").to(out_dtype)
    out = w4a8_gemm(x, positive(m, seed=5), W4A8Tensor.prepare(weight), bias, out_dtype)
    assert_right(out, x, positive(m, seed=5), weight, bias)


@pytest.mark.parametrize("m", [1, 20, 64, 200, 600])
@pytest.mark.parametrize("kind", ["progressive", "channel", "fp8 half"])
def test_every_candidate_of_tiles_multiplies_right(kind: str, m: int) -> None:
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("candidates are those of Hopper and later")
    n, k = 1152, 2048
    x, weight, x_scales = inputs_of(kind, m, k), weight_of(kind, n, k), positive(m, seed=5)
    prepared = W4A8Tensor.prepare(weight)
    for config in candidate_configs(m, n, k, kind in SCALES):
        assert_right(w4a8_gemm(x, x_scales, prepared, config=config), x, x_scales, weight)


@pytest.mark.parametrize("kind", KINDS)
def test_each_code_of_each_place_decodes_to_its_value(kind: str) -> None:
    """Rows of the identity pick single weights: every code at every place of a block, under both warp groups."""
    n, k = 128, 256
    weight, one = weight_of(kind, n, k), torch.ones(k, device="cuda")
    prepared = W4A8Tensor.prepare(weight)
    x = torch.eye(k, device="cuda").to(inputs_of(kind, 1, 1).dtype)
    for config in (GemmConfig(16, 64, 256), GemmConfig(64, 128, 256, 1, 8, 3)):
        assert_right(w4a8_gemm(x, one, prepared, config=config), x, one, weight)


@pytest.mark.parametrize("kind", ["progressive", "fp8"])
def test_loads_by_pointers_and_by_descriptors_agree(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = inputs_of(kind, 70, 1000), W4A8Tensor.prepare(weight_of(kind, 300, 1000))
    config = GemmConfig(64, 64, 256, 1, 4, 3)
    expected = w4a8_gemm(x, positive(70), weight, config=config)
    monkeypatch.setattr("qmeter_native.kernels.w4a8.gemm.has_tma", lambda x: False)
    assert torch.equal(w4a8_gemm(x, positive(70), weight, config=config), expected)


@pytest.mark.parametrize("kind", ["progressive", "fp8"])
def test_split_products_repeat_to_the_bit_and_replay_in_a_graph(kind: str) -> None:
    x, weight = inputs_of(kind, 4, 4096), W4A8Tensor.prepare(weight_of(kind, 1024, 4096))
    config, scales = GemmConfig(16, 64, 256, 8), positive(4)
    first = w4a8_gemm(x, scales, weight, config=config)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = w4a8_gemm(x, scales, weight, config=config)
    for _ in range(50):
        graph.replay()
        assert torch.equal(captured, first)
    assert not weight.counters.any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_agrees(kind: str) -> None:
    x, weight = inputs_of(kind, 20, 512), W4A8Tensor.prepare(weight_of(kind, 256, 512))
    out, expected = (f(x, positive(20), weight) for f in (w4a8_gemm, w4a8_reference))
    torch.testing.assert_close(out, expected, rtol=2 * relative_step(torch.float16), atol=1e-2)


def test_fp8_is_refused_on_ampere(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = inputs_of("fp8", 2, 256), W4A8Tensor.prepare(weight_of("fp8", 128, 256))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    with pytest.raises(DeviceError, match=r"needs compute capability 8\.9"):
        w4a8_gemm(x, positive(2), weight)
