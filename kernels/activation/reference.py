"""The quantizers of activations in plain torch: the definition, and what machines without a GPU run.

Codes, scales and zero points of `quantize_token`, `quantize_group` and `quantize_tensor` are those of the kernels to
the bit. Behind SiLU or RMS norm a code may be off by one, since the kernels sum in another order.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = [
    "quantize_group_reference",
    "quantize_tensor_reference",
    "quantize_token_reference",
    "rms_norm_quantize_reference",
    "silu_and_mul_quantize_reference",
]

FLOOR = 2.0**-64
"""Amounts below count as this much, so that no scale is 0 and no reciprocal overflows."""

LIMITS = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""The magnitude that a symmetric scale gives to the largest element."""


def quantize_token_reference(
    x: Any, dtype: Any = torch.int8, symmetric: bool = True, power_of_two: bool = False
) -> tuple[Any, ...]:
    """As `quantize.quantize_token`."""
    x = x.float()
    if not symmetric:
        return _asymmetric(x)
    scales, inverse = _symmetric_scale(x, dtype, power_of_two)
    return _round(x * inverse, dtype), scales[..., 0]


def quantize_group_reference(
    x: Any, group: int = 128, dtype: Any = torch.float8_e4m3fn, power_of_two: bool = False
) -> tuple[Any, Any]:
    """As `quantize.quantize_group`."""
    width = x.shape[-1]
    groups = torch.nn.functional.pad(x.float(), (0, -width % group)).unflatten(-1, (-1, group))
    scales, inverse = _symmetric_scale(groups, dtype, power_of_two)
    codes = _round(groups * inverse, dtype).flatten(-2)[..., :width]
    return codes.contiguous(), scales[..., 0]


def quantize_tensor_reference(x: Any, scale: Any, dtype: Any = torch.float8_e4m3fn) -> Any:
    """As `quantize.quantize_tensor`."""
    return _round(x.float() * (1.0 / scale.float()), dtype)


def silu_and_mul_quantize_reference(
    x: Any, dtype: Any = torch.float8_e4m3fn, group: int | None = None, scale: Any | None = None
) -> tuple[Any, Any]:
    """As `quantize.silu_and_mul_quantize`."""
    gate, up = x.float().chunk(2, dim=-1)
    product = torch.nn.functional.silu(gate) * up
    if scale is not None:
        return quantize_tensor_reference(product, scale, dtype), scale
    if group is not None:
        return quantize_group_reference(product, group, dtype)
    codes, scales = quantize_token_reference(product, dtype)
    return codes, scales


def rms_norm_quantize_reference(
    x: Any, gamma: Any, eps: float, dtype: Any = torch.int8, residual: Any | None = None
) -> tuple[Any, Any]:
    """As `rms_norm.rms_norm_quantize`; adds to ``residual`` in place."""
    if residual is not None:
        residual += x
        x = residual
    wide = x.float()
    normed = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps) * gamma.float()
    if dtype in LIMITS:
        codes, scales = quantize_token_reference(normed, dtype)
        return codes, scales
    return normed.to(dtype), None


def _symmetric_scale(x: Any, dtype: Any, power_of_two: bool) -> tuple[Any, Any]:
    """Scale and reciprocal over the last dimension, kept with size 1."""
    limit = torch.tensor(LIMITS[dtype], device=x.device)
    peak = x.abs().amax(dim=-1, keepdim=True).clamp(min=FLOOR)
    scales = peak / limit
    if power_of_two:
        rounded_up = ((scales.view(torch.int32) + 0x7FFFFF) & 0x7F800000).view(torch.float32)
        scales = torch.where(peak.isfinite(), rounded_up, scales)
        return scales, 1.0 / scales
    return scales, limit / peak


def _asymmetric(x: Any) -> tuple[Any, Any, Any]:
    steps = torch.tensor(255.0, device=x.device)
    low = x.amin(dim=-1, keepdim=True).clamp(max=0)
    high = x.amax(dim=-1, keepdim=True).clamp(min=0)
    peak = x.abs().amax(dim=-1, keepdim=True)
    span = torch.where(peak.isfinite(), (high - low).clamp(min=FLOOR), peak)
    inverse = steps / span
    zeros = -128 - (low * inverse).round().nan_to_num(0)
    codes = ((x * inverse).round().nan_to_num(0) + zeros).clamp(-128, 127)
    return codes.to(torch.int8), (span / steps)[..., 0], zeros[..., 0].to(torch.int32)


def _round(x: Any, dtype: Any) -> Any:
    if dtype == torch.int8:
        return x.round().nan_to_num(0).clamp(-128, 127).to(torch.int8)
    return x.clamp(-448.0, 448.0).to(dtype)
