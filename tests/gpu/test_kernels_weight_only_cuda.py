"""Weight-only products on a GPU, against double precision within the bound of their format: what the interpreter cannot
run, which is inline assembly, bfloat16, and programs that really share a tile at once."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.gemm_config import GemmConfig
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

DTYPES = [torch.float16, torch.bfloat16]
WEIGHTS = all_weights(328, 1416)
SHAPES = [(1, 4096, 4096), (7, 131, 333), (16, 2048, 1024), (33, 1000, 1104), (100, 768, 2048), (300, 1024, 512)]


def on_gpu(weight: Any) -> Any:
    """The logical weight with its tensors on the GPU."""
    moved = {field.name: getattr(weight, field.name) for field in fields(weight)}
    return replace(weight, **{name: value.cuda() for name, value in moved.items() if isinstance(value, torch.Tensor)})


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp16", "bf16"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_every_format_is_multiplied_within_its_bound(name: str, dtype: Any) -> None:
    weight = on_gpu(WEIGHTS[name])
    prepared = WeightOnlyTensor.prepare(weight)
    for m in (1, 5, 24, 64, 200):
        x, bias = activations(m, 1416, dtype=dtype).cuda(), activations(328, dtype=dtype, seed=2).cuda()
        # Zero points that are no integers are rounded to the activations' type: exact for those of float16 alone.
        exact = weight
        if name.startswith("int") and "-float" in name and dtype == torch.bfloat16:
            exact = replace(weight, zeros=weight.zeros.to(dtype))
        assert_product(weight_only_gemm(x, prepared, bias), x, exact, bias)


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp16", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_models_and_shapes_that_are_multiples_of_nothing(shape: tuple[int, int, int], dtype: Any) -> None:
    m, n, k = shape
    for weight in (integer_weight(n, k), integer_weight(n, k, zeros="integer"), codebook_weight(n, k)):
        held = on_gpu(weight)
        x = activations(m, k, dtype=dtype).cuda()
        assert_product(weight_only_gemm(x, WeightOnlyTensor.prepare(held)), x, held)


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp16", "bf16"])
@pytest.mark.parametrize("name", [name for name in WEIGHTS if name.startswith("int") and "-float" not in name])
def test_integer_formats_are_dequantized_to_the_bit(name: str, dtype: Any) -> None:
    weight = on_gpu(WEIGHTS[name])
    if weight.scales.dtype == torch.float32 and weight.scales.shape[1] > 1:
        pytest.skip("scales of groups keep the bits of float16")
    found = dequantize_kernel(WeightOnlyTensor.prepare(weight), dtype)
    assert torch.equal(found, weight.dequantize(torch.float32).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp16", "bf16"])
@pytest.mark.parametrize("name", [name for name in WEIGHTS if not name.startswith("int")])
def test_other_formats_are_dequantized_within_their_rounding(name: str, dtype: Any) -> None:
    weight = on_gpu(WEIGHTS[name])
    exact = weight.dequantize(torch.float64)
    step = float(torch.finfo(dtype).eps) / 2
    error = (dequantize_kernel(WeightOnlyTensor.prepare(weight), dtype).double() - exact).abs()
    assert (error <= 3 * step * exact.abs() + 2.0**-25).all()


@pytest.mark.parametrize("m", [1, 16, 48, 300])
def test_every_candidate_configuration_gives_the_product(m: int) -> None:
    weight = on_gpu(integer_weight(512, 2048))
    prepared = WeightOnlyTensor.prepare(weight)
    x = activations(m, 2048).cuda()
    for config in candidate_configs(prepared, m):
        assert_product(weight_only_gemm(x, prepared, config=config), x, weight)


def test_programs_that_share_a_tile_give_the_same_bits_each_time_and_leave_their_counters_at_zero() -> None:
    weight = on_gpu(integer_weight(1024, 8192))
    prepared = WeightOnlyTensor.prepare(weight)
    x = activations(16, 8192).cuda()
    config = GemmConfig(16, 64, 128, split_k=13)
    first = weight_only_gemm(x, prepared, config=config)
    assert_product(first, x, weight)
    for _ in range(200):
        assert torch.equal(first, weight_only_gemm(x, prepared, config=config))
    assert not prepared.counters.any()


def test_a_cuda_graph_holds_the_product() -> None:
    weight = on_gpu(integer_weight(1024, 2048, act_order=True))
    prepared = WeightOnlyTensor.prepare(weight)
    x = activations(4, 2048).cuda()
    weight_only_linear(x, prepared)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = weight_only_linear(x, prepared)
    for seed in (5, 6):
        x.copy_(activations(4, 2048, seed=seed))
        graph.replay()
        assert_product(out, x, weight)


@pytest.mark.parametrize("dtype", DTYPES, ids=["fp16", "bf16"])
def test_many_tokens_are_multiplied_by_the_dequantized_weight(dtype: Any) -> None:
    for weight in (
        integer_weight(520, 1024, act_order=True),
        scaled_weight(520, 1024, torch.float8_e4m3fn, (128, 128)),
    ):
        held = on_gpu(weight)
        x = activations(2, 700, 1024, dtype=dtype).cuda()
        # cuBLAS may add products of 16-bit inputs in any order, in float32: the bound of the sum covers it.
        assert_product(weight_only_linear(x, WeightOnlyTensor.prepare(held)), x, held)


def test_a_prepared_weight_moves_to_the_gpu() -> None:
    weight = integer_weight(256, 512)
    x = activations(3, 512).cuda()
    assert_product(weight_only_gemm(x, WeightOnlyTensor.prepare(weight).to("cuda")), x, on_gpu(weight))


def test_tensors_on_two_devices_are_refused() -> None:
    prepared = WeightOnlyTensor.prepare(integer_weight(64, 128)).to("cuda")
    with pytest.raises(UsageError, match="weight is on cuda"):
        weight_only_gemm(activations(2, 128), prepared)
