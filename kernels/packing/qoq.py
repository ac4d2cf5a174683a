"""QoQ: QServe's 4-bit weights for 8-bit activations, with a scale an output, or with int8 scales of groups inside it.

By channel, w = (q - z) * s1; a layer of N outputs and K inputs stores

- ``qweight`` int8 ``[N, K / 2]``, interleaved as below; ``s1_scales`` float16 ``[N]``;
- ``s1_szeros`` float16 ``[N]``, z * s1.

By group of 128 inputs ("progressive"), w = ((q - z) * s2) * s1, where (q - z) * s2 is an int8 that the tensor cores
multiply:

- ``qweight``, ``s1_scales`` as above; ``s2_scales`` int8 ``[K / 128, N]``; ``s2_zeros`` int8 ``[K / 128, N]``, -z * s2
  modulo 256; both with each 32 outputs in the order 0, 8, 16, 24, 1, 9, ….

A tile of 32 outputs and 32 inputs takes 512 consecutive bytes in the order in which threads hold operands of
``mma.m16n8k32``; a byte's low nibble is of output n, its high nibble of output n + 16 (omniserve, w4a8_linear.py).

Why the inner level cannot overflow (Lin et al., QServe, 2024, section 4.1): rows are rounded to ±119, so that a group
spans at most 238 and s2 is at most round(238 / 15) = 16; rounding to its multiples moves a value by 8 at most: ±127.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_float_matrix
from qmeter_native.kernels.packing.requirements import integer_zeros, required_field, required_tensor, same_values
from qmeter_native.kernels.packing.rounding import round_asymmetric
from qmeter_native.kernels.quantized_weight import IntegerWeight, ProgressiveWeight

__all__ = ["PROTECTIVE_RANGE", "QoqConfig", "pack", "quantize", "unpack"]

PROTECTIVE_RANGE: Final = 119
"""The largest magnitude of the first level's int8."""

_TILE: Final = 32  # outputs and inputs
_LARGEST_SCALE: Final = 17  # 15 * 17 = 255: products of codes and group scales are bytes
_SMALLEST_SCALE: Final = 2**-24  # of float16: a row of zeros gets it
_INTERLEAVED: Final = (0, 4, 3, 6, 5, 2, 7, 1)  # of N/32, 2, 2, 8, K/32, 2, 4, 4; the last one: the two nibbles
_STRAIGHT: Final = (0, 7, 5, 2, 1, 4, 3, 6)  # its inverse


@dataclass(frozen=True, slots=True)
class QoqConfig:
    """How a checkpoint's layers are stored. QServe's own have no ``quantization_config``, their folder's name says it.

    Attributes:
        group_size: 128, or -1: a scale an output.
        modules_to_not_convert: Names of modules left as they are.
    """

    group_size: int = 128
    modules_to_not_convert: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        required_field("qoq", "group_size", self.group_size, (128, -1))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> QoqConfig:
        """Read ``quantization_config``.

        Raises:
            UsageError: A field has a value that is not supported.
        """
        required_field("qoq", "quant_method", config.get("quant_method"), ("qoq", "qserve"))
        required_field("qoq", "bits", config.get("bits", config.get("w_bit", 4)), (4,))
        return cls(config.get("group_size", 128), tuple(config.get("modules_to_not_convert") or ()))

    def to_dict(self) -> dict[str, Any]:
        """The fields of ``quantization_config``."""
        skipped = list(self.modules_to_not_convert)
        return {"quant_method": "qoq", "bits": 4, "group_size": self.group_size, "modules_to_not_convert": skipped}

    def check_layer(self, name: str, num_outputs: int, num_inputs: int) -> None:
        """Refuse a layer that the format cannot hold.

        Raises:
            UsageError: Naming the layer and what does not divide.
        """
        size = f"{name} is {num_outputs} x {num_inputs}"
        if num_outputs % _TILE or num_inputs % _TILE:
            raise UsageError(size, f"QoQ interleaves tiles of {_TILE} x {_TILE}.")
        if self.group_size != -1 and num_inputs % self.group_size:
            raise UsageError(size, f"Groups of {self.group_size} inputs must fill it.")


