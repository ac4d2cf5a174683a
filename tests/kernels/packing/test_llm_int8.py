from __future__ import annotations

from typing import Any

import pytest
import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import llm_int8
from qmeter_native.kernels.packing.llm_int8 import LlmInt8Config
from qmeter_native.kernels.quantized_weight import ScaledWeight


def test_the_largest_magnitude_of_a_row_is_127_codes() -> None:
    stored = llm_int8.pack(llm_int8.quantize(torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.25, -0.25]])))
    assert stored["weight"].tolist() == [[127, -64, 32], [0, 127, -127]]
    assert stored["SCB"].tolist() == [2.0, 0.25]
    assert (stored["weight_format"].dtype, int(stored["weight_format"])) == (torch.uint8, 0)


def test_a_weight_comes_back_within_the_last_bit_of_its_scales() -> None:
    weight = llm_int8.quantize(torch.randn(32, 64))
    back = llm_int8.unpack(llm_int8.pack(weight))
    assert torch.equal(back.values, weight.values)
    assert back.block == weight.block
    assert ((back.scales / weight.scales - 1).abs() <= 2**-23).all()


def test_a_config_is_read_and_written() -> None:
    config = LlmInt8Config(4.0, ("lm_head", "gate"))
    assert LlmInt8Config.from_dict(config.to_dict()) == config
    assert LlmInt8Config.from_dict({"load_in_8bit": True, "llm_int8_skip_modules": None}) == LlmInt8Config()
    assert config.of_layer("model.gate") is None
    assert config.of_layer("model.up") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quant_method": "gptq"}, "quant_method is 'gptq'"),
        ({"load_in_8bit": False}, "load_in_8bit is False"),
        ({"load_in_4bit": True}, "load_in_4bit is True"),
        ({"llm_int8_has_fp16_weight": True}, "llm_int8_has_fp16_weight is True"),
    ],
)
def test_a_config_that_is_not_supported_is_refused_by_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LlmInt8Config.from_dict({**LlmInt8Config().to_dict(), **change})


def test_what_the_format_cannot_hold_or_mean_is_refused() -> None:
    weight = llm_int8.quantize(torch.randn(4, 8))
    stored = llm_int8.pack(weight)
    with pytest.raises(UsageError, match="int8 with scales of blocks of 4 x 8"):
        llm_int8.pack(ScaledWeight(weight.values, weight.scales[:1], (4, 8)))
    with pytest.raises(UsageError, match="weight_format is 2"):
        llm_int8.unpack({**stored, "weight_format": torch.tensor(2, dtype=torch.uint8)})
    with pytest.raises(UsageError, match="no tensor SCB"):
        llm_int8.unpack({"weight": stored["weight"]})
    with pytest.raises(UsageError, match=r"SCB has shape \(3\)"):
        llm_int8.unpack({**stored, "SCB": stored["SCB"][:3]})
    assert torch.equal(llm_int8.unpack({"weight": stored["weight"], "SCB": stored["SCB"]}).values, weight.values)


def test_bitsandbytes_has_the_same_codes_and_magnitudes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    matrix = torch.randn(24, 40, generator=torch.Generator().manual_seed(0)).half()
    codes, magnitudes, _ = functional.int8_vectorwise_quant(matrix)
    stored = llm_int8.pack(llm_int8.quantize(matrix))
    assert torch.equal(stored["weight"], codes)
    assert torch.allclose(stored["SCB"], magnitudes, rtol=2**-23, atol=0)
    theirs = functional.int8_vectorwise_dequant(codes, magnitudes)
    # theirs is rounded to float16
    assert torch.allclose(llm_int8.unpack(stored).dequantize(), theirs.float(), rtol=2**-10, atol=2**-24)
