"""QoQ: the interleaved order, both levels of scales, and an inner level that never leaves int8."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import qoq
from qmeter_native.kernels.packing.qoq import QoqConfig
from qmeter_native.kernels.quantized_weight import IntegerWeight, ProgressiveWeight

GROUP, CHANNEL = QoqConfig(128), QoqConfig(-1)


def random_weight(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def progressive(codes: torch.Tensor, step: int = 1, zero: int = 8) -> ProgressiveWeight:
    n, k = codes.shape
    return ProgressiveWeight(
        codes,
        torch.full((n, k // 128), step, dtype=torch.int8),
        torch.full((n, k // 128), zero, dtype=torch.uint8),
        torch.ones(n, dtype=torch.float16),
        128,
    )


def byte_of(n: int, k: int, num_inputs: int) -> tuple[int, int]:
    """Flat index and nibble of an element, counted out from mma.m16n8k32's operand layout."""
    tile = (n // 32) * (num_inputs // 32) + k // 32
    n_in, k_in = n % 32, k % 32
    thread = (n_in % 8) * 4 + (k_in % 16) // 4
    return tile * 512 + thread * 16 + (k_in // 16) * 8 + (n_in // 8 % 2) * 4 + k_in % 4, n_in // 16


@pytest.mark.parametrize(("n", "k"), [(0, 0), (1, 0), (0, 1), (8, 0), (16, 0), (0, 16), (31, 31), (40, 129), (63, 255)])
def test_each_element_lies_where_a_thread_of_the_tensor_cores_needs_it(n: int, k: int) -> None:
    codes = torch.zeros(64, 256, dtype=torch.uint8)
    codes[n, k] = 9
    index, nibble = byte_of(n, k, 256)
    packed = qoq.pack(progressive(codes, zero=0))["qweight"].view(torch.uint8).flatten()
    assert packed.nonzero().tolist() == [[index]]
    assert packed[index] == 9 << 4 * nibble


def test_group_scales_of_32_outputs_lie_in_steps_of_eight() -> None:
    weight = progressive(torch.full((64, 128), 8, dtype=torch.uint8))
    steps = (torch.arange(64) % 16 + 1).to(torch.int8)[:, None]
    tensors = qoq.pack(ProgressiveWeight(weight.codes, steps, weight.zeros, weight.scales, 128))
    order = [32 * block + 8 * row + column for block in range(2) for column in range(8) for row in range(4)]
    assert order[:6] == [0, 8, 16, 24, 1, 9]
    assert tensors["s2_scales"].tolist() == [steps[order, 0].tolist()]
    assert tensors["s2_zeros"].view(torch.uint8).tolist() == [[-8 * int(steps[n, 0]) % 256 for n in order]]


def test_scaled_zeros_of_channels_are_products() -> None:
    weight = IntegerWeight(
        torch.zeros(32, 32, dtype=torch.uint8),
        torch.full((32, 1), 0.3, dtype=torch.float16),
        torch.full((32, 1), 7, dtype=torch.uint8),
        4,
        32,
    )
    tensors = qoq.pack(weight)
    assert set(tensors) == {"qweight", "s1_scales", "s1_szeros"}
    assert torch.equal(tensors["s1_szeros"], 7 * weight.scales[:, 0])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**31))
def test_any_layer_by_group_survives(n: int, groups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n, k = 32 * n, 128 * groups
    steps = torch.randint(1, 17, (n, groups), generator=generator)
    zeros = torch.randint(0, 16, (n, groups), generator=generator).clamp(15 - 127 // steps, 128 // steps)
    codes = torch.randint(0, 16, (n, k), generator=generator, dtype=torch.uint8)
    scales = torch.rand(n, generator=generator).half() + 0.1
    weight = ProgressiveWeight(codes, steps.to(torch.int8), zeros.to(torch.uint8), scales, 128)
    again = qoq.unpack(qoq.pack(weight), GROUP)
    for field in ("codes", "group_scales", "zeros", "scales"):
        assert torch.equal(getattr(again, field), getattr(weight, field)), field


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**31))
def test_any_layer_by_channel_survives(n: int, k: int, seed: int) -> None:
    weight = qoq.quantize(random_weight(32 * n, 32 * k, seed) + 0.5, CHANNEL)
    again = qoq.unpack(qoq.pack(weight), CHANNEL)
    for field in ("codes", "scales", "zeros"):
        assert torch.equal(getattr(again, field), getattr(weight, field)), field


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["normal", "ends", "one-sided", "outliers", "zeros"]), st.integers(0, 2**31), st.integers(-12, 8)
)
def test_the_inner_level_never_leaves_int8(kind: str, seed: int, exponent: int) -> None:
    weight = random_weight(32, 256, seed)
    weight = {
        "normal": weight,
        "ends": weight.sign() * (1 - weight.abs() / 100),
        "one-sided": weight.abs(),
        "outliers": weight**5,
        "zeros": weight * 0,
    }[kind]
    quantized = qoq.quantize(weight * 2.0**exponent, GROUP)
    assert isinstance(quantized, ProgressiveWeight)
    steps = quantized.group_scales
    assert int(steps.min()) >= 1
    assert int(steps.max()) <= 16
    exact = (quantized.codes.int() - quantized.zeros.int().repeat_interleave(128, 1)) * steps.int().repeat_interleave(
        128, 1
    )
    assert int(exact.abs().max()) <= 127
    assert torch.equal(quantized.int8().int(), exact)


