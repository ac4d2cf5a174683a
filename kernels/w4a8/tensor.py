"""A 4-bit weight as the kernel of 8-bit activations reads it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_dtype, check_shape
from qmeter_native.kernels.quantized_weight import IntegerWeight, ProgressiveWeight
from qmeter_native.kernels.scaled.tensor import SPLIT_TILES
from qmeter_native.kernels.w4a8.layout import INPUTS, by_block, from_blocks, to_blocks

__all__ = ["CHANNEL", "FP8", "PROGRESSIVE", "W4A8Tensor"]

PROGRESSIVE = "progressive"
CHANNEL = "channel"
FP8 = "fp8"

_GROUP = INPUTS // 2


@dataclass(frozen=True, slots=True)
class W4A8Tensor:
    """A weight of one of three kinds. Build it with `prepare`.

    - ``progressive`` (QoQ with groups): int8 activations, ``w = int8((q - z) * s) * scales[n]``.
    - ``channel`` (QoQ by channel): int8 activations, ``w = (q - zeros[n]) * scales[n]``.
    - ``fp8``: FP8 activations, ``w = (q - 8) * groups[n, g]``.

    Attributes:
        kind: One of these.
        codes: uint8 ``[tiles, blocks, 8192]``, see `layout`. With ``fp8`` a nibble is the magnitude of 0 to 7, and of
            -1 to -8 the magnitude less one with bit 3 set, which one multiplication decodes to E4M3 times 2^-9.
        groups: ``fp8``: int32 ``[tiles, blocks, 64]``, the 16-bit scales of the first 128 inputs (low half) and of the
            others, or float32 ``[tiles, blocks, 2, 64]``. ``progressive``: int32 ``[tiles, blocks, 64]`` with bytes s,
            z of the first 128 inputs and s, z of the others. ``channel``: None.
        scales: float32 ``[N]``; None with ``fp8``.
        zeros: int32, or where not whole float32, ``[N]``, with ``channel``; else None.
        counters: int32 ``[SPLIT_TILES]``, zeros: programs that share an output tile count their arrival here. A weight
            must therefore not be multiplied in two streams at once.
        shape: N, K.
        scales_dtype: Of the scales in ``groups``, with ``fp8``.
    """

    kind: str
    codes: Any
    groups: Any | None
    scales: Any | None
    zeros: Any | None
    counters: Any
    shape: tuple[int, int]
    scales_dtype: Any | None = None

    @classmethod
    def prepare(cls, weight: IntegerWeight | ProgressiveWeight) -> W4A8Tensor:
        """Lay out a `ProgressiveWeight`, or a 4-bit `IntegerWeight`: with zero points and one group a row for int8
        activations, symmetric for FP8 activations.

        Raises:
            UsageError: Other widths, groups that are no multiple of 128 inputs, act-order, zero points of groups.
        """
        check_dtype("weight.codes", weight.codes, torch.uint8)
        check_shape("weight.codes", weight.codes, None, None)
        if weight.group_size % _GROUP and weight.group_size < weight.shape[1]:
            raise UsageError(
                f"weight.group_size is {weight.group_size}", "It must be a multiple of 128, or all inputs."
            )
        if isinstance(weight, ProgressiveWeight):
            return _prepare_progressive(weight)
        if weight.bits != 4:
            raise UsageError(f"weight.bits is {weight.bits}", "It must be 4.")
        if weight.group_of is not None:
            raise UsageError("weight.group_of is given (act-order)", "Reorder inputs so that groups are consecutive.")
        return _prepare_fp8(weight) if weight.zeros is None else _prepare_channel(weight)

    @property
    def dtype(self) -> Any:
        """Of activations that can be multiplied with it."""
        return torch.float8_e4m3fn if self.kind == FP8 else torch.int8

    @property
    def num_bytes(self) -> int:
        """What a product reads of the weight."""
        return sum(tensor.nbytes for name, tensor in self.tensors().items() if name != "counters")

    def tensors(self) -> dict[str, Any]:
        """By attribute."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}

    def to(self, device: Any) -> W4A8Tensor:
        """On another device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def integers(self) -> Any:
        """What the tensor cores multiply, int8 ``[N, K]``."""
        n, k = self.shape
        codes = from_blocks(self.codes, n, k).to(torch.int32)
        if self.kind == FP8:
            codes = torch.where(codes < 8, codes, 7 - codes)
        elif self.groups is not None:
            words = self.groups.permute(0, 2, 1).reshape(-1, self.groups.shape[1])[:n]
            of_half = torch.stack((words & 0xFFFF, words >> 16 & 0xFFFF), dim=-1).flatten(1)
            word = of_half.repeat_interleave(_GROUP, dim=1)[:, :k]
            codes = (codes - (word >> 8)) * (word & 0xFF)
        return codes.to(torch.int8)

    def group_scales(self) -> Any:
        """float32 ``[N, K]`` of an ``fp8`` weight: of each input its group's scale."""
        assert self.groups is not None
        (n, k), scales = self.shape, self.groups
        if scales.dtype == torch.int32:
            halves = torch.stack((scales & 0xFFFF, scales >> 16), dim=2).to(torch.int16)
            scales = halves.view(self.scales_dtype).float()
        by_half = scales.permute(0, 3, 1, 2).reshape(-1, 2 * scales.shape[1])[:n]
        return by_half.repeat_interleave(_GROUP, dim=1)[:, :k]


