"""A load: one kernel that can be launched at will, on random data, whose work is known by arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Final

from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.power_model import PowerFeature

__all__ = ["Launch", "LoadKernel", "num_sets", "random_half", "rotating"]

Launch = Callable[[], None]
"""Launches one kernel on torch's current stream; each call takes the next set of weights."""

_L2_SETS: Final = 4
"""Data of a kernel's launches in turn, over L2's size: less would be served from L2 in part."""
_DEFAULT_L2_BYTES: Final = 60 << 20
"""An H200's, where torch does not say."""


@dataclass(frozen=True, slots=True)
class LoadKernel:
    """One kind of kernel.

    Attributes:
        name: Stable short name, such as ``fp8_gemm_m16``.
        family: What it is for.
        shape: Its sizes, for people.
        work: By `PowerFeature`, the least bytes and operations of one launch.
        build: Makes the data on a CUDA ordinal and returns the launch. May raise whatever torch or triton raise.
        data: What it reads, for people. Always random, and never what another launch wrote: a norm of its own output
            is all zeros but one column after a hundred launches, and draws a quarter less.
        is_quantized: Whether it multiplies by weights of 8 bits or less.
    """

    name: str
    family: OpFamily
    shape: str
    work: Mapping[PowerFeature, float] = field(repr=False)
    build: Callable[[int], Launch] = field(repr=False)
    data: str
    is_quantized: bool = False


def num_sets(device: int, set_bytes: float) -> int:
    """Sets of data that a kernel must go through so that none is still in L2 when its turn comes again; at least 2."""
    import torch

    properties = torch.cuda.get_device_properties(device)
    l2_bytes = int(getattr(properties, "L2_cache_size", 0)) or _DEFAULT_L2_BYTES
    return max(2, -int(-_L2_SETS * l2_bytes // set_bytes))


def rotating(launches: Sequence[Launch]) -> Launch:
    """One launch after the other, from the first again after the last."""
    turns = cycle(launches)
    return lambda: next(turns)()


def random_half(device: int, *shape: int, dtype: str = "float16", scale: float = 1.0) -> Any:
    """Normal random numbers on a device: power depends on the bits that toggle, and zeros toggle none."""
    import torch

    values = torch.empty(shape, dtype=getattr(torch, dtype), device=f"cuda:{device}")
    return values.normal_(std=scale)
