from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, permutations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import awq, compressed_tensors, gptq, hqq
from qmeter_native.kernels.packing.awq import AwqConfig
from qmeter_native.kernels.packing.compressed_tensors_config import CompressedTensorsConfig, LayerScheme, TensorScheme
from qmeter_native.kernels.packing.conversion import IntegerFormat, convert
from qmeter_native.kernels.packing.gptq import GptqConfig
from qmeter_native.kernels.packing.hqq import HqqConfig
from qmeter_native.kernels.quantized_weight import IntegerWeight

MODULES: dict[type, Any] = {GptqConfig: gptq, AwqConfig: awq, HqqConfig: hqq, LayerScheme: compressed_tensors}


def packed(bits: int = 4, symmetric: bool = False, group_size: int = 16) -> LayerScheme:
    return LayerScheme("pack-quantized", TensorScheme(bits, "int", symmetric, "group", group_size))


FORMATS: dict[str, IntegerFormat] = {
    "gptq v1": GptqConfig(4, 16, sym=False),
    "gptq v2": GptqConfig(4, 16, sym=False, checkpoint_format="gptq_v2"),
    "gptq planes": GptqConfig(4, 16, sym=False, checkpoint_format="gptq_p"),
    "awq": AwqConfig(16),
    "compressed-tensors": packed(),
    "hqq": HqqConfig(4, 16),
}


