"""Tiles of the weight-only product: from the table of the architecture, or safe ones, and what is worth trying."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.gemm_config import GemmConfig, tuned_config
from qmeter_native.kernels.weight_only.layout import Layout

if TYPE_CHECKING:
    from qmeter_native.kernels.weight_only.tensor import WeightOnlyTensor

__all__ = ["candidate_configs", "check_config", "choose_config", "default_config", "scales_sum"]

SMALL_M = 32
"""Up to these tokens of a tile the sum is scaled, not the weights: of a 64 by 128 tile a thread scales
``block_m / 2`` sums instead of 32 pairs of weights, and no weight is rounded."""


def scales_sum(group_size: int, tile_k: int, block_m: int) -> bool:
    """Whether scales multiply sums of a tile instead of its weights: cheaper for few tokens, and exact."""
    return group_size > 0 and group_size % tile_k == 0 and block_m <= SMALL_M


@dataclass(frozen=True, slots=True)
class _Gpu:
    """What tiles are cut for.

    Attributes:
        multiprocessors: Of the GPU.
        shared_bytes: That a block may have.
    """

    multiprocessors: int
    shared_bytes: int

    @classmethod
    def of(cls, device: Any) -> _Gpu:
        """A device; an H200 for the CPU of the interpreter."""
        if device.type != "cuda":
            return cls(132, 227 << 10)
        found = torch.cuda.get_device_properties(device)
        return cls(found.multi_processor_count, found.shared_memory_per_block_optin)


@cache
def choose_config(layout: Layout, m: int) -> GemmConfig:
    """The table's tiles for this architecture, this format and this size, else safe ones."""
    n, k = layout.shape
    tuned = None
    if layout.device.type == "cuda":
        capability = torch.cuda.get_device_capability(layout.device)
        tuned = tuned_config(f"weight_only_{layout.kind}", capability, m, n, k)
    return check_config(tuned or default_config(layout, m), layout, m)


def default_config(layout: Layout, m: int) -> GemmConfig:
    """Tiles that fit every GPU since Ampere, as many as run at once."""
    gpu = _Gpu.of(layout.device)
    block_m = next((size for size in (16, 32, 64) if m <= size), 128)
    config = GemmConfig(block_m, 128, layout.tile_k, num_warps=8, num_stages=4)
    while config.num_stages > 2 and _shared_bytes(config, layout) > gpu.shared_bytes:
        config = replace(config, num_stages=config.num_stages - 1)
    resident = gpu.multiprocessors * _blocks_of_multiprocessor(config, layout, gpu)
    least_tiles = 4 if block_m <= 64 else 16
    most = max(1, layout.tiles // least_tiles)
    return replace(config, split_k=min(max(1, resident // config.tiles(m, layout.shape[0])), most))


def check_config(config: GemmConfig, layout: Layout, m: int) -> GemmConfig:
    """A configuration that the kernel can run on this weight, from one that may have been found for another.

    ``block_n`` divides the padded outputs, ``block_k`` is some tiles that divide the inputs, and ``split_k`` is 1
    where there are more tiles of the output than counters.

    Raises:
        UsageError: ``block_m`` or ``block_n`` is none that the kernel has.
    """
    if config.block_n not in (64, 128, 256):
        raise UsageError(f"block_n is {config.block_n}", "It must be 64, 128 or 256.")
    if config.block_m < 16 or config.block_m & (config.block_m - 1):
        raise UsageError(f"block_m is {config.block_m}", "It must be a power of two from 16.")
    if layout.padded_shape[0] % config.block_n:
        config = replace(config, block_n=128)
    unroll = max(1, config.block_k // layout.tile_k)
    unroll = unroll if layout.tiles % unroll == 0 else 1
    fits = config.tiles(m, layout.shape[0]) <= layout.num_counters
    return replace(config, block_k=unroll * layout.tile_k, split_k=config.split_k if fits else 1)


def candidate_configs(weight: WeightOnlyTensor, m: int) -> list[GemmConfig]:
    """Tiles worth measuring for ``m`` tokens, `default_config`'s first; those that differ in splits compile once."""
    layout = weight.layout
    gpu = _Gpu.of(layout.device)
    block_ms = [size for size in (16, 32, 64, 128, 256) if size < 2 * m or size == 16][-2:]
    unrolls = (1, 2) if m <= SMALL_M and layout.tiles % 2 == 0 else (1,)
    found = [default_config(layout, m)]
    outputs = ((64, 4), (128, 4), (128, 8), (256, 8))
    for block_m, (block_n, num_warps), unroll, num_stages in product(block_ms, outputs, unrolls, (3, 4, 5)):
        config = GemmConfig(block_m, block_n, unroll * layout.tile_k, 1, num_warps, num_stages)
        if _fits(config, layout, gpu):
            found += [replace(config, split_k=split_k) for split_k in _splits(config, layout, m, gpu)]
    return list(dict.fromkeys(found))


def _splits(config: GemmConfig, layout: Layout, m: int, gpu: _Gpu) -> list[int]:
    """No split, and those that fill the multiprocessors with 1, 2 and so on blocks each at once."""
    blocks = range(1, _blocks_of_multiprocessor(config, layout, gpu) + 1)
    filling = {gpu.multiprocessors * count // config.tiles(m, layout.shape[0]) for count in blocks}
    most = layout.tiles * layout.tile_k // (2 * config.block_k)
    return sorted({1} | {split_k for split_k in filling if 1 < split_k <= min(most, 32)})


def _fits(config: GemmConfig, layout: Layout, gpu: _Gpu) -> bool:
    """Shared memory suffices, and registers: with more than 160 for sums and weights a thread spills."""
    whole = layout.padded_shape[0] % config.block_n == 0
    return whole and sum(_registers(config, layout)) <= 160 and _shared_bytes(config, layout) <= gpu.shared_bytes


def _registers(config: GemmConfig, layout: Layout) -> tuple[int, int]:
    """Of a thread, for sums and for the decoded weights of a tile, two in each."""
    threads = 32 * config.num_warps
    return config.block_m * config.block_n // threads, config.block_n * layout.tile_k // (2 * threads)


def _shared_bytes(config: GemmConfig, layout: Layout) -> int:
    """Of a block: words, activations, and at most two sets of scales or zero points, for each stage."""
    groups = config.block_k // layout.group_size if 0 < layout.group_size < config.block_k else 1
    words = config.block_n * layout.span * 2 * layout.encoding.words * (config.block_k // layout.tile_k)
    activations = config.block_m * config.block_k * 2
    return config.num_stages * (words + activations + 2 * groups * config.block_n * 2)


def _blocks_of_multiprocessor(config: GemmConfig, layout: Layout, gpu: _Gpu) -> int:
    """At once: by shared memory, and by registers, of which compiled kernels have about twice `_registers`."""
    registers = min(max(64, 2 * sum(_registers(config, layout))), 255)
    by_registers = 65536 // (32 * config.num_warps * registers)
    return max(1, min(gpu.shared_bytes // _shared_bytes(config, layout), by_registers, 4))
