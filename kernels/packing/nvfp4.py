"""NVFP4: E2M1 codes, an E4M3 scale for every 16 inputs, and one float32 scale for the matrix.

The matrix's scale makes the largest group scale 448, E4M3's largest. Two conventions store it, with reciprocal meaning:

- compressed-tensors: ``weight_packed`` uint8 ``[N, K / 2]``, ``weight_scale`` float8_e4m3fn ``[N, K / 16]``,
  ``weight_global_scale`` float32 ``[1]`` = 448 * 6 / amax; a group's scale is ``weight_scale / weight_global_scale``;
- ModelOpt: ``weight``, ``weight_scale``, of the same shapes, ``weight_scale_2`` float32 scalar = amax / (448 * 6); a
  group's scale is ``weight_scale * weight_scale_2``.

Between the two the matrix's scale changes in its last bit, since a reciprocal is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_float_matrix
from qmeter_native.kernels.packing.e2m1 import (
    E2M1_MAX,
    E2M1_TABLE,
    check_e2m1,
    pack_e2m1,
    round_to_e2m1,
    unpack_e2m1,
)
from qmeter_native.kernels.packing.requirements import required_field, required_tensor
from qmeter_native.kernels.quantized_weight import CodebookWeight

__all__ = ["CONVENTIONS", "NVFP4_GROUP", "pack", "quantize", "scale_of_matrix", "unpack"]

NVFP4_GROUP: Final = 16
CONVENTIONS: Final = ("compressed-tensors", "modelopt")

_E4M3_MAX: Final = 448.0
_EMPTY_SCALE: Final = 0.125  # compressed-tensors' scale of a group that rounds to zeros
_TOLERANCE: Final = 2**-22  # four times float32's rounding: of a reciprocal, of it stored, and of scales from either


def scale_of_matrix(weight: Any) -> Any:
    """float32 ``448 * 6 / amax`` of a matrix, which makes the largest scale of its groups 448; 1 of zeros."""
    largest = weight.abs().amax().float()
    scale = _E4M3_MAX * E2M1_MAX / largest.clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where(scale.isfinite(), scale, 1.0)


def quantize(weight: Any, global_scale: Any | None = None) -> CodebookWeight:
    """Round a matrix to NVFP4, as compressed-tensors does.

    Args:
        weight: Floating point ``[N, K]``, K a multiple of 16.
        global_scale: float32 with one element, ``448 * 6 / amax`` of all matrices that shall share it (the parts of a
            fused projection); None: of this matrix.
    """
    check_float_matrix("weight", weight)
    n, k = weight.shape
    if k % NVFP4_GROUP:
        raise UsageError(f"weight has {k} inputs", f"NVFP4 needs a multiple of {NVFP4_GROUP}.")
    groups = weight.float().reshape(n, k // NVFP4_GROUP, NVFP4_GROUP)
    largest = groups.abs().amax(-1)
    if global_scale is None:
        global_scale = scale_of_matrix(weight)
    stored = (global_scale * (largest / E2M1_MAX)).clamp(max=_E4M3_MAX).to(torch.float8_e4m3fn).float()
    scales = torch.where(stored == 0, _EMPTY_SCALE, stored) / global_scale
    codes = round_to_e2m1(groups / scales[..., None])
    return CodebookWeight(codes.reshape(n, k), E2M1_TABLE.to(weight.device), scales, NVFP4_GROUP)


def pack(
    weight: CodebookWeight, convention: str = "compressed-tensors", global_scale: Any | None = None
) -> dict[str, Any]:
    """The tensors of a layer.

    Args:
        weight: In groups of 16.
        convention: "compressed-tensors" or "modelopt".
        global_scale: Scale of the matrix to store, in the convention's meaning, float32 with one element; None: found
            from the scales.

    Raises:
        UsageError: The weight is not E2M1, or its scales are no E4M3 numbers times one number.
    """
    required_field("nvfp4", "convention", convention, CONVENTIONS)
    check_e2m1(weight, NVFP4_GROUP)
    stored, matrix_scale = _factor(weight.scales.float(), convention, global_scale)
    packed = pack_e2m1(weight.codes)
    if convention == "modelopt":
        return {"weight": packed, "weight_scale": stored, "weight_scale_2": matrix_scale}
    return {"weight_packed": packed, "weight_scale": stored, "weight_global_scale": matrix_scale[None]}


def unpack(tensors: Mapping[str, Any]) -> CodebookWeight:
    """Read a layer of either convention, told by its names.

    Raises:
        UsageError: A tensor is missing, or of another type or shape; a scale is negative or NaN.
    """
    convention = "modelopt" if "weight_scale_2" in tensors else "compressed-tensors"
    name = "weight" if convention == "modelopt" else "weight_packed"
    packed = required_tensor(tensors, name, [torch.uint8], None, None)
    n, k = packed.shape[0], 2 * packed.shape[1]
    if k % NVFP4_GROUP:
        raise UsageError(f"{name} has {k} inputs", f"NVFP4 needs a multiple of {NVFP4_GROUP}.")
    stored = required_tensor(tensors, "weight_scale", [torch.float8_e4m3fn], n, k // NVFP4_GROUP).float()
    if not bool((stored >= 0).all()):
        raise UsageError("weight_scale holds a negative number or NaN", "NVFP4's scales are positive.")
    name = "weight_scale_2" if convention == "modelopt" else "weight_global_scale"
    matrix_scale = _scalar(tensors, name)
    scales = _decoded(stored, matrix_scale, convention)
    return CodebookWeight(unpack_e2m1(packed), E2M1_TABLE.to(packed.device), scales, NVFP4_GROUP)


def _scalar(tensors: Mapping[str, Any], name: str) -> Any:
    """A positive float32 of shape ``[]`` or ``[1]``, as ``[]``."""
    shape = (1,) if name in tensors and tensors[name].ndim else ()
    scale = required_tensor(tensors, name, [torch.float32], *shape).reshape(())
    if not 0 < scale.item() < float("inf"):
        raise UsageError(f"{name} is {scale.item():g}", "It must be positive.")
    return scale


def _decoded(stored: Any, matrix_scale: Any, convention: str) -> Any:
    """Scales float32 of stored scales and the matrix's."""
    return stored * matrix_scale if convention == "modelopt" else stored / matrix_scale


