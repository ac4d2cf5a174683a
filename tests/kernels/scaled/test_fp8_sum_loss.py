"""The bound on what Hopper's tensor cores lose, against sums that are cut off as they do."""

from __future__ import annotations

import pytest
import torch

from qmeter_native.kernels.oracle import fp8_sum_loss, linear
from qmeter_native.kernels.quantized_weight import ScaledWeight


def cut_sum(x: torch.Tensor, w: torch.Tensor) -> float:
    """Steps of 32 products and the sum so far, cut towards zero at 13 bits below the largest one's exponent."""
    total = torch.zeros((), dtype=torch.float64)
    for first in range(0, len(x), 32):
        addends = torch.cat((total[None], x[first : first + 32] * w[first : first + 32]))
        unit = 2.0 ** (addends.abs().max().log2().floor() - 13)
        total = ((addends / unit).trunc() * unit).sum()
    return float(total)


@pytest.mark.parametrize("seed", range(5))
def test_sums_that_are_cut_off_stay_within_the_bound(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, w = torch.randn(2, 1024, generator=generator).abs().to(torch.float8_e4m3fn)
    weight = ScaledWeight(w[None], torch.ones(1, 1), (1, 1024))
    lost = abs(cut_sum(x.double(), w.double()) - float(linear(x[None].float(), weight)))
    assert 0 < lost <= float(fp8_sum_loss(x[None].float(), weight))


def test_sums_that_start_anew_lose_less() -> None:
    x, w = torch.ones(3, 512), torch.ones(4, 512).to(torch.float8_e4m3fn)
    weight = ScaledWeight(w, torch.ones(1, 1), (4, 512))
    assert (fp8_sum_loss(x, weight, 128) < fp8_sum_loss(x, weight)).all()