def _prepare_progressive(weight: ProgressiveWeight) -> W4A8Tensor:
    (n, k), groups = weight.shape, -(-weight.shape[1] // weight.group_size)
    check_dtype("weight.group_scales", weight.group_scales, torch.int8)
    check_shape("weight.group_scales", weight.group_scales, n, groups)
    check_shape("weight.zeros", weight.zeros, n, groups)
    check_shape("weight.scales", weight.scales, n)
    if (weight.group_scales <= 0).any():
        raise UsageError("weight.group_scales holds values below 1", "QoQ's inner scales are 1 to 127.")
    halves = by_block(weight.group_scales.int() | weight.zeros.int() << 8, weight.group_size, k)
    words = halves[:, :, 0] | halves[:, :, 1] << 16
    return _tensor(PROGRESSIVE, weight.codes, words.contiguous(), weight.scales.float().contiguous(), None)


def _prepare_channel(weight: IntegerWeight) -> W4A8Tensor:
    n, k = weight.shape
    if weight.group_size < k:
        hint = "With int8 activations zero points go by output channel; groups need QoQ's inner scales."
        raise UsageError(f"weight has zero points by groups of {weight.group_size} inputs", hint)
    assert weight.zeros is not None
    check_shape("weight.scales", weight.scales, n, 1)
    check_shape("weight.zeros", weight.zeros, n, 1)
    zeros = weight.zeros[:, 0].float()
    if (zeros == zeros.round()).all():
        zeros = zeros.to(torch.int32)
    return _tensor(CHANNEL, weight.codes, None, weight.scales[:, 0].float().contiguous(), zeros.contiguous())


def _prepare_fp8(weight: IntegerWeight) -> W4A8Tensor:
    n, k = weight.shape
    check_shape("weight.scales", weight.scales, n, -(-k // weight.group_size))
    value = weight.codes.to(torch.int8) - 8
    nibbles = torch.where(value >= 0, value, 7 - value).to(torch.uint8)
    scales = by_block(weight.scales, weight.group_size, k)
    if scales.dtype in (torch.float16, torch.bfloat16):
        bits = scales.view(torch.int16).int() & 0xFFFF
        scales = (bits[:, :, 0] | bits[:, :, 1] << 16).contiguous()
    else:
        scales = scales.float()
    return replace(_tensor(FP8, nibbles, scales, None, None), scales_dtype=weight.scales.dtype)


def _tensor(kind: str, codes: Any, groups: Any, scales: Any, zeros: Any) -> W4A8Tensor:
    counters = torch.zeros(SPLIT_TILES, dtype=torch.int32, device=codes.device)
    return W4A8Tensor(kind, to_blocks(codes), groups, scales, zeros, counters, tuple(codes.shape))
