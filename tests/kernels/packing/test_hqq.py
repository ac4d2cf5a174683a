from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import hqq
from qmeter_native.kernels.packing.hqq import HqqConfig
from qmeter_native.kernels.quantized_weight import IntegerWeight


def a_weight(bits: int = 4, n: int = 8, k: int = 64, group_size: int = 16, seed: int = 0) -> IntegerWeight:
    generator = torch.Generator().manual_seed(seed)
    return IntegerWeight(
        codes=torch.randint(0, 1 << bits, (n, k), generator=generator, dtype=torch.uint8),
        scales=torch.rand(n, k // group_size, generator=generator).half(),
        zeros=(torch.rand(n, k // group_size, generator=generator) * (1 << bits)).half(),
        bits=bits,
        group_size=group_size,
    )


def test_the_first_half_of_the_rows_is_in_the_high_nibbles() -> None:
    codes = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)
    stored = hqq.pack(IntegerWeight(codes, torch.ones(2, 1).half(), None, 4, 2), HqqConfig(4, 2))
    assert stored["W_q"].tolist() == [[0x13, 0x24]]
    assert stored["zero"].tolist() == [[8], [8]]


def test_ten_rows_of_three_bits_share_a_word_from_bit_27_down() -> None:
    codes = torch.arange(11, dtype=torch.uint8)[:, None].remainder(8)
    stored = hqq.pack(IntegerWeight(codes, torch.ones(11, 1).half(), None, 3, 1), HqqConfig(3, 1))
    # 11 rows are filled up to 20: rows 0, 2, 4, ... share the first word, as tenths of two rows each
    assert stored["W_q"].tolist() == [
        [0 << 27 | 2 << 24 | 4 << 21 | 6 << 18 | 0 << 15 | 2 << 12],
        [1 << 27 | 3 << 24 | 5 << 21 | 7 << 18 | 1 << 15],
    ]


@settings(deadline=None, max_examples=40)
@given(
    bits=st.sampled_from([2, 3, 4, 8]),
    n=st.sampled_from([4, 12, 20]),
    group_size=st.sampled_from([8, 24, 64]),
    groups=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_a_weight_comes_back(bits: int, n: int, group_size: int, groups: int, seed: int) -> None:
    weight = a_weight(bits, n, group_size * groups, group_size, seed)
    config = HqqConfig(bits, group_size)
    back = hqq.unpack(hqq.pack(weight, config), config)
    assert all(torch.equal(getattr(back, name), getattr(weight, name)) for name in ("codes", "scales", "zeros"))


def test_words_viewed_as_floats_are_read() -> None:
    weight, config = a_weight(), HqqConfig(4, 16)
    stored = hqq.pack(weight, config)
    back = hqq.unpack({**stored, "W_q": stored["W_q"].view(torch.float16)}, config)
    assert torch.equal(back.codes, weight.codes)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rounding_errs_by_half_a_step_and_the_solver_lowers_the_mean_error(bits: int) -> None:
    config = HqqConfig(bits, 32)
    matrix = torch.randn(16, 128, generator=torch.Generator().manual_seed(bits)).pow(3)
    rounded = hqq.quantize(matrix, config, torch.float32, iterations=0)
    steps = rounded.scales.double().repeat_interleave(32, 1)
    assert ((rounded.dequantize(torch.float64) - matrix) / steps).abs().max() <= 0.5 + 0.5 * (bits == 4) + 1e-3
    solved = hqq.quantize(matrix, config, torch.float32)
    assert (solved.dequantize() - matrix).abs().mean() <= (rounded.dequantize() - matrix).abs().mean() * 1.001


def test_a_config_is_read_and_written() -> None:
    config = HqqConfig(3, -1, ("lm_head", "gate"))
    assert HqqConfig.from_dict(config.to_dict()) == config
    assert config.of_layer("model.gate") is None
    assert config.of_layer("model.up") == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nbits": 5}, "hqq: nbits is 5"),
        ({"axis": 0}, "hqq: axis is 0"),
        ({"channel_wise": False}, "hqq: channel_wise is False"),
        ({"group_size": 0}, "hqq: group_size is 0"),
    ],
)
def test_a_config_that_is_not_supported_is_refused_by_field(change: dict[str, Any], message: str) -> None:
    config = HqqConfig().to_dict()
    config["quant_config"]["weight_quant_params"] |= change
    with pytest.raises(UsageError, match=message):
        HqqConfig.from_dict(config)
    with pytest.raises(UsageError, match="weight_quant_params is missing"):
        HqqConfig.from_dict({"quant_config": {"self_attn.q_proj": {}}})


def test_what_the_format_cannot_hold_is_refused() -> None:
    weight = a_weight()
    with pytest.raises(UsageError, match="inputs in groups of 48"):
        hqq.pack(weight, HqqConfig(4, 48))
    with pytest.raises(UsageError, match="groups of 16 inputs"):
        hqq.pack(weight, HqqConfig(4, 32))
    with pytest.raises(UsageError, match="3 groups, and HQQ at 4 bits packs multiples of 2"):
        hqq.pack(a_weight(n=3, k=16), HqqConfig(4, 16))
    with pytest.raises(UsageError, match="hqq: nbits is 8"):
        hqq.pack(weight, HqqConfig(8, 16))
    with pytest.raises(UsageError, match="act-order"):
        hqq.pack(replace(weight, group_of=torch.zeros(64).int()), HqqConfig(4, 16))
    with pytest.raises(UsageError, match=r"zero points .float32. do not fit float16"):
        hqq.pack(replace(weight, zeros=weight.zeros.float() + 1e-5), HqqConfig(4, 16))


def test_tensors_that_disagree_with_the_config_are_refused() -> None:
    config = HqqConfig(4, 16)
    stored = hqq.pack(a_weight(), config)
    with pytest.raises(UsageError, match="hqq: group_size is 16"):
        hqq.unpack(stored, HqqConfig(4, 32))
    with pytest.raises(UsageError, match="hqq: nbits is 4"):
        hqq.unpack(stored, HqqConfig(2, 16))
    with pytest.raises(UsageError, match="hqq: quant_zero is 1"):
        hqq.unpack({**stored, "quant_zero": torch.tensor(1)}, config)
    with pytest.raises(UsageError, match="no tensor zero"):
        hqq.unpack({name: stored[name] for name in ("W_q", "scale", "shape")}, config)
    with pytest.raises(UsageError, match="W_q has shape"):
        hqq.unpack({**stored, "W_q": stored["W_q"][:3]}, config)
    with pytest.raises(UsageError, match="W_q is int32"):
        hqq.unpack({**stored, "W_q": stored["W_q"].int()}, config)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
class TestAgainstTheProjectsOwn:
    """The hqq package, on the CPU."""

    def linear(self, matrix: torch.Tensor, config: HqqConfig) -> Any:
        library = pytest.importorskip("hqq.core.quantize")
        layer = torch.nn.Linear(matrix.shape[1], matrix.shape[0], bias=False)
        layer.weight.data = matrix.clone()
        quant_config = library.BaseQuantizeConfig(nbits=config.bits, group_size=config.group_size, axis=1)
        return library.HQQLinear(layer, quant_config, compute_dtype=torch.float16, device="cpu")

    def test_its_layers_are_read(self, bits: int) -> None:
        config = HqqConfig(bits, 16)
        layer = self.linear(torch.randn(12, 64), config)
        weight = hqq.unpack(layer.state_dict(), config)
        assert torch.equal(weight.dequantize(torch.float16), layer.dequantize())

    def test_it_reads_ours(self, bits: int) -> None:
        config = HqqConfig(bits, 16)
        layer = self.linear(torch.randn(12, 64), config)
        weight = a_weight(bits, 12)
        stored = hqq.pack(weight, config)
        assert {name: tensor.dtype for name, tensor in stored.items()} == {
            name: tensor.dtype for name, tensor in layer.state_dict().items()
        }
        layer.load_state_dict({**stored, "W_q": torch.nn.Parameter(stored["W_q"], requires_grad=False)})
        assert torch.equal(layer.dequantize(), weight.dequantize(torch.float16))

    def test_its_solver_finds_the_same_error(self, bits: int) -> None:
        config = HqqConfig(bits, 32)
        matrix = torch.randn(32, 128, generator=torch.Generator().manual_seed(1))
        theirs = hqq.unpack(self.linear(matrix, config).state_dict(), config).dequantize() - matrix
        ours = hqq.quantize(matrix, config).dequantize() - matrix
        assert ours.abs().mean() == pytest.approx(float(theirs.abs().mean()), rel=0.01)
