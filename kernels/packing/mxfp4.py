"""MXFP4: E2M1 codes, and a power of two for every 32 inputs as its biased exponent, one byte (OCP MX v1.0, 5.4.1, 6.3).

Two layouts hold it: compressed-tensors keeps a matrix as ``weight_packed`` and ``weight_scale``; gpt-oss keeps the
experts of a layer together, ``<name>_blocks`` uint8 ``[E, N, K / 32, 16]`` and ``<name>_scales`` ``[E, N, K / 32]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_float_matrix
from qmeter_native.kernels.packing.e2m1 import E2M1_TABLE, check_e2m1, pack_e2m1, round_to_e2m1, unpack_e2m1
from qmeter_native.kernels.packing.requirements import required_field, required_tensor
from qmeter_native.kernels.quantized_weight import CodebookWeight

__all__ = ["MXFP4_GROUP", "Mxfp4Config", "pack", "pack_experts", "quantize", "unpack", "unpack_experts"]

MXFP4_GROUP: Final = 32

_BIAS: Final = 127  # of E8M0
_NAN: Final = 255
_SCALE_DTYPES: Final = (torch.uint8, torch.float8_e8m0fnu)
_LARGEST_EXPONENT: Final = 2  # of E2M1: 4 = 2**2


@dataclass(frozen=True, slots=True)
class Mxfp4Config:
    """gpt-oss's ``quantization_config``: the experts are MXFP4, and nothing else.

    Attributes:
        modules_to_not_convert: Names of modules left as they are.
    """

    modules_to_not_convert: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Mxfp4Config:
        """Read ``quantization_config``; `UsageError` names a field that is not supported."""
        required_field("mxfp4", "quant_method", fields.get("quant_method"), ("mxfp4",))
        return cls(tuple(fields.get("modules_to_not_convert") or ()))

    def to_dict(self) -> dict[str, Any]:
        """The fields as ``config.json`` has them."""
        return {"quant_method": "mxfp4", "modules_to_not_convert": list(self.modules_to_not_convert)}


def quantize(weight: Any, *, rounding: str = "floor") -> CodebookWeight:
    """Round a matrix to MXFP4.

    Args:
        weight: Floating point ``[N, K]``, K a multiple of 32.
        rounding: How the scale follows from a group's largest magnitude m. ``floor``: ``2 ** (floor(log2 m) - 2)``, the
            specification's (6.3), under which magnitudes between 6 and 8 scales saturate; ``even``: m is first rounded
            to E2M1's precision, so that 7 scales and more get the next scale, as compressed-tensors does.
    """
    check_float_matrix("weight", weight)
    required_field("mxfp4", "rounding", rounding, ("floor", "even"))
    n, k = weight.shape
    if k % MXFP4_GROUP:
        raise UsageError(f"weight has {k} inputs", f"MXFP4 needs a multiple of {MXFP4_GROUP}.")
    groups = weight.float().reshape(n, k // MXFP4_GROUP, MXFP4_GROUP)
    fraction, exponent = torch.frexp(groups.abs().amax(-1))  # fraction in [0.5, 1)
    exponent = exponent - 1
    if rounding == "even":
        exponent = exponent + (fraction >= 0.875)  # 1.75 and more is nearer to 2 than to 1.5
    exponent = (exponent - _LARGEST_EXPONENT).clamp(-_BIAS, _BIAS).where(fraction > 0, -_BIAS)
    scales = _power_of_two(exponent + _BIAS)
    codes = round_to_e2m1(groups / scales[..., None])
    return CodebookWeight(codes.reshape(n, k), E2M1_TABLE.to(weight.device), scales, MXFP4_GROUP)


def pack(weight: CodebookWeight) -> dict[str, Any]:
    """compressed-tensors' tensors: ``weight_packed`` uint8 ``[N, K / 2]``, ``weight_scale`` uint8 ``[N, K / 32]``.

    Raises:
        UsageError: Another table or group size, or a scale that is no power of two.
    """
    return {"weight_packed": pack_e2m1(weight.codes), "weight_scale": _exponent_codes(weight)}


def unpack(tensors: Mapping[str, Any]) -> CodebookWeight:
    """Read what `pack` writes.

    Raises:
        UsageError: A tensor is missing, or of another type or shape; a scale is NaN.
    """
    packed = required_tensor(tensors, "weight_packed", [torch.uint8], None, None)
    n, k = packed.shape[0], 2 * packed.shape[1]
    if k % MXFP4_GROUP:
        raise UsageError(f"weight_packed has {k} inputs", f"MXFP4 needs a multiple of {MXFP4_GROUP}.")
    scales = required_tensor(tensors, "weight_scale", _SCALE_DTYPES, n, k // MXFP4_GROUP)
    return _weight(unpack_e2m1(packed), "weight_scale", scales)


def pack_experts(name: str, experts: Sequence[CodebookWeight]) -> dict[str, Any]:
    """gpt-oss's tensors of a projection such as ``gate_up_proj`` (gate and up in turn: rows 0, 2, …, and 1, 3, …)."""
    scales = torch.stack([_exponent_codes(weight) for weight in experts])
    blocks = torch.stack([pack_e2m1(weight.codes) for weight in experts]).unflatten(-1, (-1, MXFP4_GROUP // 2))
    return {f"{name}_blocks": blocks, f"{name}_scales": scales}


def unpack_experts(name: str, tensors: Mapping[str, Any]) -> list[CodebookWeight]:
    """The experts of gpt-oss's projection ``name``, each ``[N, K]``; raises as `unpack` does."""
    scales_name = f"{name}_scales"
    blocks = required_tensor(tensors, f"{name}_blocks", [torch.uint8], None, None, None, MXFP4_GROUP // 2)
    scales = required_tensor(tensors, scales_name, _SCALE_DTYPES, *blocks.shape[:3])
    codes = unpack_e2m1(blocks).flatten(2)
    return [_weight(codes[expert], scales_name, scales[expert]) for expert in range(blocks.shape[0])]


def _weight(codes: Any, name: str, scales: Any) -> CodebookWeight:
    """The weight of codes and of the biased exponents that the tensor ``name`` holds."""
    num_nan = int((scales.view(torch.uint8) == _NAN).sum())
    if num_nan:
        raise UsageError(f"{name} holds {num_nan} times 255, E8M0's NaN", None)
    return CodebookWeight(codes, E2M1_TABLE.to(codes.device), _power_of_two(scales.view(torch.uint8)), MXFP4_GROUP)


def _power_of_two(biased: Any) -> Any:
    """float32 of biased exponents 0 to 254; 0 gives 2**-127, a subnormal number."""
    return biased.to(torch.uint8).view(torch.float8_e8m0fnu).float()


def _exponent_codes(weight: CodebookWeight) -> Any:
    """The scales' biased exponents, uint8 ``[N, K / 32]``."""
    check_e2m1(weight, MXFP4_GROUP)
    fraction, exponent = torch.frexp(weight.scales.double())
    exponent = exponent - 1 + _BIAS
    if not bool(((fraction == 0.5) & (exponent >= 0) & (exponent < _NAN)).all()):
        raise UsageError("the weight has scales that are no powers of two", "MXFP4 stores their exponents only.")
    return exponent.to(torch.uint8)
