"""Tiles of the weight-only product: from the table of the architecture, or safe ones, and what is worth trying."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.gemm_config import GemmConfig, tuned_config

if TYPE_CHECKING:
    from qmeter_native.kernels.weight_only.tensor import WeightOnlyTensor

__all__ = ["candidate_configs", "check_config", "choose_config", "scales_sum"]

SMALL_M = 32
"""Up to these tokens of a tile the sum is scaled, not the weights: of a 64 by 128 tile a thread scales
``block_m / 2`` sums instead of 32 pairs of weights, and no weight is rounded."""


def scales_sum(group_size: int, tile_k: int, block_m: int) -> bool:
    """Whether scales multiply sums of a tile instead of its weights: cheaper for few tokens, and exact."""
    return group_size > 0 and group_size % tile_k == 0 and block_m <= SMALL_M


def choose_config(weight: WeightOnlyTensor, m: int) -> GemmConfig:
    """The table's tiles for this architecture, this format and this size, else safe ones."""
    n, k = weight.shape
    tuned = None
    if weight.device.type == "cuda":
        capability = torch.cuda.get_device_capability(weight.device)
        tuned = tuned_config(f"weight_only_{weight.kind}", capability, m, n, k)
    return tuned or default_config(weight, m)


def default_config(weight: WeightOnlyTensor, m: int) -> GemmConfig:
    """Tiles that fit every GPU since Ampere."""
    block_m = next((size for size in (16, 32, 64) if m <= size), 128)
    split_k = 1
    if block_m < 128:
        tiles = weight.words.shape[1]
        programs = -(-weight.shape[0] // 128)
        while split_k < 8 and programs * split_k < 256 and tiles >= 8 * split_k:
            split_k *= 2
    stages = 4 if block_m <= 64 else 3
    return GemmConfig(block_m, 128, weight.tile_k, split_k, num_warps=8, num_stages=stages)


def check_config(config: GemmConfig, weight: WeightOnlyTensor, m: int) -> GemmConfig:
    """A configuration that the kernel can run on this weight.

    Its ``block_k`` becomes a multiple of the weight's tiles that divides the inputs; ``split_k`` becomes 1 where there
    are more tiles of the output than counters.

    Raises:
        UsageError: ``block_m`` or ``block_n`` is none that the kernel has.
    """
    if config.block_n not in (64, 128):
        raise UsageError(f"block_n is {config.block_n}", "It must be 64 or 128.")
    if config.block_m < 16 or config.block_m & (config.block_m - 1):
        raise UsageError(f"block_m is {config.block_m}", "It must be a power of two from 16.")
    outputs = -(-m // config.block_m) * -(-weight.shape[0] // config.block_n)
    fits = outputs <= weight.counters.shape[0]
    unroll = max(1, config.block_k // weight.tile_k)
    unroll = unroll if weight.words.shape[1] % unroll == 0 else 1
    return replace(config, block_k=unroll * weight.tile_k, split_k=config.split_k if fits else 1)


def candidate_configs(weight: WeightOnlyTensor, m: int) -> list[GemmConfig]:
    """Tiles worth measuring for ``m`` tokens, with those of `default_config` among them."""
    block_ms = [size for size in (16, 32, 64, 128, 256) if size < 2 * m or size == 16][-2:]
    splits = (1, 2, 4, 8, 16) if m <= 64 else (1, 2)
    found = [default_config(weight, m)]
    for block_m in block_ms:
        for block_n, num_warps in ((64, 4), (128, 4), (128, 8)):
            for split_k in splits:
                for num_stages in (3, 4, 5, 6):
                    config = GemmConfig(block_m, block_n, weight.tile_k, split_k, num_warps, num_stages)
                    if _fits(config, weight):
                        found.append(config)
    return list(dict.fromkeys(found))


def _fits(config: GemmConfig, weight: WeightOnlyTensor) -> bool:
    """Shared memory of Hopper suffices, registers of the sum do not spill, and no split is empty."""
    stage = config.block_n * weight.span * 2 * weight.encoding.words + config.block_m * weight.tile_k * 2
    sums = config.block_m * config.block_n // (32 * config.num_warps)
    enough = weight.words.shape[1] >= 2 * config.split_k
    return stage * config.num_stages <= 220 << 10 and sums <= 128 and enough
