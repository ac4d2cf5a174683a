"""torch's own 4-bit kernel, once ``tinygemm``: ``w = (code - 8) * scale + zero``, bfloat16 only."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from qmeter_native.benchmark.contender import Contender, Product, require
from qmeter_native.kernels.packing.requirements import integer_zeros

__all__ = ["contenders", "packed_pairs", "scales_and_zeros"]

_INNER_TILES: Final = 8
"""Tiles of 16 inputs that lie together: the most, for the widest loads."""
_GROUPS: Final = (32, 64, 128, 256)
_CENTRE: Final = 8


def contenders(vllm_ops: Path | None) -> tuple[Contender, ...]:
    """``aten::_weight_int4pack_mm``."""
    labels = ("W4A16-INT g128", "W4A16-INT g128 zp", "W4A16-INT g64 HQQ")
    return (Contender("torch.tinygemm", labels, _prepare, (8, 0), dtypes=("bfloat16",)),)


def packed_pairs(codes: Any) -> Any:
    """uint8 ``[N, K / 2]``: of two inputs the first in the high nibble."""
    return (codes[:, ::2] << 4) | codes[:, 1::2]


def scales_and_zeros(weight: Any) -> Any:
    """bfloat16 ``[K / G, N, 2]``: the scale, and what a code of 8 stands for."""
    scales = weight.scales.float()
    is_float = weight.zeros is not None and weight.zeros.is_floating_point()
    zeros = (weight.zeros if is_float else integer_zeros(weight)).float()
    return torch.stack((scales.t(), ((_CENTRE - zeros) * scales).t()), 2).to(torch.bfloat16).contiguous()


def _prepare(weight: Any, dtype: Any) -> Product:
    n, k = weight.shape
    require(weight.group_of is None, "it knows no act-order")
    require(weight.bits == 4 and weight.group_size in _GROUPS, f"it takes 4 bits in groups of {_GROUPS}")
    require(n % 8 == 0 and k % (16 * _INNER_TILES) == 0, "it takes N in multiples of 8 and K of 128")
    tiles = torch.ops.aten._convert_weight_to_int4pack(packed_pairs(weight.codes), _INNER_TILES)
    scales = scales_and_zeros(weight)
    group = weight.group_size
    return lambda activation: torch.ops.aten._weight_int4pack_mm(activation.values, tiles, group, scales)
