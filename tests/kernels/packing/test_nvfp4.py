"""NVFP4: two levels of scales, two conventions, and ModelOpt's configuration."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import nvfp4
from qmeter_native.kernels.packing.e2m1 import E2M1_TABLE
from qmeter_native.kernels.packing.modelopt import ModelOptConfig
from qmeter_native.kernels.quantized_weight import CodebookWeight


def random_weight(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def random_layer(n: int, groups: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 127, (n, groups), generator=generator, dtype=torch.uint8)
    codes[0, 0] = 126
    return {
        "weight_packed": torch.randint(0, 256, (n, groups * 8), generator=generator, dtype=torch.uint8),
        "weight_scale": codes.view(torch.float8_e4m3fn),
        "weight_global_scale": torch.rand(1, generator=generator) * 10.0 ** (seed % 9 - 2) + 1e-3,
    }


def test_a_golden_group_gives_its_bytes_and_scales() -> None:
    weight = torch.zeros(1, 32)
    weight[0, :2] = torch.tensor([0.5, 6.0])
    weight[0, 16] = -3.0
    tensors = nvfp4.pack(nvfp4.quantize(weight))
    assert tensors["weight_packed"].tolist() == [[0x71, *[0] * 7, 0x0F, *[0] * 7]]
    assert tensors["weight_scale"].float().tolist() == [[448.0, 224.0]]
    assert tensors["weight_global_scale"].tolist() == [448.0]


def test_modelopts_scale_is_the_reciprocal() -> None:
    weight = nvfp4.quantize(torch.full((1, 16), 6.0))
    tensors = nvfp4.pack(weight, "modelopt")
    assert set(tensors) == {"weight", "weight_scale", "weight_scale_2"}
    assert tensors["weight_scale_2"].shape == ()
    assert tensors["weight_scale_2"].item() == pytest.approx(6.0 / (448 * 6), rel=1e-7)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_stored_layers_of_either_convention_survive_to_the_bit(n: int, groups: int, seed: int) -> None:
    layer = random_layer(n, groups, seed)
    modelopt = {
        "weight": layer["weight_packed"],
        "weight_scale": layer["weight_scale"],
        "weight_scale_2": layer["weight_global_scale"][0],
    }
    for tensors, convention in ((layer, "compressed-tensors"), (modelopt, "modelopt")):
        weight = nvfp4.unpack(tensors)
        again = nvfp4.unpack(nvfp4.pack(weight, convention))
        assert torch.equal(again.codes, weight.codes)
        assert torch.equal(again.scales, weight.scales)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31))
def test_between_the_conventions_scales_change_in_their_last_bits_only(n: int, groups: int, seed: int) -> None:
    weight = nvfp4.unpack(random_layer(n, groups, seed))
    other = nvfp4.unpack(nvfp4.pack(weight, "modelopt"))
    assert torch.equal(other.codes, weight.codes)
    assert bool(((other.scales - weight.scales).abs() <= 2**-22 * weight.scales).all())


def test_quantized_matrices_store_448_as_their_largest_scale() -> None:
    weight = random_weight(32, 256)
    tensors = nvfp4.pack(nvfp4.quantize(weight))
    assert tensors["weight_scale"].float().max() == 448
    assert tensors["weight_global_scale"].item() == pytest.approx(448 * 6 / weight.abs().max().item(), rel=1e-6)


def test_matrices_of_a_fused_projection_share_a_global_scale() -> None:
    parts = random_weight(16, 64), random_weight(16, 64, 1) / 3
    shared = torch.tensor([448 * 6 / max(part.abs().max().item() for part in parts)])
    for part in parts:
        weight = nvfp4.quantize(part, shared)
        tensors = nvfp4.pack(weight, global_scale=shared)
        assert torch.equal(tensors["weight_global_scale"], shared)
        assert torch.equal(nvfp4.unpack(tensors).scales, weight.scales)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(-30, 30))
def test_every_value_is_within_half_a_step_of_its_group(seed: int, exponent: int) -> None:
    weight = random_weight(4, 64, seed) * 2.0**exponent
    quantized = nvfp4.quantize(weight)
    scales = quantized.scales.repeat_interleave(16, 1).double()
    ratio = weight.double().abs() / scales
    half_step = torch.where(ratio > 4, 1.0, torch.where(ratio > 2, 0.5, 0.25)) + (ratio - 6).clamp(min=0)
    assert bool(((quantized.dequantize(torch.float64) - weight).abs() <= half_step * scales * (1 + 1e-5)).all())
    assert ratio.max() <= 6 * (1 + 2**-4)  # a scale of three bits of mantissa is rounded down by a sixteenth at most


def test_zeros_stay_zeros() -> None:
    weight = nvfp4.quantize(torch.zeros(2, 32))
    assert weight.dequantize().abs().sum() == 0
    assert nvfp4.unpack(nvfp4.pack(weight)).dequantize().abs().sum() == 0


def test_what_is_no_such_layer_is_refused_by_name() -> None:
    layer = random_layer(2, 4, 1)
    with pytest.raises(UsageError, match="has no tensor weight_packed"):
        nvfp4.unpack({})
    with pytest.raises(UsageError, match="has no tensor weight_global_scale"):
        nvfp4.unpack({name: layer[name] for name in ("weight_packed", "weight_scale")})
    with pytest.raises(UsageError, match="weight_scale is float32"):
        nvfp4.unpack({**layer, "weight_scale": layer["weight_scale"].float()})
    with pytest.raises(UsageError, match="negative number or NaN"):
        nvfp4.unpack({**layer, "weight_scale": torch.full((2, 4), math.nan).to(torch.float8_e4m3fn)})
    with pytest.raises(UsageError, match="weight_global_scale is 0"):
        nvfp4.unpack({**layer, "weight_global_scale": torch.zeros(1)})
    with pytest.raises(UsageError, match="24 inputs"):
        nvfp4.unpack({**layer, "weight_packed": torch.zeros(2, 12, dtype=torch.uint8)})


def test_what_nvfp4_cannot_hold_is_refused() -> None:
    codes = torch.zeros(1, 48, dtype=torch.uint8)
    with pytest.raises(UsageError, match="no E4M3 numbers times one number"):
        nvfp4.pack(CodebookWeight(codes, E2M1_TABLE, torch.tensor([[1.0, 1.01, 1.05]]), 16))
    with pytest.raises(UsageError, match="groups of 48"):
        nvfp4.pack(CodebookWeight(codes, E2M1_TABLE, torch.ones(1, 1), 48))
    with pytest.raises(UsageError, match="convention is 'gguf'"):
        nvfp4.pack(nvfp4.quantize(torch.ones(1, 16)), "gguf")
    with pytest.raises(UsageError, match="24 inputs"):
        nvfp4.quantize(torch.zeros(2, 24))


def test_modelopts_configuration_is_read_from_either_file() -> None:
    config = ModelOptConfig("NVFP4", "FP8", ("lm_head",))
    assert ModelOptConfig.from_dict(config.to_dict()) == config
    in_config_json = {
        "quant_method": "modelopt",
        "quant_algo": "nvfp4",
        "ignore": ["lm_head"],
        "kv_cache_scheme": {"type": "float", "num_bits": 8},
    }
    assert ModelOptConfig.from_dict(in_config_json) == config
    with pytest.raises(UsageError, match="quant_algo is 'W4A8_AWQ'"):
        ModelOptConfig.from_dict({"quantization": {"quant_algo": "W4A8_AWQ"}})
    with pytest.raises(UsageError, match="group_size is 32"):
        ModelOptConfig.from_dict({"quantization": {"quant_algo": "NVFP4", "group_size": 32}})
    with pytest.raises(UsageError, match="quant_algo is missing"):
        ModelOptConfig.from_dict({"quantization": {}})


def test_codes_and_scales_are_those_of_compressed_tensors() -> None:
    quantization = pytest.importorskip("compressed_tensors.quantization")
    helpers = pytest.importorskip("compressed_tensors.quantization.utils.helpers")
    compressor = pytest.importorskip("compressed_tensors.compressors.nvfp4").NVFP4PackedCompressor
    arguments = quantization.QuantizationArgs(
        num_bits=4,
        type="float",
        strategy="tensor_group",
        group_size=16,
        symmetric=True,
        scale_dtype=torch.float8_e4m3fn,
    )
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=arguments)
    weight = random_weight(16, 128, 5)
    groups = weight.reshape(16, 8, 16)
    global_scale = helpers.generate_gparam(weight.min(), weight.max())
    scale, _ = helpers.calculate_qparams(groups.amin(-1), groups.amax(-1), arguments, global_scale)
    theirs = compressor.compress(
        {"weight": weight.clone(), "weight_scale": scale, "weight_global_scale": global_scale}, scheme
    )
    ours = nvfp4.pack(nvfp4.quantize(weight))
    for name in ("weight_packed", "weight_global_scale"):
        assert torch.equal(ours[name], theirs[name]), name
    assert torch.equal(ours["weight_scale"].float(), theirs["weight_scale"].float())


def test_codes_and_scales_are_those_of_torchao() -> None:
    torchao = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor")
    weight = random_weight(16, 256, 6)
    matrix_scale = torchao.per_tensor_amax_to_scale(weight.abs().max())
    scale, codes = torchao.nvfp4_quantize(weight, per_tensor_scale=matrix_scale)
    tensors = nvfp4.pack(nvfp4.quantize(weight), "modelopt")
    assert tensors["weight_scale_2"].item() == pytest.approx(matrix_scale.item(), rel=1e-6)
    assert torch.equal(tensors["weight_scale"].float(), scale.float())
    assert torch.equal(tensors["weight"], codes.view(torch.uint8))
