from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import gptq
from qmeter_native.kernels.packing.gptq import GptqConfig
from qmeter_native.kernels.quantized_weight import IntegerWeight


def a_weight(config: GptqConfig, n: int = 32, k: int = 64, seed: int = 0) -> IntegerWeight:
    """Random codes and scales, and zero points from 1 on."""
    generator = torch.Generator().manual_seed(seed)
    size = k if config.group_size == -1 else config.group_size
    groups = -(-k // size)
    largest = (1 << config.bits) - 1
    zeros = torch.randint(1, largest + 1, (n, groups), generator=generator, dtype=torch.uint8)
    return IntegerWeight(
        codes=torch.randint(0, largest + 1, (n, k), generator=generator, dtype=torch.uint8),
        scales=torch.rand(n, groups, generator=generator).to(torch.float16),
        zeros=None if config.sym else zeros,
        bits=config.bits,
        group_size=size,
        group_of=(torch.randperm(k, generator=generator) // size).int() if config.desc_act else None,
    )


def assert_same(one: IntegerWeight, other: IntegerWeight) -> None:
    for name in ("codes", "scales", "zeros", "group_of"):
        first, second = getattr(one, name), getattr(other, name)
        assert (first is None) == (second is None), name
        assert first is None or (first.dtype == second.dtype and torch.equal(first, second)), name
    assert (one.bits, one.group_size) == (other.bits, other.group_size)


def words(tensor: torch.Tensor) -> list[int]:
    return [word & 0xFFFFFFFF for word in tensor.flatten().tolist()]


def test_eight_inputs_of_one_output_are_a_word() -> None:
    codes = torch.zeros(8, 8, dtype=torch.uint8)
    codes[3] = torch.arange(8)
    stored = gptq.pack(IntegerWeight(codes, torch.ones(8, 1), None, 4, 8), GptqConfig(group_size=8))
    assert stored["qweight"].shape == (1, 8)
    assert words(stored["qweight"]) == [0, 0, 0, 0x76543210, 0, 0, 0, 0]


@pytest.mark.parametrize(("label", "word"), [("gptq", 2004318071), ("gptq_v2", -2004318072), ("gptq_p", -2004318072)])
def test_zero_points_of_eight_are_stored_less_one_in_v1_only(label: str, word: int) -> None:
    config = GptqConfig(group_size=32, checkpoint_format=label)
    assert gptq.pack(a_weight(config), config)["qzeros"].unique().tolist() == [word]


def test_planes_of_three_bits_are_two_words_of_low_bits_and_one_of_high_bits() -> None:
    config = GptqConfig(bits=3, group_size=32, checkpoint_format="gptq_p")
    codes = torch.zeros(32, 32, dtype=torch.uint8)
    codes[0, 0], codes[0, 1], codes[0, 17], codes[0, 31] = 0b101, 0b011, 0b110, 0b100
    stored = gptq.pack(IntegerWeight(codes, torch.ones(32, 1), None, 3, 32), config)
    assert words(stored["qweight"][:, 0]) == [0b01 | 0b11 << 2, 0b10 << 2, 1 | 1 << 17 | 1 << 31]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_widths_of_one_plane_have_the_words_of_v2(bits: int) -> None:
    v2 = GptqConfig(bits=bits, group_size=16, sym=False, checkpoint_format="gptq_v2")
    weight = a_weight(v2)
    planar = gptq.pack(weight, replace(v2, checkpoint_format="gptq_p"))
    assert all(torch.equal(planar[name], tensor) for name, tensor in gptq.pack(weight, v2).items())


@pytest.mark.parametrize(("bits", "ones"), [(2, 0x55555555), (4, 0x11111111), (8, 0x01010101)])
def test_v1_zeros_are_v2_zeros_less_one_in_every_field(bits: int, ones: int) -> None:
    config = GptqConfig(bits=bits, group_size=16, sym=False)
    weight = a_weight(config)
    v1 = words(gptq.pack(weight, config)["qzeros"])
    v2 = words(gptq.pack(weight, replace(config, checkpoint_format="gptq_v2"))["qzeros"])
    assert [word + ones for word in v1] == v2


@settings(deadline=None, max_examples=60)
@given(
    label=st.sampled_from(["gptq", "gptq_v2", "gptq_p"]),
    bits=st.sampled_from([2, 3, 4, 5, 6, 7, 8]),
    group_size=st.sampled_from([-1, 16, 24, 32, 128]),
    sym=st.booleans(),
    desc_act=st.booleans(),
    n=st.sampled_from([32, 96]),
    k=st.sampled_from([64, 160]),
    seed=st.integers(0, 99),
)
def test_a_weight_comes_back(
    label: str, bits: int, group_size: int, sym: bool, desc_act: bool, n: int, k: int, seed: int
) -> None:
    if label != "gptq_p" and bits in (5, 6, 7):
        bits -= 3
    config = GptqConfig(bits, group_size, desc_act, sym, label)
    weight = a_weight(config, n, k, seed)
    stored = gptq.pack(weight, config)
    num_groups = 1 if group_size == -1 else -(-k // group_size)
    assert stored["qweight"].shape == (k * bits // 32, n)
    assert stored["qzeros"].shape == (num_groups, n * bits // 32)
    assert (stored["scales"].shape, stored["scales"].dtype) == ((num_groups, n), torch.float16)
    back = gptq.unpack(stored, config)
    if weight.group_of is not None and torch.equal(weight.group_of, torch.arange(k).int() // weight.group_size):
        weight = replace(weight, group_of=None)
    assert_same(back, weight)


@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rounding_errs_by_half_a_step_inside_the_range(bits: int, sym: bool) -> None:
    config = GptqConfig(bits=bits, group_size=48, sym=sym, checkpoint_format="gptq_v2")
    matrix = torch.randn(32, 128, generator=torch.Generator().manual_seed(bits))
    weight = gptq.unpack(gptq.pack(gptq.quantize(matrix, config), config), config)
    steps = weight.scales.double().repeat_interleave(48, 1)[:, :128]
    # one code: a scale in float16 is off by 2**-11 of itself, over at most 255 codes an eighth of a step
    assert ((weight.dequantize(torch.float64) - matrix) / steps).abs().max() <= 0.5 + 0.5 * (not sym) + 255 * 2**-11


def test_a_config_is_read_and_written() -> None:
    stored = {
        "quant_method": "gptq",
        "bits": 8,
        "group_size": -1,
        "desc_act": True,
        "sym": False,
        "lm_head": True,
        "checkpoint_format": "gptq_v2",
        "pack_dtype": "int32",
        "dynamic": {"-:.*down": {}, "+:.*up": {"bits": 4}},
    }
    config = GptqConfig.from_dict({**stored, "damp_percent": 0.05, "meta": {"quantizer": ["x:1"]}})
    assert config.to_dict() == stored
    assert config.of_layer("model.0.down") is None
    assert config.of_layer("model.0.up") == replace(config, bits=4, dynamic={})
    assert GptqConfig.from_dict({"bits": 4, "group_size": 64, "format": "gptq_v2"}).checkpoint_format == "gptq_v2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_method": "awq"}, "quant_method is 'awq'"),
        ({"bits": 5}, "gptq: bits is 5"),
        ({"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
        ({"group_size": 0}, "group_size is 0"),
        ({"pack_dtype": "int16"}, "pack_dtype is 'int16'"),
        ({"is_marlin_format": True}, "is_marlin_format is True"),
    ],
)
def test_a_config_that_is_not_supported_is_refused_by_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GptqConfig.from_dict({"bits": 4, "group_size": 128, **change})
    with pytest.raises(UsageError, match="bits is missing"):
        GptqConfig.from_dict({"group_size": 128})


def test_v2_zeros_labelled_v1_are_refused() -> None:
    v2 = GptqConfig(group_size=32, checkpoint_format="gptq_v2")
    stored = gptq.pack(a_weight(v2), v2)
    with pytest.raises(UsageError, match=r"all zero points of qzeros are 9 .*\n.*set checkpoint_format gptq_v2"):
        gptq.unpack(stored, replace(v2, checkpoint_format="gptq"))
    stored = gptq.pack(a_weight(v2), replace(v2, checkpoint_format="gptq"))
    with pytest.raises(UsageError, match=r"all zero points of qzeros are 7 .*\n.*set checkpoint_format gptq "):
        gptq.unpack(stored, v2)


def test_zero_points_that_v1_cannot_mean_are_refused() -> None:
    v2 = GptqConfig(group_size=32, sym=False, checkpoint_format="gptq_v2")
    weight = a_weight(v2)
    weight.zeros[0, 0] = 15
    with pytest.raises(UsageError, match=r"qzeros hold 15.*\n.*gptq_v2"):
        gptq.unpack(gptq.pack(weight, v2), replace(v2, checkpoint_format="gptq"))
    weight.zeros[0, 0] = 0
    with pytest.raises(UsageError, match="1 zero points are 0"):
        gptq.pack(weight, replace(v2, checkpoint_format="gptq"))


def test_tensors_that_disagree_with_the_config_are_refused() -> None:
    config = GptqConfig(group_size=16, sym=False, desc_act=True)
    stored = gptq.pack(a_weight(config), config)
    with pytest.raises(UsageError, match="g_idx is in act-order"):
        gptq.unpack(stored, replace(config, desc_act=False))
    with pytest.raises(UsageError, match="sym is true, and zero points reach"):
        gptq.unpack(stored, replace(config, sym=True))
    with pytest.raises(UsageError, match=r"scales has shape \(4, 32\)"):
        gptq.unpack(stored, replace(config, group_size=32))
    with pytest.raises(UsageError, match="no tensor g_idx"):
        gptq.unpack({name: tensor for name, tensor in stored.items() if name != "g_idx"}, config)
    with pytest.raises(UsageError, match="g_idx reaches from 0 to 4"):
        gptq.unpack({**stored, "g_idx": torch.arange(64).int() % 5}, config)
    with pytest.raises(UsageError, match="qzeros has shape"):
        gptq.unpack({**stored, "qzeros": stored["qzeros"][:, :2]}, config)
    with pytest.raises(UsageError, match="qweight is int64"):
        gptq.unpack({**stored, "qweight": stored["qweight"].long()}, config)


def test_weights_that_the_config_cannot_hold_are_refused() -> None:
    config = GptqConfig(group_size=16)
    with pytest.raises(UsageError, match="32 x 60, and GPTQ at 4 bits packs multiples of 8"):
        gptq.pack(a_weight(config, 32, 60), config)
    with pytest.raises(UsageError, match="20 x 64, and GPTQ at 3 bits packs multiples of 32"):
        gptq.pack(a_weight(GptqConfig(bits=3, group_size=16), 20), GptqConfig(bits=3, group_size=16))
    with pytest.raises(UsageError, match="groups of 16 inputs"):
        gptq.pack(a_weight(config), GptqConfig(group_size=32))
    with pytest.raises(UsageError, match="gptq: bits is 8"):
        gptq.pack(a_weight(config), GptqConfig(bits=8, group_size=16))
    with pytest.raises(UsageError, match="act-order"):
        gptq.pack(a_weight(replace(config, desc_act=True)), config)
    with pytest.raises(UsageError, match="sym is true"):
        gptq.pack(a_weight(replace(config, sym=False)), config)
    weight = a_weight(config)
    with pytest.raises(UsageError, match=r"scales .float32. do not fit float16"):
        gptq.pack(replace(weight, scales=weight.scales.float() + 1e-6), config)
