"""Tiles of products of 4-bit weights with 8-bit activations; the defaults are reasoned, not measured."""

from __future__ import annotations

from itertools import product

from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.scaled.tensor import SPLIT_TILES
from qmeter_native.kernels.scaled.tiles import H200, is_roomy, split_of
from qmeter_native.kernels.w4a8.layout import INPUTS, OUTPUTS

__all__ = ["candidate_configs", "default_config", "shared_bytes"]


def shared_bytes(config: GemmConfig) -> int:
    """What the stages of loads take of a block's shared memory."""
    return (config.block_n * INPUTS // 2 + config.block_m * INPUTS) * config.num_stages


def default_config(m: int, n: int, k: int, capability: tuple[int, int], multiprocessors: int) -> GemmConfig:
    """Tiles that fit every GPU of a capability."""
    block_m = next((size for size in (16, 32, 64) if m <= size), 128 if is_roomy(capability) else 64)
    if block_m == 128 and -(-m // 128) * -(-n // 128) >= multiprocessors:
        return GemmConfig(128, 128, INPUTS, 1, 8, 3)
    split_k = split_of(m, n, k, block_m, OUTPUTS, INPUTS, multiprocessors)
    return GemmConfig(block_m, OUTPUTS, INPUTS, split_k, 4, 4 if block_m <= 32 else 3)


def candidate_configs(m: int, n: int, k: int, is_fp8: bool = False) -> tuple[GemmConfig, ...]:
    """Tiles worth timing on a GPU with 227 KB of shared memory a block, such as an H200; its defaults first.

    FP8 holds a group's sum beside the whole one: with 256 tokens a tile, registers spill.
    """
    sizes = (16,) if m <= 16 else (32,) if m <= 32 else (64,) if m <= 64 else (64, 128) if is_fp8 else (64, 128, 256)
    splits = (1, 2, 3, 4, 6, 8) if m <= 64 else (1, 2, 4) if m <= 256 else (1,)
    found = [default_config(m, n, k, *H200)]
    for block_m, block_n, split_k, stages in product(sizes, (64, 128), splits, (2, 3, 4, 6)):
        config = GemmConfig(block_m, block_n, INPUTS, split_k, block_n // 16, stages)
        is_split = split_k == 1 or (config.tiles(m, n) <= SPLIT_TILES and 2 * split_k * INPUTS <= k)
        if is_split and shared_bytes(config) <= 220 << 10:
            found.append(config)
    return tuple(dict.fromkeys(found))