def _factor(scales: Any, convention: str, matrix_scale: Any | None) -> tuple[Any, Any]:
    """Scales as float8_e4m3fn ``[N, G]``, and the matrix's as float32 ``[]``, which decode to ``scales``.

    The largest scale is one of E4M3's 126 positive numbers; each of them, and the two float32 to either side, gives a
    candidate of the matrix's scale, and the one under which all scales decode best is taken: 448 first, which is what
    every library stores unless matrices share a scale.
    """
    values = scales.unique()
    e4m3 = torch.arange(1, 127, dtype=torch.uint8, device=scales.device).view(torch.float8_e4m3fn).double().flip(0)
    if values.numel() > e4m3.numel() + 1 or not bool((values >= 0).all()):
        raise UsageError(f"the weight has {values.numel()} different scales, or negative ones", "E4M3 has 126.")
    largest = values[-1].double() if values[-1] > 0 else torch.ones_like(values[-1], dtype=torch.float64)
    if matrix_scale is None:
        exact = largest / e4m3 if convention == "modelopt" else e4m3 / largest
        neighbours = torch.arange(-2, 3, dtype=torch.int32, device=scales.device)
        candidates = (exact.float().view(torch.int32)[:, None] + neighbours).view(torch.float32).flatten()
    else:
        candidates = matrix_scale.float().reshape(1)
    stored = _encoded(values, candidates[:, None], convention)
    errors = (_decoded(stored.float(), candidates[:, None], convention) - values).abs().double() / values.clamp_min(
        torch.finfo(torch.float32).tiny
    )
    worst = errors.amax(1).nan_to_num(nan=float("inf"))
    best = worst.argmin()
    if worst[best] > _TOLERANCE:
        raise UsageError("the weight's scales are no E4M3 numbers times one number", "Quantize it to NVFP4 anew.")
    return _encoded(scales, candidates[best], convention), candidates[best]


def _encoded(scales: Any, matrix_scale: Any, convention: str) -> Any:
    """The nearest float8_e4m3fn of scales under the matrix's."""
    matrix_scale = matrix_scale.double()
    ratio = scales.double() / matrix_scale if convention == "modelopt" else scales.double() * matrix_scale
    return ratio.clamp(max=_E4M3_MAX).float().to(torch.float8_e4m3fn)
