# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: D417, N803, N806
"""The kernel of weights of few bits times 16-bit activations.

It computes ``out.T = w @ x.T``: the decoded weights are then the product's A operand, which Hopper's matrix unit takes
from registers, so that they never go back to shared memory; ``x.T`` is B, in shared memory. Words lie in the order of
A's fragments (encoding.py): the compiler sees that the layouts agree and converts none in the loop.

The loop over inputs as compiled for Hopper by Triton 3.6 (4 bits, groups of 128, float16; 128 by 16 outputs, 8
warps), for the 64 by 128 weights of a warp group: 2 ``LDS.128`` without bank conflicts (32 lanes read 512 consecutive
bytes), 72 instructions to decode a thread's 64 weights, 8 ``HGMMA`` with A in registers, 8 ``FFMA`` to scale the sum, 3
``LDGSTS`` of 16 bytes; 171 in all, of which 78 are addresses, barriers and the pipeline's state: two tiles an iteration
(``UNROLL``) take 145 each. No spills. With 79 registers 3 blocks are on a multiprocessor, each with 3 stages of 8 KiB
of weights under way: 72 KiB, where 4.3 TB/s over 132 multiprocessors need 26 KiB at a latency of 0.8 us.
"""

from __future__ import annotations

import triton
import triton.language as tl

from qmeter_native.kernels.weight_only.decode import decode

__all__ = ["load_pairs", "load_words", "weight_only_kernel"]


