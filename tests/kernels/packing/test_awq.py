from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import awq
from qmeter_native.kernels.packing.awq import AwqConfig
from qmeter_native.kernels.quantized_weight import IntegerWeight


def a_weight(n: int = 16, k: int = 64, group_size: int = 32, seed: int = 0) -> IntegerWeight:
    generator = torch.Generator().manual_seed(seed)
    groups = k // group_size
    return IntegerWeight(
        codes=torch.randint(0, 16, (n, k), generator=generator, dtype=torch.uint8),
        scales=torch.rand(n, groups, generator=generator).to(torch.float16),
        zeros=torch.randint(0, 16, (n, groups), generator=generator, dtype=torch.uint8),
        bits=4,
        group_size=group_size,
    )


def test_eight_outputs_of_one_input_are_an_interleaved_word() -> None:
    codes = torch.zeros(8, 32, dtype=torch.uint8)
    codes[:, 3] = torch.arange(8)
    zeros = torch.arange(8, dtype=torch.uint8)[:, None]
    stored = awq.pack(IntegerWeight(codes, torch.ones(8, 1), zeros, 4, 32), AwqConfig(32))
    assert stored["qweight"].shape == (32, 1)
    assert stored["qweight"][3].tolist() == [0x75316420]
    assert stored["qzeros"].tolist() == [[0x75316420]]


@settings(deadline=None, max_examples=30)
@given(
    eighths=st.integers(1, 5), groups=st.integers(1, 4), group_size=st.sampled_from([8, 24, 32]), seed=st.integers(0, 9)
)
def test_a_weight_comes_back(eighths: int, groups: int, group_size: int, seed: int) -> None:
    weight = a_weight(8 * eighths, groups * group_size, group_size, seed)
    stored = awq.pack(weight, AwqConfig(group_size))
    assert stored["qweight"].shape == (groups * group_size, eighths)
    assert stored["qzeros"].shape == (groups, eighths)
    assert (stored["scales"].shape, stored["scales"].dtype) == ((groups, 8 * eighths), torch.float16)
    back = awq.unpack(stored, AwqConfig(group_size))
    assert all(torch.equal(getattr(back, name), getattr(weight, name)) for name in ("codes", "scales", "zeros"))


def test_one_group_a_row_and_symmetric_weights_are_held() -> None:
    weight = replace(a_weight(group_size=64), zeros=None)
    back = awq.unpack(awq.pack(weight, AwqConfig(-1)), AwqConfig(-1))
    assert back.group_size == 64
    assert torch.equal(back.dequantize(), weight.dequantize())
    assert back.zeros is not None
    assert back.zeros.unique().tolist() == [8]


def test_rounding_errs_by_a_step_at_most() -> None:
    matrix = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    weight = awq.quantize(matrix, AwqConfig(32))
    steps = weight.scales.double().repeat_interleave(32, 1)
    # half a step of the code, half a step at the range's ends by the rounded zero point, 15 * 2**-11 of the scale
    assert ((weight.dequantize(torch.float64) - matrix) / steps).abs().max() <= 1 + 15 * 2**-11


def test_a_config_is_read_and_written() -> None:
    config = AwqConfig(64, ("lm_head", "gate"))
    assert AwqConfig.from_dict(config.to_dict()) == config
    assert AwqConfig.from_dict({"w_bit": 4, "q_group_size": 64, "version": "GEMM"}) == AwqConfig(64)
    assert config.of_layer("model.gate.0") is None
    assert config.of_layer("model.up") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 8}, "awq: bits is 8"),
        ({"version": "gemv_fast"}, "awq: version is 'gemv_fast'"),
        ({"version": "marlin"}, "awq: version is 'marlin'"),
        ({"zero_point": False}, "awq: zero_point is False"),
        ({"quant_method": "gptq"}, "awq: quant_method is 'gptq'"),
        ({"group_size": None}, "group_size is missing"),
        ({"group_size": -2}, "group_size is -2"),
    ],
)
def test_a_config_that_is_not_supported_is_refused_by_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AwqConfig.from_dict({"bits": 4, "group_size": 128, **change})


def test_what_the_layout_cannot_hold_is_refused() -> None:
    weight = a_weight()
    with pytest.raises(UsageError, match="12 x 64, and AWQ needs outputs in multiples of 8"):
        awq.pack(a_weight(12), AwqConfig(32))
    with pytest.raises(UsageError, match="inputs in groups of 48"):
        awq.pack(weight, AwqConfig(48))
    with pytest.raises(UsageError, match="groups of 32 inputs"):
        awq.pack(weight, AwqConfig(64))
    with pytest.raises(UsageError, match="awq: bits is 3"):
        awq.pack(replace(weight, bits=3), AwqConfig(32))
    with pytest.raises(UsageError, match="act-order"):
        awq.pack(replace(weight, group_of=torch.arange(64).int() // 32), AwqConfig(32))
    with pytest.raises(UsageError, match=r"zero points .float32. do not fit uint8"):
        awq.pack(replace(weight, zeros=torch.full((16, 2), 7.5)), AwqConfig(32))
    with pytest.raises(UsageError, match="zero points reach from 16 to 16"):
        awq.pack(replace(weight, zeros=torch.full((16, 2), 16)), AwqConfig(32))


def test_tensors_that_disagree_with_the_config_are_refused() -> None:
    stored = awq.pack(a_weight(), AwqConfig(32))
    with pytest.raises(UsageError, match="no tensor qzeros"):
        awq.unpack({"qweight": stored["qweight"], "scales": stored["scales"]}, AwqConfig(32))
    with pytest.raises(UsageError, match=r"scales has shape \(2, 8\)"):
        awq.unpack({**stored, "scales": stored["scales"][:, :8]}, AwqConfig(32))
    with pytest.raises(UsageError, match=r"qzeros has shape \(2, 2\)"):
        awq.unpack(stored, AwqConfig(64))
