"""FP8: rounding that saturates, scales of three kinds, four layouts."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import fp8
from qmeter_native.kernels.packing.fp8 import Fp8Config
from qmeter_native.kernels.quantized_weight import ScaledWeight

KINDS = {
    "fp8": ("tensor", "block"),
    "fbgemm_fp8": ("channel",),
    "modelopt": ("tensor", "channel", "block"),
    "compressed-tensors": ("tensor", "channel", "block"),
}


def random_weight(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def test_rounding_saturates_and_ties_go_to_even() -> None:
    values = torch.tensor([448.0, 463.9, 464.1, 1e9, -math.inf, 17.0, 19.0, 2.0**-10, 1.5 * 2.0**-9])
    rounded = fp8.round_to_e4m3(values).float().tolist()
    assert rounded == [448, 448, 448, 448, -448, 16, 20, 0, 2.0**-8]


def test_every_e4m3_number_rounds_to_itself() -> None:
    codes = torch.tensor([code for code in range(256) if code & 0x7F != 0x7F], dtype=torch.uint8)
    assert torch.equal(fp8.round_to_e4m3(codes.view(torch.float8_e4m3fn).float()).view(torch.uint8), codes)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["tensor", "channel", "block"]), st.integers(1, 300), st.integers(1, 300), st.integers(0, 999))
def test_every_value_is_within_half_a_step(granularity: str, n: int, k: int, seed: int) -> None:
    weight = random_weight(n, k, seed)
    quantized = fp8.quantize(weight, granularity)
    rows, columns = quantized.block
    assert quantized.scales.shape == (math.ceil(n / rows), math.ceil(k / columns))
    scales = ScaledWeight(torch.ones_like(quantized.values), quantized.scales, quantized.block).dequantize()
    step = scales * torch.clamp(torch.exp2(torch.floor(torch.log2(weight.abs() / scales)) - 3), min=2.0**-9)
    assert bool(((quantized.dequantize() - weight).abs() <= step / 2 * (1 + 1e-5)).all())
    assert quantized.values.float().abs().max() == 448


def test_scales_are_powers_of_two_on_demand() -> None:
    weight = fp8.quantize(random_weight(200, 200), "block", power_of_two=True)
    fractions, _ = torch.frexp(weight.scales)
    assert bool((fractions == 0.5).all())
    assert weight.values.float().abs().max() <= 448


def test_zeros_stay_zeros() -> None:
    for granularity in ("tensor", "channel", "block"):
        assert fp8.quantize(torch.zeros(3, 5), granularity).dequantize().abs().sum() == 0


@pytest.mark.parametrize(("layout", "kind"), [(layout, kind) for layout, kinds in KINDS.items() for kind in kinds])
@pytest.mark.parametrize(("n", "k"), [(256, 128), (200, 130), (64, 32)])
def test_every_layout_survives(layout: str, kind: str, n: int, k: int) -> None:
    weight = fp8.quantize(random_weight(n, k), kind)
    again = fp8.unpack(fp8.pack(weight, layout), (128, 128) if kind == "block" else None)
    assert torch.equal(again.values.view(torch.uint8), weight.values.view(torch.uint8))
    assert torch.equal(again.scales, weight.scales)
    assert again.block == weight.block


def test_shapes_and_names_are_those_of_each_layout() -> None:
    tensors = {kind: fp8.quantize(random_weight(200, 300), kind) for kind in ("tensor", "channel", "block")}

    def shape(kind: str, layout: str) -> dict[str, tuple[int, ...]]:
        return {
            name: tuple(tensor.shape) for name, tensor in fp8.pack(tensors[kind], layout).items() if name != "weight"
        }

    assert shape("block", "fp8") == {"weight_scale_inv": (2, 3)}
    assert shape("tensor", "fp8") == {"weight_scale": ()}
    assert shape("channel", "fbgemm_fp8") == {"weight_scale": (200, 1)}
    assert shape("block", "modelopt") == {"weight_scale": (2, 1, 3, 1)}
    assert shape("channel", "modelopt") == {"weight_scale": (200,)}
    assert shape("tensor", "compressed-tensors") == {"weight_scale": (1,)}
    assert shape("block", "compressed-tensors") == {"weight_scale": (2, 3)}


def test_a_matrix_of_one_block_is_stored_as_told() -> None:
    weight = fp8.quantize(random_weight(128, 128), "block")
    assert fp8.pack(weight, granularity="block")["weight_scale_inv"].shape == (1, 1)
    assert fp8.pack(weight, granularity="tensor")["weight_scale"].shape == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e8m0fnu])
def test_scales_are_read_from_every_type(dtype: torch.dtype) -> None:
    tensors = fp8.pack(fp8.quantize(random_weight(130, 130), "block", power_of_two=True))
    stored = {**tensors, "weight_scale_inv": tensors["weight_scale_inv"].to(dtype)}
    assert torch.equal(fp8.unpack(stored, (128, 128)).scales, tensors["weight_scale_inv"])


def test_static_input_scales_are_found_by_either_name() -> None:
    assert fp8.input_scale({}) is None
    assert fp8.input_scale({"input_scale": torch.tensor([0.5])}) == 0.5
    assert fp8.input_scale({"activation_scale": torch.tensor(0.25)}) == 0.25


def test_what_is_no_such_layer_is_refused_by_name() -> None:
    tensors = fp8.pack(fp8.quantize(random_weight(256, 128), "block"))
    with pytest.raises(UsageError, match="weight is float32"):
        fp8.unpack({**tensors, "weight": torch.zeros(256, 128)})
    with pytest.raises(UsageError, match="no tensor weight_scale or weight_scale_inv"):
        fp8.unpack({"weight": tensors["weight"]})
    with pytest.raises(UsageError, match=r"weight_scale_inv has shape \(2, 1\)"):
        fp8.unpack(tensors)
    with pytest.raises(UsageError, match=r"weight_scale_inv has shape \(1, 1\)"):
        fp8.unpack({**tensors, "weight_scale_inv": torch.ones(1, 1)}, (128, 128))
    with pytest.raises(UsageError, match="weight holds NaN"):
        fp8.unpack({**tensors, "weight": torch.full((256, 128), math.nan).to(torch.float8_e4m3fn)}, (128, 128))


def test_what_a_layout_cannot_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="scales of 128 x 128 values"):
        fp8.pack(fp8.quantize(torch.ones(4, 4), "block"), "fbgemm_fp8")
    with pytest.raises(UsageError, match="scales of 64 x 64 values"):
        fp8.pack(ScaledWeight(torch.zeros(64, 128).to(torch.float8_e4m3fn), torch.ones(1, 2), (64, 64)))
    with pytest.raises(UsageError, match="not finite"):
        fp8.quantize(torch.full((2, 2), math.inf))


@pytest.mark.parametrize(
    "config",
    [
        Fp8Config(weight_block_size=(128, 128), scale_fmt="ue8m0"),
        Fp8Config(activation_scheme="static", modules_to_not_convert=("lm_head",)),
        Fp8Config("fbgemm_fp8", activation_scale_ub=1200.0),
    ],
)
def test_configurations_survive_their_dictionaries(config: Fp8Config) -> None:
    assert Fp8Config.from_dict(config.to_dict()) == config


def test_configurations_that_are_not_supported_are_refused_by_their_field() -> None:
    for fields, named in (
        ({"quant_method": "fp9"}, "quant_method is 'fp9'"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "fmt is 'e5m2'"),
        ({"quant_method": "fp8", "weight_block_size": [64, 64]}, "weight_block_size is"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "static"}, "activation_scheme"),
    ):
        with pytest.raises(UsageError, match=named):
            Fp8Config.from_dict(fields)


def transformers_tensors(weight: torch.Tensor, **fields: Any) -> dict[str, Any]:
    quantizer = pytest.importorskip("transformers.integrations.finegrained_fp8").Fp8Quantize
    config = SimpleNamespace(weight_block_size=(128, 128), scale_fmt="float", **fields)
    operation = quantizer(SimpleNamespace(quantization_config=config))
    return {name.removeprefix("layer."): tensor for name, tensor in operation.convert({"layer.weight": weight}).items()}


def test_blocks_of_transformers_decode_to_the_same_within_a_rounding_of_the_scale() -> None:
    weight = random_weight(256, 384, 7)
    theirs, ours = fp8.unpack(transformers_tensors(weight), (128, 128)), fp8.quantize(weight, "block")
    assert bool(((theirs.scales - ours.scales).abs() <= 2**-22 * ours.scales).all())
    assert (theirs.values.float() != ours.values.float()).float().mean() < 1e-3  # ties that the scale's last bit moves


@pytest.mark.parametrize("kind", ["tensor", "channel", "block"])
def test_scales_and_values_are_those_of_compressed_tensors(kind: str) -> None:
    quantization = pytest.importorskip("compressed_tensors.quantization")
    helpers = pytest.importorskip("compressed_tensors.quantization.utils.helpers")
    forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    block = {"block_structure": [128, 128]} if kind == "block" else {}
    arguments = quantization.QuantizationArgs(num_bits=8, type="float", strategy=kind, symmetric=True, **block)
    weight = random_weight(256, 128, 8)
    ours = fp8.quantize(weight, kind)
    rows, columns = ours.block
    blocks = weight.reshape(256 // rows, rows, 128 // columns, columns)
    scale, zero = helpers.calculate_qparams(blocks.amin((1, 3)), blocks.amax((1, 3)), arguments)
    theirs = forward.quantize(weight, scale.reshape(ours.scales.shape), zero, arguments, dtype=torch.float8_e4m3fn)
    assert torch.equal(ours.scales, scale.reshape(ours.scales.shape))
    assert torch.equal(ours.values.float(), theirs.float())
