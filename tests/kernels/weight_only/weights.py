"""Random weights of every format that the weight-only kernels take, and how far a product may be from the truth."""

from __future__ import annotations

from typing import Any

import torch

from qmeter_native.kernels.oracle import linear, linear_bound, relative_step
from qmeter_native.kernels.quantized_weight import CodebookWeight, IntegerWeight, ScaledWeight

E2M1 = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
NEGATIVE = (-1, -0.69619, -0.52507, -0.39492, -0.28444, -0.18477, -0.09105, 0)
POSITIVE = (0.07958, 0.16093, 0.24611, 0.33792, 0.44071, 0.56262, 0.72296, 1)
NF4 = torch.tensor([*NEGATIVE, *POSITIVE])
FP4 = torch.tensor([0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3]) / 12


def integer_weight(
    n: int, k: int, bits: int = 4, group_size: int = 128, zeros: str = "none", act_order: bool = False, seed: int = 0
) -> IntegerWeight:
    """Zeros: ``none``, ``integer`` or ``float``."""
    generator = torch.Generator().manual_seed(seed)
    groups = -(-k // group_size)
    codes = torch.randint(0, 1 << bits, (n, k), dtype=torch.uint8, generator=generator)
    scales = (torch.rand(n, groups, generator=generator) * 0.02 + 0.001).half()
    points: Any = None
    if zeros == "integer":
        points = torch.randint(0, 1 << bits, (n, groups), generator=generator)
    elif zeros == "float":
        points = (torch.rand(n, groups, generator=generator) * (1 << bits)).half()
    order = torch.randperm(k, generator=generator) // group_size if act_order else None
    return IntegerWeight(codes, scales, points, bits, group_size, order)


def codebook_weight(n: int, k: int, table: Any = NF4, group_size: int = 64, seed: int = 0) -> CodebookWeight:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (n, k), dtype=torch.uint8, generator=generator)
    scales = torch.rand(n, -(-k // group_size), generator=generator) * 0.02 + 0.001
    return CodebookWeight(codes, table, scales, group_size)


def scaled_weight(n: int, k: int, dtype: Any, block: tuple[int, int], seed: int = 0) -> ScaledWeight:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, k, generator=generator) * 40
    values = values.round().clamp(-128, 127).to(dtype) if dtype == torch.int8 else values.to(dtype)
    scales = torch.rand(-(-n // block[0]), -(-k // block[1]), generator=generator) * 1e-3 + 1e-5
    return ScaledWeight(values, scales, block)


def all_weights(n: int, k: int) -> dict[str, Any]:
    """One of every format, kind of zero point and kind of group, by name."""
    found: dict[str, Any] = {}
    for bits in (2, 3, 4, 8):
        for zeros in ("none", "integer", "float"):
            for group_size in (32, 128, k):
                name = f"int{bits}-{zeros}-g{group_size if group_size < k else 'all'}"
                found[name] = integer_weight(n, k, bits, group_size, zeros)
    found["int4-integer-act-order"] = integer_weight(n, k, 4, 64, "integer", act_order=True)
    found["int4-none-g256"] = integer_weight(n, k, 4, 256)
    for name, table, group_size in (("nf4", NF4, 64), ("fp4", FP4, 64), ("mxfp4", E2M1, 32), ("nvfp4", E2M1, 16)):
        found[name] = codebook_weight(n, k, table, group_size)
    for name, dtype in (("int8", torch.int8), ("fp8", torch.float8_e4m3fn)):
        for block in ((n, k), (1, k), (128, 128)):
            found[f"{name}-{block[0]}x{block[1]}"] = scaled_weight(n, k, dtype, block)
    return found


def activations(*shape: int, dtype: Any = torch.float16, seed: int = 1) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_product(out: Any, x: Any, weight: Any, bias: Any | None = None) -> None:
    """Within the bound of the format; a bias adds its share to the rounding of the result.

    Codes of a table are rounded to the type of the activations, which is a third rounding beside those of the scale
    and of the decoded weight.
    """
    bound = linear_bound(x, weight, out.dtype, x.dtype)
    magnitude = x.double().abs() @ weight.dequantize(torch.float64).abs().T
    step = relative_step(out.dtype)
    if isinstance(weight, CodebookWeight):
        bound = bound + step * magnitude
    if bias is not None:
        bound = bound + step * bias.double().abs()
    error = (out.double() - linear(x, weight, bias)).abs()
    assert out.shape == error.shape
    assert (error <= bound).all(), f"{(error / bound).max():.2f} times the bound"
