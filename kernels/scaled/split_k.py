# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: D417, N803, N806
"""Several programs share the inputs of one output tile: each stores its partial sum, and the last to arrive adds them.

Programs are ``(tiles, splits)``. Partial sums are added in the order of the splits, whoever arrives last: results do
not depend on the order of arrival.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["split_range", "sum_of_splits"]


@triton.jit
def split_range(k, BLOCK_K: tl.constexpr):
    """The blocks of inputs, first and behind the last, that belong to this program's split."""
    blocks = tl.cdiv(k, BLOCK_K)
    a_split = tl.cdiv(blocks, tl.num_programs(1))
    first = tl.minimum(tl.program_id(1) * a_split, blocks)
    return first, tl.minimum(first + a_split, blocks)


@triton.jit
def sum_of_splits(acc, partials, counters, tile, tiles):
    """The sum over the splits of a tile, one of ``tiles``, and whether this program is the one that has it.

    Args:
        acc: ``[R, C]``, this program's partial sum, float32 or int32.
        partials: ``[splits, tiles, R, C]`` of the same type.
        counters: int32 ``[tiles]`` or longer, zeros; zeros again afterwards.
    """
    R: tl.constexpr = acc.shape[0]
    C: tl.constexpr = acc.shape[1]
    splits = tl.num_programs(1)
    within = tl.arange(0, R)[:, None] * C + tl.arange(0, C)[None, :]
    tl.store(partials + (tl.program_id(1) * tiles + tile).to(tl.int64) * (R * C) + within, acc)
    tl.debug_barrier()  # the stores of all threads come before the release of the counter, which one thread does
    is_last = tl.atomic_add(counters + tile, 1, sem="acq_rel", scope="gpu") == splits - 1
    if is_last:
        acc = tl.zeros((R, C), acc.dtype)
        for split in range(splits):
            part = partials + (split * tiles + tile).to(tl.int64) * (R * C) + within
            acc += tl.load(part, cache_modifier=".cg")  # others wrote it: not from the multiprocessor's own cache
        tl.store(counters + tile, 0)
    return acc, is_last
