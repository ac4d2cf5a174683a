"""E2M1, the 4-bit float of MXFP4 and NVFP4: a sign, two bits of exponent, one of mantissa (OCP MX v1.0, 5.3.3).

Two codes a byte, the even input in the low nibble, in every format that uses them.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_shape
from qmeter_native.kernels.packing.bits import pack_bits, unpack_bits
from qmeter_native.kernels.quantized_weight import CodebookWeight

__all__ = ["E2M1_MAX", "E2M1_TABLE", "check_e2m1", "pack_e2m1", "round_to_e2m1", "unpack_e2m1"]

_MAGNITUDES: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

E2M1_TABLE: Final[Any] = torch.tensor([*_MAGNITUDES, *(-value for value in _MAGNITUDES)])
"""float32 ``[16]``: what each code stands for; bit 3 is the sign, code 8 is -0."""

E2M1_MAX: Final = 6.0


def round_to_e2m1(values: Any) -> Any:
    """The nearest codes, uint8 of the same shape: ties go to the even code, what lies beyond 6 to 6, the sign stays.

    So do compressed-tensors, ModelOpt and the GPU's own conversion (PTX ``cvt.rn.satfinite.e2m1x2``).

    Args:
        values: Floating point, of any shape, no NaN.
    """
    magnitudes = torch.tensor(_MAGNITUDES, device=values.device)
    midpoints = (magnitudes[1:] + magnitudes[:-1]) / 2
    size = values.abs().float().contiguous()
    below = torch.bucketize(size, midpoints, out_int32=True)
    above = torch.bucketize(size, midpoints, out_int32=True, right=True)  # another code at ties
    codes = torch.where(below % 2 == 0, below, above)
    return (codes | torch.signbit(values).int() << 3).to(torch.uint8)


def check_e2m1(weight: CodebookWeight, group_size: int) -> None:
    """Refuse a weight that is not made of E2M1 codes in groups of ``group_size``, which fill its rows."""
    if not torch.equal(weight.table.cpu(), E2M1_TABLE):
        raise UsageError(f"the weight's table is {weight.table.tolist()}", "It must be E2M1's.")
    if weight.group_size != group_size:
        raise UsageError(f"the weight has groups of {weight.group_size}", f"They must be of {group_size}.")
    check_shape("the weight's scales", weight.scales, weight.shape[0], weight.shape[1] // group_size)


def pack_e2m1(codes: Any) -> Any:
    """uint8 ``[..., K / 2]`` of codes ``[..., K]`` (uint8, below 16); codes 1 and 7 give ``0x71``.

    Raises:
        UsageError: K is odd.
    """
    if codes.shape[-1] % 2:
        raise UsageError(f"codes have {codes.shape[-1]} inputs", "Two share a byte: give an even number.")
    return pack_bits(codes, 4, torch.uint8)


def unpack_e2m1(packed: Any) -> Any:
    """Codes ``[..., K]`` of bytes ``[..., K / 2]``."""
    return unpack_bits(packed, 4, 2 * packed.shape[-1])
