from __future__ import annotations

from dataclasses import fields
from functools import partial

import pytest

from qmeter_native.kernels.packing import awq, bitsandbytes, fp8, mxfp4, nvfp4, qoq
from qmeter_native.quantization.checkpoint_formats.by_rows import by_rows

torch = pytest.importorskip("torch")

ROUNDINGS = {
    "awq": partial(awq.quantize, config=awq.AwqConfig()),
    "qoq": partial(qoq.quantize, config=qoq.QoqConfig(128)),
    "nf4 whose blocks reach over rows": bitsandbytes.quantize,
    "fp8-block": partial(fp8.quantize, granularity="block"),
    "mxfp4": mxfp4.quantize,
    "nvfp4": partial(nvfp4.quantize, global_scale=torch.tensor(448 * 6 / 5.0)),
}


@pytest.mark.parametrize("name", ROUNDINGS)
def test_rounding_some_rows_at_a_time_is_rounding_the_matrix(name: str):
    weight = torch.randn(416, 256 + 32 * ("rows" in name), generator=torch.Generator().manual_seed(0))
    whole, parts = ROUNDINGS[name](weight), by_rows(ROUNDINGS[name], 1 << 16)(weight)
    for field in fields(whole):
        one, other = getattr(whole, field.name), getattr(parts, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, field.name