@triton.jit
def load_pairs(pointers, D: tl.constexpr):
    """Words of pairs ``[S, N / 2]`` as values ``[N, S]`` (encoding.py: pack_pairs)."""
    words = tl.load(pointers)
    S: tl.constexpr = words.shape[0]
    N: tl.constexpr = 2 * words.shape[1]
    low = (words & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True)
    high = (words >> 16).to(tl.int16).to(tl.float16, bitcast=True)
    pairs = tl.permute(tl.reshape(tl.join(low, high), (S, N // 16, 8, 2)), (1, 3, 2, 0))
    return tl.reshape(pairs, (N, S)).to(D)


@triton.jit
def load_words(pointers, TILES: tl.constexpr, SPAN: tl.constexpr):
    """Words of tiles ``[TILES, 64 * SPAN]`` by output and input: ``[64 * TILES, SPAN]`` (encoding.py: tile_words)."""
    words = tl.reshape(tl.load(pointers), (TILES, SPAN // 16, 4, 8, 4, 2, 2, 2))
    return tl.reshape(tl.permute(words, (0, 2, 6, 3, 1, 5, 4, 7)), (64 * TILES, SPAN))


@triton.jit(do_not_specialize=["m_size", "splits"])
def weight_only_kernel(
    x, words, scales, zeros, row_scales, bias, table, out, partials, counters,
    m_size, n_size, k_size, tiles, half_rows, splits,
    KIND: tl.constexpr, ZERO: tl.constexpr, ASSEMBLY: tl.constexpr, CONSTRAINTS: tl.constexpr,
    WORDS: tl.constexpr, SPAN: tl.constexpr, TILE_K: tl.constexpr, GROUP: tl.constexpr,
    SCALE_SUM: tl.constexpr, HAS_BIAS: tl.constexpr, EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, UNROLL: tl.constexpr, IS_SPLIT: tl.constexpr, PLAIN: tl.constexpr,
):  # fmt: skip
    """One tile of the output, or its sum over one of ``splits`` stretches of inputs.

    Args:
        x: ``[m_size, k_size]``.
        words, scales, zeros, row_scales, table: Of the prepared weight (tensor.py); unread where it has none.
        bias: ``[n_size]``, where ``HAS_BIAS``.
        out: ``[m_size, n_size]``.
        partials, counters: Of programs that share a tile; unread without ``IS_SPLIT``.
        tiles: Tiles along the inputs, a multiple of ``UNROLL``.
        half_rows: Words of pairs of a group.
        splits: Programs that share a tile; no constant, so that tuning compiles each tile once.
        SCALE_SUM: Scales multiply the sum of a tile, not its weights.
        EVEN_K: ``k_size`` is a multiple of ``TILE_K``.
        UNROLL: Tiles of an iteration.
        PLAIN: Without inline assembly, and products in float32.
    """
    D: tl.constexpr = x.dtype.element_ty
    S: tl.constexpr = TILE_K // GROUP if (GROUP > 0 and GROUP < TILE_K) else 1  # scales of a tile
    TILES_OF_GROUP: tl.constexpr = GROUP // TILE_K if GROUP > TILE_K else 1
    block_m, block_n = _block(tl.cdiv(m_size, BLOCK_M), tl.cdiv(n_size, BLOCK_N))
    ms = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    ks = tl.arange(0, TILE_K)
    pairs = block_n * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)[None, :] + tl.arange(0, S)[:, None] * half_rows
    row_tiles = (block_n * (BLOCK_N // 64) + tl.arange(0, BLOCK_N // 64)).to(tl.int64) * tiles
    word_pointers = words + row_tiles[:, None] * (WORDS * 64 * SPAN) + tl.arange(0, 64 * SPAN)[None, :]
    x_pointers = x + ms[None, :].to(tl.int64) * k_size + ks[:, None]
    x_mask = (ms < m_size)[None, :]

    per_split = tl.cdiv(tiles, UNROLL * splits) * UNROLL
    first = tl.program_id(1) * per_split
    last = tl.minimum(first + per_split, tiles)
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    if SCALE_SUM:
        # These loads feed no product, so that the compiler would not pipeline them: one tile ahead, by hand.
        scale = load_pairs(scales + tl.minimum(first, tiles - 1) // TILES_OF_GROUP * half_rows + pairs, tl.float32)
    for start in range(first, last, UNROLL):
        for ahead in tl.static_range(UNROLL):
            tile = start + ahead
            of_group = (tile * S // TILES_OF_GROUP if GROUP > 0 else 0) * half_rows + pairs
            w = _weights(
                word_pointers + tile * (WORDS * 64 * SPAN), zeros + of_group, table, KIND, ZERO, ASSEMBLY, CONSTRAINTS,
                WORDS, SPAN, TILE_K, S, D, PLAIN,
            )  # fmt: skip
            inside = x_mask if EVEN_K else x_mask & (ks < k_size - tile * TILE_K)[:, None]
            xs = tl.load(x_pointers + tile * TILE_K, mask=inside, other=0.0)
            if SCALE_SUM:
                total += _dot(w, xs, tl.zeros((BLOCK_N, BLOCK_M), tl.float32), PLAIN) * scale
                next_group = tl.minimum(tile + 1, tiles - 1) // TILES_OF_GROUP
                scale = load_pairs(scales + next_group * half_rows + pairs, tl.float32)
            elif GROUP > 0:
                factor = load_pairs(scales + of_group, D)
                w = tl.reshape(w, (BLOCK_N, S, TILE_K // S)) * factor[:, :, None]
                total = _dot(tl.reshape(w, (BLOCK_N, TILE_K)), xs, total, PLAIN)
            else:
                total = _dot(w, xs, total, PLAIN)

    ns = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    if not IS_SPLIT:
        _store(out, total, row_scales, bias, ms, ns, m_size, n_size, HAS_BIAS)
    else:
        output = block_m * tl.cdiv(n_size, BLOCK_N) + block_n
        cells = output.to(tl.int64) * splits * (BLOCK_N * BLOCK_M)
        total, is_last = _sum_of_splits(partials + cells, counters + output, total, splits)
        if is_last:
            _store(out, total, row_scales, bias, ms, ns, m_size, n_size, HAS_BIAS)


@triton.jit
def _block(blocks_m, blocks_n):
    """Of this program: neighbours share 8 tiles of x and go through the weights together, so that both stay in L2."""
    pid = tl.program_id(0)
    of_group = 8 * blocks_n
    first_m = pid // of_group * 8
    group_m = tl.minimum(blocks_m - first_m, 8)
    return first_m + pid % of_group % group_m, pid % of_group // group_m


@triton.jit
def _weights(
    pointers, zeros, table, KIND: tl.constexpr, ZERO: tl.constexpr, ASSEMBLY: tl.constexpr, CONSTRAINTS: tl.constexpr,
    WORDS: tl.constexpr, SPAN: tl.constexpr, TILE_K: tl.constexpr, S: tl.constexpr, D: tl.constexpr,
    PLAIN: tl.constexpr,
):  # fmt: skip
    """Unscaled weights of tiles, zero points taken off: ``[N, TILE_K]``."""
    TILES: tl.constexpr = pointers.shape[0]
    w0 = load_words(pointers, TILES, SPAN)
    w1, w2 = w0, w0
    if WORDS == 3:
        w1 = load_words(pointers + 64 * SPAN, TILES, SPAN)
        w2 = load_words(pointers + 2 * 64 * SPAN, TILES, SPAN)
    zero = w0
    if ZERO != "none":
        zero_point = load_pairs(zeros, D)
        if ZERO == "fused":
            zero = tl.broadcast_to(zero_point, (64 * TILES, SPAN))
    w = decode(w0, w1, w2, zero, table, KIND, ZERO, ASSEMBLY, CONSTRAINTS, D, PLAIN)
    if ZERO == "raw":
        w = tl.reshape(tl.reshape(w, (64 * TILES, S, TILE_K // S)) - zero_point[:, :, None], (64 * TILES, TILE_K))
    return w


@triton.jit
def _dot(w, xs, total, PLAIN: tl.constexpr):
    if PLAIN:
        return tl.dot(w.to(tl.float32), xs.to(tl.float32), total)
    return tl.dot(w, xs, total)


@triton.jit
def _sum_of_splits(partials, counter, total, splits):
    """The sum over all splits, and whether this program has it: the last to arrive adds up all partial sums, in their
    order, so that the result does not depend on which it was. A second kernel would cost a launch (about 2 us).
    """
    N: tl.constexpr = total.shape[0]
    M: tl.constexpr = total.shape[1]
    cells = partials + tl.arange(0, N)[:, None] * M + tl.arange(0, M)[None, :]
    tl.store(cells + tl.program_id(1) * (N * M), total)
    tl.debug_barrier()
    is_last = tl.atomic_add(counter, 1, sem="acq_rel", scope="gpu") == splits - 1
    if is_last:
        total = tl.zeros((N, M), tl.float32)
        for split in tl.range(0, splits, loop_unroll_factor=8):
            total += tl.load(cells + split * (N * M), cache_modifier=".cg")  # not from L1, which may be older
        tl.store(counter, 0)
    return total, is_last


@triton.jit
def _store(out, total, row_scales, bias, ms, ns, m_size, n_size, HAS_BIAS: tl.constexpr):
    """Into ``out``, along whose rows consecutive threads write: the sum is transposed in shared memory once."""
    total = total * tl.load(row_scales + ns)[:, None]
    if HAS_BIAS:
        total += tl.load(bias + ns, mask=ns < n_size, other=0.0).to(tl.float32)[:, None]
    pointers = out + ms[None, :].to(tl.int64) * n_size + ns[:, None]
    tl.store(pointers, total.to(out.dtype.element_ty), mask=(ms < m_size)[None, :] & (ns < n_size)[:, None])
