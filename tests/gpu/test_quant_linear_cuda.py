"""Quantized layers and models on a GPU: kernels for every method, moves, CUDA graphs, the embedded engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qmeter_native.engines.model_loading import load_model
from qmeter_native.engines.model_source import BUILTIN_MODEL, resolve_model
from qmeter_native.engines.options import EngineOptions
from qmeter_native.engines.transformers_engine import TransformersEngine
from qmeter_native.errors import EngineError
from qmeter_native.kernels import oracle
from qmeter_native.quantization.checkpoint_formats.families import checkpoint_format
from qmeter_native.quantization.methods import METHODS, weight_method_names
from qmeter_native.quantization.quant_linear import QuantLinear
from qmeter_native.workload.load_generator import run_workload
from qmeter_native.workload.workload import Workload

N, K = 384, 1024
FP8_CAPABILITY = (8, 9)


def skip_without_fp8(method: str) -> None:
    if METHODS[method].minimum == FP8_CAPABILITY and torch.cuda.get_device_capability() < FP8_CAPABILITY:
        pytest.skip("products of FP8 need compute capability 8.9")


def layer_of(method: str, dtype: Any, device: str) -> QuantLinear:
    skip_without_fp8(method)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(N, K, generator=generator) / 20
    bias = torch.randn(N, generator=generator).to(device, dtype)
    layout = checkpoint_format(METHODS[method].config).layer("model.layers.0.self_attn.q_proj")
    assert layout is not None
    layer: QuantLinear = layout.linear(layout.quantize(weight.to(device)), bias, dtype)
    return layer


def inputs(num_tokens: int, dtype: Any) -> Any:
    x = torch.randn(num_tokens, K, generator=torch.Generator().manual_seed(1)).to(dtype)
    x[0, 7] = 9.0  # an outlier
    return x


@pytest.mark.parametrize("num_tokens", [1, 5, 64, 700])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("method", weight_method_names())
def test_a_layer_computes_what_its_weight_and_rounded_input_say(method: str, dtype: Any, num_tokens: int) -> None:
    """The weight and the rounding of inputs are the CPU's, whose quantizers give the same codes."""
    plain, layer = layer_of(method, dtype, "cpu"), layer_of(method, dtype, "cuda")
    x = inputs(num_tokens, dtype)
    rounded, weight = plain.rounded_input(x.float()), plain.quantized_weight
    exact = oracle.linear(rounded, weight, plain.bias)
    out = layer(x.cuda())
    assert out.dtype is dtype
    assert plain.bias is not None
    bound = oracle.linear_bound(rounded, weight, dtype, dtype)
    # LLM.int8() rounds twice; FP8 sums of Hopper keep 14 bits of the largest product (DeepSeek-V3, section 3.3.2).
    bound += 2 * oracle.relative_step(dtype) * (exact.abs() + plain.bias.double().abs())
    if METHODS[method].minimum == FP8_CAPABILITY:
        bound += 2.0**-13 * (rounded.double().abs() @ weight.dequantize(torch.float64).abs().T)
    assert ((out.cpu().double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("method", ["gptq", "nf4", "rtn-w8a8", "fp8-block", "qoq", "w4a8-fp"])
def test_a_layer_that_moves_to_a_gpu_is_prepared_there(method: str) -> None:
    moved, made = layer_of(method, torch.float16, "cpu").cuda(), layer_of(method, torch.float16, "cuda")
    x = inputs(8, torch.float16).cuda()
    assert moved.is_prepared
    assert torch.equal(moved(x), made(x))
    with pytest.raises(EngineError, match="from a GPU"):
        moved.cpu()(x.cpu())


@pytest.mark.parametrize("method", [name for name in weight_method_names() if name != "llm-int8"])
def test_a_layer_is_replayed_by_a_cuda_graph(method: str) -> None:
    layer = layer_of(method, torch.float16, "cuda")
    x = inputs(4, torch.float16).cuda()
    for _ in range(3):
        expected = layer(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = layer(x)
    for _ in range(3):
        out.zero_()
        graph.replay()
        assert torch.equal(out, expected)


@pytest.mark.parametrize("method", weight_method_names())
def test_the_embedded_engine_serves_through_our_kernels(method: str) -> None:
    skip_without_fp8(method)
    options = EngineOptions(BUILTIN_MODEL, device="cuda", quantization=method, max_concurrency=4, max_context_len=64)
    with TransformersEngine(options) as engine:
        result = run_workload(engine, Workload(num_requests=4, input_len=24, output_len=16))
        effective = engine.info.effective
    assert result.failure is None
    assert result.requests.num_output_tokens.tolist() == [16] * 4
    assert effective["quantized_products"] == "Triton kernels"
    assert method != "llm-int8" or not any(effective["cuda_graphs"].values())


def test_a_shape_is_quantized_on_the_gpu_without_room_for_its_plain_weights() -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model = load_model(resolve_model("shape:qwen3-0.6b"), torch.device("cuda"), torch.bfloat16, 0, "gptq").model
    held, peak = torch.cuda.memory_allocated() - before, torch.cuda.max_memory_allocated() - before
    embedding = model.get_input_embeddings().weight.nbytes
    assert held - embedding < 0.35 * (model.config.num_hidden_layers * 15.8e6 * 2)
    assert peak < held + 200e6
