"""MXFP4: scales by the specification, tensors of compressed-tensors and gpt-oss."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import mxfp4
from qmeter_native.kernels.packing.e2m1 import E2M1_TABLE
from qmeter_native.kernels.quantized_weight import CodebookWeight


def one_group(*values: float) -> torch.Tensor:
    return torch.tensor([[*values, *([0.0] * (32 - len(values)))]])


@pytest.mark.parametrize(
    ("largest", "floor", "even"),
    [
        (4.0, 1.0, 1.0),
        (6.0, 1.0, 1.0),
        (6.99, 1.0, 1.0),
        (7.0, 1.0, 2.0),
        (7.9, 1.0, 2.0),
        (8.0, 2.0, 2.0),
        (3.9, 0.5, 1.0),
    ],
)
def test_scales_are_powers_of_two_by_the_chosen_rule(largest: float, floor: float, even: float) -> None:
    assert mxfp4.quantize(one_group(1.0, -largest)).scales.item() == floor
    assert mxfp4.quantize(one_group(1.0, -largest), rounding="even").scales.item() == even


def test_a_golden_group_gives_its_bytes() -> None:
    tensors = mxfp4.pack(mxfp4.quantize(one_group(0.5, 6.0, -1.0, 3.0)))
    assert tensors["weight_packed"][0, :2].tolist() == [0x71, 0x5A]
    assert tensors["weight_scale"].tolist() == [[127]]


def test_a_group_of_zeros_takes_the_smallest_scale() -> None:
    weight = mxfp4.quantize(torch.zeros(1, 32))
    assert weight.dequantize().tolist() == [[0.0] * 32]
    assert mxfp4.pack(weight)["weight_scale"].tolist() == [[0]]


@settings(max_examples=40, deadline=None)
@given(st.integers(-120, 120), st.integers(0, 2**31))
def test_every_value_is_within_half_a_step_unless_it_saturates(exponent: int, seed: int) -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(seed)).double() * 2.0**exponent
    quantized = mxfp4.quantize(weight.float())
    step = quantized.scales.double().repeat_interleave(32, 1)
    magnitude = (weight.abs() / step).clamp(max=6)
    half_step = torch.where(magnitude > 4, 1.0, torch.where(magnitude > 2, 0.5, 0.25))
    saturated = (weight.abs() / step - 6).clamp(min=0)
    assert bool(
        ((quantized.dequantize(torch.float64) - weight).abs() <= (half_step + saturated) * step * (1 + 1e-6)).all()
    )
    assert bool((saturated < 2).all())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_any_codes_and_scales_survive_both_layouts(n: int, groups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    packed = torch.randint(0, 256, (n, groups * 16), generator=generator, dtype=torch.uint8)
    scale = torch.randint(0, 255, (n, groups), generator=generator, dtype=torch.uint8)
    weight = mxfp4.unpack({"weight_packed": packed, "weight_scale": scale})
    tensors = mxfp4.pack(weight)
    assert torch.equal(tensors["weight_packed"], packed)
    assert torch.equal(tensors["weight_scale"], scale)
    experts = mxfp4.pack_experts("down_proj", [weight, weight])
    assert experts["down_proj_blocks"].shape == (2, n, groups, 16)
    for expert in mxfp4.unpack_experts("down_proj", experts):
        assert torch.equal(expert.codes, weight.codes)
        assert torch.equal(expert.scales, weight.scales)


def test_scales_are_biased_exponents() -> None:
    scale = torch.arange(255, dtype=torch.uint8)[None]
    packed = torch.zeros(1, 255 * 16, dtype=torch.uint8)
    weight = mxfp4.unpack({"weight_packed": packed, "weight_scale": scale})
    assert weight.scales[0].tolist() == [2.0 ** (code - 127) for code in range(255)]


def test_what_mxfp4_cannot_hold_is_refused() -> None:
    packed, scale = torch.zeros(2, 16, dtype=torch.uint8), torch.zeros(2, 1, dtype=torch.uint8)
    with pytest.raises(UsageError, match="48 inputs"):
        mxfp4.quantize(torch.zeros(2, 48))
    with pytest.raises(UsageError, match="has no tensor weight_scale"):
        mxfp4.unpack({"weight_packed": packed})
    with pytest.raises(UsageError, match=r"weight_scale has shape \(2, 2\)"):
        mxfp4.unpack({"weight_packed": packed, "weight_scale": torch.zeros(2, 2, dtype=torch.uint8)})
    with pytest.raises(UsageError, match="E8M0's NaN"):
        mxfp4.unpack({"weight_packed": packed, "weight_scale": scale + 255})
    with pytest.raises(UsageError, match="no powers of two"):
        mxfp4.pack(CodebookWeight(torch.zeros(2, 32, dtype=torch.uint8), E2M1_TABLE, torch.full((2, 1), 0.75), 32))
    with pytest.raises(UsageError, match="groups of 16"):
        mxfp4.pack(CodebookWeight(torch.zeros(2, 32, dtype=torch.uint8), E2M1_TABLE, torch.ones(2, 2), 16))


def test_the_configuration_survives_its_dictionary() -> None:
    fields = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    assert mxfp4.Mxfp4Config.from_dict(fields).to_dict() == fields
    with pytest.raises(UsageError, match="quant_method is 'gptq'"):
        mxfp4.Mxfp4Config.from_dict({"quant_method": "gptq"})


def test_experts_decode_as_transformers_decodes_them() -> None:
    integration = pytest.importorskip("transformers.integrations.mxfp4")
    generator = torch.Generator().manual_seed(1)
    blocks = torch.randint(0, 256, (2, 6, 3, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(110, 140, (2, 6, 3), generator=generator, dtype=torch.uint8)
    theirs = integration.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    tensors = {"gate_up_proj_blocks": blocks, "gate_up_proj_scales": scales}
    ours = torch.stack([weight.dequantize() for weight in mxfp4.unpack_experts("gate_up_proj", tensors)])
    assert torch.equal(ours, theirs.transpose(1, 2))


def test_scales_and_codes_are_those_of_compressed_tensors() -> None:
    utils = pytest.importorskip("compressed_tensors.quantization.utils.mxfp_utils")
    helpers = pytest.importorskip("compressed_tensors.compressors.nvfp4.helpers")
    weight = torch.randn(8, 128, generator=torch.Generator().manual_seed(2))
    ours = mxfp4.quantize(weight, rounding="even")
    exponents = utils.generate_mx_scales(weight.reshape(8, 4, 32).abs().amax(-1))
    tensors = mxfp4.pack(ours)
    assert torch.equal(tensors["weight_scale"], exponents.to(torch.uint8))
    values = helpers.unpack_fp4_from_uint8(tensors["weight_packed"], 8, 128, dtype=torch.float32)
    assert torch.equal(values, ours.table[ours.codes.long()])


@pytest.mark.parametrize("rounding", ["floor", "even"])
def test_both_rules_are_those_of_torchao(rounding: str) -> None:
    torchao = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    generator = torch.Generator().manual_seed(3)
    exponents = torch.randint(-20, 20, (16, 8), generator=generator).float().repeat_interleave(32, 1)
    weight = torch.randn(16, 256, generator=generator) * torch.exp2(exponents)
    mode = torchao.ScaleCalculationMode[rounding.upper()]
    scale, codes = torchao.to_mx(weight, torch.float4_e2m1fn_x2, 32, mode)
    tensors = mxfp4.pack(mxfp4.quantize(weight, rounding=rounding))
    assert torch.equal(tensors["weight_scale"], scale.view(torch.uint8))
    assert torch.equal(tensors["weight_packed"], codes.view(torch.uint8))
