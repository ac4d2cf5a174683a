"""The Triton loads compute what they claim to, by Triton's interpreter where there is no GPU."""

from __future__ import annotations

import os
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("the same kernels run on the GPU in tests/gpu", allow_module_level=True)
kernels = pytest.importorskip("qmeter_native.calibration.triton_kernels")


def packed(codes: Any, dim: int) -> Any:
    """Eight 4-bit codes along ``dim`` in each int32, lowest first."""
    words = sum(codes.to(torch.int64)[_every_eighth(dim, n)] << 4 * n for n in range(8))
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def _every_eighth(dim: int, first: int) -> Any:
    return (slice(first, None, 8), slice(None)) if dim == 0 else (slice(None), slice(first, None, 8))


def test_4_bit_weights_in_gptq_layout() -> None:
    torch.manual_seed(0)
    x, out = torch.randn(16, 256).half(), torch.empty(16, 128).half()
    codes, zeros = torch.randint(0, 16, (256, 128)), torch.randint(0, 15, (2, 128))
    scales = (torch.rand(2, 128) * 0.1).half()
    kernels.w4a16_gemm(x, packed(codes, 0), packed(zeros, 1), scales, out)
    weight = (codes - zeros.repeat_interleave(128, 0) - 1) * scales.repeat_interleave(128, 0).float()
    torch.testing.assert_close(out.float(), x.float() @ weight, rtol=5e-3, atol=2e-2)


def test_8_bit_weights() -> None:
    torch.manual_seed(1)
    x, out = torch.randn(16, 256).half(), torch.empty(16, 64).half()
    weight, scales = torch.randint(-127, 128, (256, 64), dtype=torch.int8), (torch.rand(64) * 0.01).half()
    kernels.w8a16_gemm(x, weight, scales, out)
    torch.testing.assert_close(out.float(), x.float() @ weight.float() * scales.float(), rtol=5e-3, atol=1e-2)


def test_decoding_attention() -> None:
    torch.manual_seed(2)
    query, out = torch.randn(3, 16, 64).half(), torch.empty(3, 16, 64).half()
    key, value = torch.randn(3, 128, 64).half(), torch.randn(3, 128, 64).half()
    kernels.attention_decode(query, key, value, out)
    expected = torch.nn.functional.scaled_dot_product_attention(query.float(), key.float(), value.float())
    torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=2e-3)


def test_norm_activation_copy_and_sums() -> None:
    torch.manual_seed(3)
    x, weight, out = torch.randn(4, 256).half(), torch.rand(256).half(), torch.empty(4, 256).half()
    kernels.rms_norm(x, weight, out)
    expected = torch.nn.functional.rms_norm(x.float(), (256,), weight.float(), 1e-6)
    torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=2e-3)

    x, out = torch.randn(2, 2048).half(), torch.empty(2, 1024).half()
    kernels.silu_and_mul(x, out)
    expected = torch.nn.functional.silu(x[:, :1024].float()) * x[:, 1024:].float()
    torch.testing.assert_close(out.float(), expected, rtol=1e-2, atol=2e-3)

    source, target, total = torch.randn(8192), torch.empty(8192), torch.empty(1)
    kernels.copy(source, target)
    assert torch.equal(source, target)
    kernels.dram_read(source, total, 1)
    torch.testing.assert_close(total[0], source.sum(), rtol=1e-4, atol=1e-3)
    kernels.l2_read(source, total, 1, 4)
    torch.testing.assert_close(total[0], 2 * source.sum(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rows", [128, 1280])  # one group of tiles, and one and a quarter
def test_products_of_16_bit_numbers(rows: int) -> None:
    torch.manual_seed(4)
    x, weight, out = torch.randn(rows, 128).half(), torch.randn(256, 128).half(), torch.empty(rows, 256).half()
    kernels.gemm(x, weight, out)
    torch.testing.assert_close(out.float(), x.float() @ weight.float().t(), rtol=1e-2, atol=3e-2)


def test_multiply_adds_stay_random_however_often_they_run() -> None:
    torch.manual_seed(5)
    values = torch.rand(2048)
    expected = values.clone()
    kernels.fp32_fma(values, 1, 3)
    for _ in range(3):
        expected = expected * expected - 1.9
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
    kernels.fp32_fma(values, 1, 400)
    assert values.abs().max() < 1.9001
    assert len(values.unique()) > 1900