def a_weight(bits: int = 4, group_size: int = 16, seed: int = 0, n: int = 32, k: int = 64) -> IntegerWeight:
    """Scales in float16 and zero points that every format holds."""
    generator = torch.Generator().manual_seed(seed)
    return IntegerWeight(
        codes=torch.randint(0, 1 << bits, (n, k), generator=generator, dtype=torch.uint8),
        scales=torch.rand(n, k // group_size, generator=generator).half(),
        zeros=torch.randint(1, 1 << bits, (n, k // group_size), generator=generator, dtype=torch.uint8),
        bits=bits,
        group_size=group_size,
    )


def stored(weight: IntegerWeight, config: IntegerFormat) -> dict[str, Any]:
    tensors: dict[str, Any] = MODULES[type(config)].pack(weight, config)
    return tensors


def meaning(tensors: dict[str, Any], config: IntegerFormat) -> torch.Tensor:
    matrix: torch.Tensor = MODULES[type(config)].unpack(tensors, config).dequantize(torch.float64)
    return matrix


@pytest.mark.parametrize(("source", "target"), list(permutations(FORMATS, 2)))
def test_every_format_becomes_every_other_and_comes_back_to_the_word(source: str, target: str) -> None:
    weight = a_weight(seed=len(source) + len(target))
    original = stored(weight, FORMATS[source])
    converted = convert(original, FORMATS[source], FORMATS[target])
    assert torch.equal(meaning(converted, FORMATS[target]), weight.dequantize(torch.float64))
    back = convert(converted, FORMATS[target], FORMATS[source])
    assert back.keys() == original.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in original.items())


def test_awq_words_become_gptq_words() -> None:
    codes = torch.zeros(8, 16, dtype=torch.uint8)
    codes[2, :8] = torch.arange(8)
    weight = IntegerWeight(codes, torch.ones(8, 1).half(), torch.full((8, 1), 8, dtype=torch.uint8), 4, 16)
    words = convert(stored(weight, AwqConfig(16)), AwqConfig(16), GptqConfig(4, 16))
    assert words["qweight"][0].tolist() == [0, 0, 0x76543210, 0, 0, 0, 0, 0]
    assert words["qzeros"].tolist() == [[0x77777777]]


@settings(deadline=None, max_examples=30)
@given(bits=st.sampled_from([2, 3, 4, 8]), group_size=st.sampled_from([16, 32, 64]), seed=st.integers(0, 9))
def test_all_widths_pass_between_gptq_compressed_tensors_and_hqq(bits: int, group_size: int, seed: int) -> None:
    weight = a_weight(bits, group_size, seed)
    formats = [
        GptqConfig(bits, group_size, sym=False),
        packed(bits, False, group_size),
        HqqConfig(bits, group_size),
        GptqConfig(bits, group_size, sym=False, checkpoint_format="gptq_p"),
    ]
    tensors = stored(weight, formats[0])
    for source, target in pairwise(formats):
        tensors = convert(tensors, source, target)
    assert torch.equal(meaning(tensors, formats[-1]), weight.dequantize(torch.float64))


def test_act_order_passes_between_gptq_and_compressed_tensors() -> None:
    weight = replace(a_weight(), group_of=(torch.arange(64).flip(0) // 16).int())
    source = GptqConfig(4, 16, desc_act=True, sym=False)
    target = LayerScheme("pack-quantized", replace(packed().weights, by_activation=True))
    converted = convert(stored(weight, source), source, target)
    assert torch.equal(converted["weight_g_idx"], weight.group_of)
    assert torch.equal(meaning(converted, target), weight.dequantize(torch.float64))
    for other in (AwqConfig(16), HqqConfig(4, 16), GptqConfig(4, 16, sym=False)):
        with pytest.raises(UsageError, match="act-order"):
            convert(stored(weight, source), source, other)


def test_a_channel_becomes_groups_and_not_the_reverse() -> None:
    weight = a_weight(group_size=64)
    source = GptqConfig(4, -1, sym=False)
    converted = convert(stored(weight, source), source, AwqConfig(32))
    assert converted["scales"].shape == (2, 32)
    assert torch.equal(meaning(converted, AwqConfig(32)), weight.dequantize(torch.float64))
    with pytest.raises(UsageError, match="groups of 32 inputs are no whole number of groups of 64"):
        convert(converted, AwqConfig(32), source)


def test_zero_points_of_the_middle_vanish_in_symmetric_formats() -> None:
    weight = replace(a_weight(), zeros=None)
    converted = convert(stored(weight, AwqConfig(16)), AwqConfig(16), packed(symmetric=True))
    assert "weight_zero_point" not in converted
    assert torch.equal(meaning(converted, packed(symmetric=True)), weight.dequantize(torch.float64))


def test_a_bias_is_kept() -> None:
    bias = torch.randn(32)
    tensors = {**stored(a_weight(), AwqConfig(16)), "bias": bias}
    assert convert(tensors, AwqConfig(16), HqqConfig(4, 16))["bias"] is bias


def test_what_the_target_cannot_hold_is_refused_with_the_reason() -> None:
    source = AwqConfig(16)
    weight = a_weight()
    assert weight.zeros is not None
    weight.zeros[0, 0] = 0
    tensors = stored(weight, source)
    with pytest.raises(UsageError, match=r"1 zero points are 0.*\n.*gptq_v2"):
        convert(tensors, source, GptqConfig(4, 16, sym=False))
    with pytest.raises(UsageError, match="sym is true"):
        convert(tensors, source, GptqConfig(4, 16))
    with pytest.raises(UsageError, match="has zero points"):
        convert(tensors, source, packed(symmetric=True))
    with pytest.raises(UsageError, match="bits is 8"):
        convert(tensors, source, GptqConfig(8, 16, sym=False))
    with pytest.raises(UsageError, match="awq: bits is 3"):
        convert(stored(a_weight(3), packed(3)), packed(3), source)
    fractions = stored(replace(weight, zeros=weight.zeros + torch.tensor(0.5).half()), HqqConfig(4, 16))
    with pytest.raises(UsageError, match=r"zero points .float16. do not fit uint8|zero points reach from"):
        convert(fractions, HqqConfig(4, 16), source)
    wide = stored(replace(weight, scales=weight.scales.float() * 1e-8), packed())
    with pytest.raises(UsageError, match=r"scales .float32. do not fit float16"):
        convert(wide, packed(), source)


def test_what_is_no_format_of_integers_is_refused() -> None:
    with pytest.raises(UsageError, match="no conversion is known for a CompressedTensorsConfig"):
        convert({}, CompressedTensorsConfig(()), AwqConfig())  # type: ignore[arg-type]
    plain = LayerScheme("int-quantized", TensorScheme(8, "int", True, "channel"))
    tensors = compressed_tensors.pack(compressed_tensors.quantize(torch.randn(8, 16), plain), plain)
    with pytest.raises(UsageError, match="the layer holds a ScaledWeight"):
        convert(tensors, plain, AwqConfig())
