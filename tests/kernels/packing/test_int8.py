from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import int8
from qmeter_native.kernels.quantized_weight import ScaledWeight


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 20), k=st.integers(1, 40), exponent=st.integers(-20, 10), seed=st.integers(0, 9))
def test_rounding_errs_by_half_a_step_and_uses_the_whole_range(n: int, k: int, exponent: int, seed: int) -> None:
    matrix = torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    weight = int8.quantize(matrix)
    assert (weight.values.abs().amax(1) == 127).all()
    # half a step, and 127 steps of a scale rounded to float32
    error = (weight.dequantize(torch.float64) - matrix) / weight.scales
    assert error.abs().max() <= 0.5 + 127 * 2**-23


def test_rows_of_zeros_stay_zeros() -> None:
    assert not int8.quantize(torch.zeros(2, 8)).dequantize().any()


@pytest.mark.parametrize("block", [(1, 8), (4, 8)])
def test_a_weight_comes_back(block: tuple[int, int]) -> None:
    scales = torch.rand(4 // block[0], 1)
    weight = ScaledWeight(torch.randint(-128, 128, (4, 8), dtype=torch.int8), scales, block)
    stored = int8.pack(weight)
    assert stored["weight_scale"].shape == ((1,) if block[0] == 4 else (4, 1))
    back = int8.unpack(stored)
    assert back.block == block
    assert torch.equal(back.values, weight.values)
    assert torch.equal(back.scales, scales)


def test_what_is_no_int8_layer_is_refused() -> None:
    values = torch.zeros(4, 8, dtype=torch.int8)
    with pytest.raises(UsageError, match="blocks of 2 x 8"):
        int8.pack(ScaledWeight(values, torch.ones(2, 1), (2, 8)))
    with pytest.raises(UsageError, match="holds float8_e4m3fn"):
        int8.pack(ScaledWeight(values.float().to(torch.float8_e4m3fn), torch.ones(4, 1), (1, 8)))
    with pytest.raises(UsageError, match="weight is uint8"):
        int8.unpack({"weight": values.to(torch.uint8), "weight_scale": torch.ones(4, 1)})
    with pytest.raises(UsageError, match=r"weight_scale has shape \(4\)"):
        int8.unpack({"weight": values, "weight_scale": torch.ones(4)})
    with pytest.raises(UsageError, match="no tensor weight_scale"):
        int8.unpack({"weight": values})
    with pytest.raises(UsageError, match="weight is int32"):
        int8.quantize(torch.ones(2, 2, dtype=torch.int32))
