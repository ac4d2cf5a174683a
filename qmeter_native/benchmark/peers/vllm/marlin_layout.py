"""How Marlin wants scales and zero points (Frantar et al., PPoPP 2025; layout as in vLLM 0.26).

Its tensor cores' fragments give a thread outputs 8 apart; scales are ordered so that one load brings what it needs.
"""

from __future__ import annotations

from typing import Any

import torch

from qmeter_native.kernels.packing.bits import pack_bits

__all__ = ["channel_scales", "float8_e5m3_scales", "group_scales", "group_zeros"]

_INTERLEAVE_4 = (0, 2, 4, 6, 1, 3, 5, 7)


def group_scales(scales: Any) -> Any:
    """``[G, N]``, of every 64 outputs one of each eighth in turn: 0, 8, 16 …, 1, 9 …; N is a multiple of 64."""
    groups, n = scales.shape
    return scales.reshape(groups, n // 64, 8, 8).transpose(2, 3).reshape(groups, n).contiguous()


def channel_scales(scales: Any) -> Any:
    """``[1, N]``, of every 32 outputs 0, 1, 8, 9, 16, 17, 24, 25, then 2, 3, 10 …; N is a multiple of 32."""
    n = scales.numel()
    return scales.reshape(n // 32, 4, 4, 2).transpose(1, 2).reshape(1, n).contiguous()


def group_zeros(zeros: Any) -> Any:
    """int32 ``[G, N / 8]`` from codes ``[G, N]``: ordered as scales, then eight to a word, even ones first."""
    ordered = group_scales(zeros)
    groups, n = ordered.shape
    interleaved = ordered.reshape(groups, n // 8, 8)[:, :, list(_INTERLEAVE_4)].reshape(groups, n)
    return pack_bits(interleaved.contiguous(), 4, torch.int32, 1)


def float8_e5m3_scales(scales: Any) -> Any:
    """NVFP4's scales ``[G, N]`` in ``group_scales``' order: without sign, five bits of exponent, three of mantissa.

    A scale times 128, as float16 shifted left by one bit, has those eight bits in its upper byte; below 2 they would
    lose their leading one and count as zero. Stored as float8_e4m3fn; of every four outputs the middle two swap.
    """
    groups, n = scales.shape
    swapped = scales.half().reshape(-1, 4)[:, [0, 2, 1, 3]].reshape(groups, n)
    raised = swapped * 2.0**7
    raised = torch.where(raised < 2, 0.0, raised)
    return (raised.view(torch.int16) << 1).view(torch.float8_e4m3fn)[:, 1::2].contiguous()
