"""Tiles of 8-bit products: candidates to tune over, and what is taken where nothing was tuned.

The defaults are reasoned, not measured: enough programs for every multiprocessor, and enough bytes on their way
(4.8 TB/s x about 800 ns of an H200 over its 132 multiprocessors: 29 KB each) at few tokens.
"""

from __future__ import annotations

from itertools import product

from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.scaled.tensor import SPLIT_TILES

__all__ = ["H200", "candidate_configs", "default_config", "is_roomy", "split_of", "swaps_operands"]

_LARGEST_SPLIT = 16
H200 = ((9, 0), 132)
"""Compute capability and multiprocessors."""


def swaps_operands(config: GemmConfig) -> bool:
    """Whether outputs, not tokens, are the rows of the matrix unit, which takes 64 at least."""
    return config.block_m < 64


def is_roomy(capability: tuple[int, int]) -> bool:
    """Whether a block may have 163 KB of shared memory or more; other GPUs have 99 KB (CUDA C++ Programming Guide)."""
    return capability == (8, 0) or capability[0] in (9, 10, 11)


def default_config(
    m: int, n: int, k: int, capability: tuple[int, int], multiprocessors: int, is_block_scaled: bool
) -> GemmConfig:
    """Tiles that fit every GPU of a capability."""
    is_deep = m <= 64 and not is_block_scaled and capability >= (9, 0) and is_roomy(capability)
    block_k = 256 if is_deep else 128
    if m <= 64:
        block_m = 16 if m <= 16 else 32 if m <= 32 else 64
        return GemmConfig(block_m, 64, block_k, split_of(m, n, k, block_m, 64, block_k, multiprocessors), 4, 4)
    if not is_roomy(capability):
        return GemmConfig(64, 128, block_k, 1, 4, 3)
    if _tiles(m, n, 128, 128) < multiprocessors:
        return GemmConfig(64, 128, block_k, split_of(m, n, k, 64, 128, block_k, multiprocessors), 4, 3)
    if capability < (9, 0):
        return GemmConfig(128, 128, block_k, 1, 8, 4)
    if is_block_scaled or _tiles(m, n, 128, 256) < multiprocessors:
        return GemmConfig(128, 128, block_k, 1, 8, 4, 1)
    return GemmConfig(128, 256, block_k, 1, 8, 3, 1)


def candidate_configs(m: int, n: int, k: int, is_block_scaled: bool = False) -> tuple[GemmConfig, ...]:
    """Tiles worth timing for a product on a GPU with 227 KB of shared memory a block, such as an H200; defaults first.

    Splits over inputs are for few tokens, persistent programs for many.
    """
    found = _small(m, is_block_scaled) if m <= 64 else _large(m, is_block_scaled)
    default = default_config(m, n, k, *H200, is_block_scaled)
    return tuple(dict.fromkeys((default, *(config for config in found if _is_sensible(config, m, n, k)))))


def _large(m: int, is_block_scaled: bool) -> list[GemmConfig]:
    shapes = ((64, 128, 4), (64, 256, 4), (128, 128, 4), (128, 128, 8), (128, 256, 8), (256, 128, 8))
    ways = ((1, 0), (2, 0), (4, 0), (1, 1)) if m <= 256 else ((1, 0), (1, 1), (1, 2))  # splits, persistent programs
    found = []
    for (block_m, block_n, warps), stages, (split_k, persistent) in product(shapes, (3, 4), ways):
        # a block-scaled product holds its sum twice: more than 64 + 64 registers of it do not fit
        accumulator = block_m * block_n // (32 * warps) * (2 if is_block_scaled else 1)
        loads = (block_m + block_n) * 128 * stages
        stores = 2 * block_m * block_n if persistent else 0  # what is stored, while the next tile's loads arrive
        if accumulator <= 128 and max(1, persistent) * (loads + stores) <= 220 << 10:
            found.append(GemmConfig(block_m, block_n, 128, split_k, warps, stages, persistent))
    return found


def split_of(m: int, n: int, k: int, block_m: int, block_n: int, block_k: int, multiprocessors: int) -> int:
    """Splits that give every multiprocessor two programs, of at least four blocks of inputs each."""
    tiles = _tiles(m, n, block_m, block_n)
    if tiles > SPLIT_TILES:
        return 1
    return max(1, min(2 * multiprocessors // tiles, k // (4 * block_k), _LARGEST_SPLIT))


def _small(m: int, is_block_scaled: bool) -> list[GemmConfig]:
    block_m = 16 if m <= 16 else 32 if m <= 32 else 64
    depths = (128,) if is_block_scaled else (128, 256, 512)
    found = []
    for block_n, block_k, split_k, stages in product((64, 128), depths, (1, 2, 3, 4, 6, 8), (3, 5)):
        if (block_m + block_n) * block_k * stages <= 220 << 10:
            found.append(GemmConfig(block_m, block_n, block_k, split_k, 4, stages))
    return found


def _is_sensible(config: GemmConfig, m: int, n: int, k: int) -> bool:
    """Splits have work, and no more tiles than may be split."""
    tiles = config.tiles(m, n)
    return config.split_k == 1 or (tiles <= SPLIT_TILES and config.split_k * config.block_k * 2 <= k)


def _tiles(m: int, n: int, block_m: int, block_n: int) -> int:
    return -(-m // block_m) * -(-n // block_n)