def quantize(weight: Any, config: QoqConfig) -> IntegerWeight | ProgressiveWeight:
    """Round a floating-point matrix ``[N, K]``, by channel to `IntegerWeight`, by group to `ProgressiveWeight`.

    A row's scale is its largest magnitude over 119, a group's is its range in those units over 15, to the nearest.

    Raises:
        UsageError: N or K is no multiple of 32, or K not of the group size.
    """
    check_float_matrix("weight", weight)
    n, k = weight.shape
    config.check_layer("the layer", n, k)
    if config.group_size == -1:
        return round_asymmetric(weight, 4, -1)
    scales = (weight.float().abs().amax(1) / PROTECTIVE_RANGE).clamp_min(_SMALLEST_SCALE).half()
    outer = (weight.float() / scales.float()[:, None]).round().clamp(-PROTECTIVE_RANGE, PROTECTIVE_RANGE)
    groups = outer.reshape(n, k // config.group_size, config.group_size)
    low, high = groups.amin(2).clamp_max(0), groups.amax(2).clamp_min(0)
    steps = ((high - low) / 15).round().clamp_min(1)
    zeros = (-low / steps).round()
    codes = ((groups / steps[:, :, None]).round() + zeros[:, :, None]).clamp(0, 15).to(torch.uint8)
    return ProgressiveWeight(
        codes.reshape(n, k), steps.to(torch.int8), zeros.clamp(0, 15).to(torch.uint8), scales, config.group_size
    )


def pack(weight: IntegerWeight | ProgressiveWeight) -> dict[str, Any]:
    """The tensors of a layer, by channel or by group as the weight is.

    Raises:
        UsageError: Sizes, groups, scales or zero points that the layout does not hold, or an inner level beyond int8.
    """
    n, k = weight.shape
    if isinstance(weight, ProgressiveWeight):
        config = QoqConfig(weight.group_size)
        config.check_layer("the layer", n, k)
        _check_inner(weight)
        steps = weight.group_scales
        shifts = -weight.zeros.short() * steps.short()
        inner = {
            "s2_scales": _order_outputs(steps),
            "s2_zeros": _order_outputs(shifts.to(torch.uint8).view(torch.int8)),
        }
        return {"qweight": _interleave(weight.codes), "s1_scales": _half(weight.scales)} | inner
    QoqConfig(-1).check_layer("the layer", n, k)
    required_field("qoq", "bits", weight.bits, (4,))
    required_field("qoq", "groups of a row", weight.scales.shape[1], (1,))
    scales = _half(weight.scales[:, 0])
    shifts = (integer_zeros(weight)[:, 0].float() * scales.float()).half()
    return {"qweight": _interleave(weight.codes), "s1_scales": scales, "s1_szeros": shifts}


def unpack(tensors: Mapping[str, Any], config: QoqConfig) -> IntegerWeight | ProgressiveWeight:
    """Read what `pack` or QServe wrote.

    Raises:
        UsageError: A tensor is missing, or of another type or shape, or holds what no zero point from 0 to 15 gives.
    """
    packed = required_tensor(tensors, "qweight", [torch.int8], None, None)
    n, k = packed.shape[0], 2 * packed.shape[1]
    config.check_layer("the layer", n, k)
    codes = _straighten(packed)
    scales = required_tensor(tensors, "s1_scales", [torch.float16], n)
    if config.group_size == -1:
        shifts = required_tensor(tensors, "s1_szeros", [torch.float16], n)
        zeros = _zero_points("s1_szeros", lambda zero: (zero * scales.float()).half() == shifts, scales)
        return IntegerWeight(codes, scales[:, None], zeros[:, None], 4, k)
    sizes = k // config.group_size, n
    steps = _straighten_outputs(required_tensor(tensors, "s2_scales", [torch.int8], *sizes))
    if not bool(((steps >= 1) & (steps <= _LARGEST_SCALE)).all()):
        raise UsageError(
            f"s2_scales reach from {int(steps.min())} to {int(steps.max())}", f"They are from 1 to {_LARGEST_SCALE}."
        )
    stored = _straighten_outputs(required_tensor(tensors, "s2_zeros", [torch.int8], *sizes))
    shifts = stored.view(torch.uint8).short()
    zeros = _zero_points("s2_zeros", lambda zero: (zero * steps.short() + shifts) % 256 == 0, steps)
    weight = ProgressiveWeight(codes, steps, zeros, scales, config.group_size)
    _check_inner(weight)
    return weight


def _check_inner(weight: ProgressiveWeight) -> None:
    """Refuse group scales and codes whose products leave a byte, or int8 once the zero point is subtracted."""
    steps = weight.group_scales
    if not bool(((steps >= 1) & (steps <= _LARGEST_SCALE)).all()):
        raise UsageError(
            f"group scales reach from {int(steps.min())} to {int(steps.max())}",
            f"QoQ's are from 1 to {_LARGEST_SCALE}.",
        )
    groups = weight.codes.short().unflatten(1, (-1, weight.group_size)) - weight.zeros.short()[:, :, None]
    inner = groups * steps.short()[:, :, None]
    if not -128 <= int(inner.min()) <= int(inner.max()) <= 127:
        raise UsageError(
            f"the inner level reaches from {int(inner.min())} to {int(inner.max())}",
            f"It must fit int8: quantize within the protective range of {PROTECTIVE_RANGE}.",
        )


def _zero_points(name: str, fits: Any, like: Any) -> Any:
    """The zero points, uint8 of the shape of ``like``: where ``fits`` is true of a number from 0 to 15."""
    matches = torch.stack([fits(zero) for zero in range(16)])
    if not bool(matches.any(0).all()):
        raise UsageError(f"{name} holds what is no product of a scale and a zero point from 0 to 15", None)
    return matches.byte().argmax(0).to(torch.uint8).reshape(like.shape)


def _half(scales: Any) -> Any:
    """Scales as float16, where that changes none."""
    return same_values("scales", scales, torch.float16)


def _interleave(codes: Any) -> Any:
    """int8 ``[N, K / 2]`` of codes uint8 ``[N, K]``, in the order of the tiles."""
    n, k = codes.shape
    pairs = codes.reshape(n // _TILE, 2, 2, 8, k // _TILE, 2, 4, 4).permute(_INTERLEAVED)
    return (pairs[..., 0] | pairs[..., 1] << 4).reshape(n, k // 2).view(torch.int8)


def _straighten(packed: Any) -> Any:
    """Codes uint8 ``[N, K]`` of bytes ``[N, K / 2]``: the inverse of `_interleave`."""
    n, k = packed.shape[0], 2 * packed.shape[1]
    tiles = packed.contiguous().view(torch.uint8).reshape(n // _TILE, k // _TILE, 8, 4, 2, 2, 4)
    return torch.stack([tiles & 15, tiles >> 4], -1).permute(_STRAIGHT).reshape(n, k)


def _order_outputs(groups: Any) -> Any:
    """``[G, N]``, each 32 outputs in the order 0, 8, 16, 24, 1, …, of ``[N, G]``."""
    return groups.T.unflatten(1, (-1, 4, 8)).transpose(-2, -1).flatten(1).contiguous()


def _straighten_outputs(stored: Any) -> Any:
    """``[N, G]`` of what `_order_outputs` gives."""
    return stored.unflatten(1, (-1, 8, 4)).transpose(-2, -1).flatten(1).T.contiguous()