def test_the_protective_range_is_the_largest_that_is_safe() -> None:
    """Every inner value of every group range, were rows rounded to ±limit: 119 fits int8 and 120 does not."""

    def reach(limit: int) -> int:
        values = torch.arange(-limit, limit + 1.0)
        low, high, value = torch.meshgrid(values[: limit + 1], values[limit:], values, indexing="ij")
        inside = (low <= value) & (value <= high)
        low, high, value = low[inside], high[inside], value[inside]
        step = ((high - low) / 15).round().clamp_min(1)
        zero = (-low / step).round()
        return int((((value / step).round() + zero).clamp(0, 15) - zero).mul(step).abs().max())

    assert reach(119) <= 127
    assert reach(120) > 127


def test_values_are_within_half_a_step_of_each_level_but_for_one_code() -> None:
    weight = random_weight(64, 512, 3)
    quantized = qoq.quantize(weight, GROUP)
    step = quantized.group_scales.float().repeat_interleave(128, 1) * quantized.scales.float()[:, None]
    assert bool(((quantized.dequantize() - weight).abs() <= 1.5 * step).all())  # the range may be rounded down
    assert ((quantized.dequantize() - weight).abs() <= 0.55 * step).float().mean() > 0.95


def test_what_is_no_such_layer_is_refused_by_name() -> None:
    tensors = qoq.pack(qoq.quantize(random_weight(32, 128), GROUP))
    with pytest.raises(UsageError, match="no tensor s2_zeros"):
        qoq.unpack({name: tensor for name, tensor in tensors.items() if name != "s2_zeros"}, GROUP)
    with pytest.raises(UsageError, match="no tensor s1_szeros"):
        qoq.unpack(tensors, CHANNEL)
    with pytest.raises(UsageError, match="qweight is uint8"):
        qoq.unpack({**tensors, "qweight": tensors["qweight"].view(torch.uint8)}, GROUP)
    with pytest.raises(UsageError, match="s2_scales reach from 0 to 0"):
        qoq.unpack({**tensors, "s2_scales": torch.zeros(1, 32, dtype=torch.int8)}, GROUP)
    with pytest.raises(UsageError, match="s2_zeros holds"):
        qoq.unpack(
            {
                **tensors,
                "s2_scales": torch.full((1, 32), 16, dtype=torch.int8),
                "s2_zeros": tensors["s2_zeros"] * 0 + 3,
            },
            GROUP,
        )
    by_channel = qoq.pack(qoq.quantize(random_weight(32, 32), CHANNEL))
    with pytest.raises(UsageError, match="s1_szeros holds"):
        qoq.unpack({**by_channel, "s1_szeros": by_channel["s1_scales"] * 3.5}, CHANNEL)


def test_what_qoq_cannot_hold_is_refused() -> None:
    codes = torch.full((32, 128), 15, dtype=torch.uint8)
    with pytest.raises(UsageError, match="inner level reaches from 240 to 240"):
        qoq.pack(progressive(codes, step=16, zero=0))
    with pytest.raises(UsageError, match="group scales reach from 18 to 18"):
        qoq.pack(progressive(codes, step=18))
    with pytest.raises(UsageError, match="tiles of 32 x 32"):
        qoq.quantize(random_weight(33, 128), GROUP)
    with pytest.raises(UsageError, match="Groups of 128"):
        qoq.quantize(random_weight(32, 160), GROUP)
    with pytest.raises(UsageError, match="group_size is 64"):
        QoqConfig.from_dict({"quant_method": "qoq", "group_size": 64})
    with pytest.raises(UsageError, match="groups of a row is 2"):
        qoq.pack(IntegerWeight(codes, torch.ones(32, 2).half(), None, 4, 64))


def test_the_configuration_survives_its_dictionary() -> None:
    for config in (GROUP, QoqConfig(-1, ("lm_head",))):
        assert QoqConfig.from_dict(config.to_dict()) == config
