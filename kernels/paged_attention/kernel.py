# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# ruff: noqa: N803
"""The kernel of decoding: one warp attends with up to 16 queries of one group of heads to a part of the context.

Memory bounds it, so keys and values go to the tensor cores as they come: a thread copies 16 bytes at a time, and what
it copied is already its part of the matrix instruction's operand. That takes three permutations, all free:

- of a head's elements in ``q k``, the same for queries and keys. A thread of a warp's ``lane % 4`` holds ``VECTOR``
  successive elements of a token, where the instruction wants it to hold some of every ``8 KW`` (``KW``: elements of one
  register of stored codes, the ``kWidth`` of Triton's operand layout).
- of tokens in ``p v``: scores lie in the threads as pairs of tokens, ``KW`` tokens are wanted.
- of a head's elements in the output, which is undone when it is stored.

Scales never touch elements: those of keys multiply scores, those of values probabilities. Probabilities go to float16
by ``unit``, the largest scale of values seen, so that small scales do not drive them out of its range.
"""

from __future__ import annotations

import triton
import triton.language as tl

from qmeter_native.kernels.paged_attention.codes import INTERPRET, e4m3_to_half, int4_to_half, int8_to_half

__all__ = ["attend", "combine"]

_SMALLEST_UNIT: tl.constexpr = tl.constexpr(2.0**-100)
"""Below every scale of values that means something; above 0, so that nothing divides by it."""


@triton.jit
def attend(
    query, keys, values, key_scales, value_scales, block_table, context_lens, out, peaks, sums, scale, window,
    num_splits, num_tokens, q_sequence, q_token, q_head, table_row, k_page, k_token, k_head, v_page, v_token, v_head,
    ks_page, ks_token, ks_head, vs_page, vs_token, vs_head,
    CODE: tl.constexpr, GROUP_HEADS: tl.constexpr, HEAD_SIZE: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr, KEY_VECTOR: tl.constexpr, VALUE_VECTOR: tl.constexpr, TOKENS: tl.constexpr,
    KW: tl.constexpr, ROWS: tl.constexpr, HAS_WINDOW: tl.constexpr, HAS_FP8: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """One split of one sequence's context, for ROWS (8 or 16) of the queries that share a head of keys and values.

    - ``query``: ``[S, T, H, HEAD_SIZE]``; strides ``q_``.
    - ``keys``, ``values``: ``[P, PAGE_SIZE, G, ...]``, uint8 or 16 bits; strides ``k_``, ``v_``.
    - ``key_scales``, ``value_scales``: float32, or int32 of float16 scale and minimum; strides ``ks_``, ``vs_``.
    - ``block_table``: int32, rows ``table_row`` apart; ``context_lens``: int32 ``[S]``, the T newest tokens included.
    - ``out``: ``[S, T, H, HEAD_SIZE]``, or with SPLIT float32 ``[S T H, num_splits, HEAD_SIZE]``, not yet divided.
    - ``peaks``, ``sums``: float32 ``[S T H, num_splits]``: of a split's scores in base 2, and of their exponentials.
    - ``scale``: of the scores, by log2(e); ``window``: tokens that a query sees, itself included; ``num_tokens``: T.
    - CODE: ``half`` (16 bits), ``e4m3``, ``int8`` or ``int4``.
    - BLOCK_D: elements of a head, padded to a power of two.
    - KEY_VECTOR, VALUE_VECTOR: stored elements that a thread reads at once.
    """
    sequence = tl.program_id(2)
    context = tl.load(context_lens + sequence)
    tiles_of_rows = tl.cdiv(num_tokens * GROUP_HEADS, ROWS)
    head = tl.program_id(0) // tiles_of_rows
    first_row = tl.program_id(0) % tiles_of_rows * ROWS
    row = first_row + tl.arange(0, ROWS)
    position = context - num_tokens + row // GROUP_HEADS
    is_row = row < num_tokens * GROUP_HEADS
    element = tl.arange(0, BLOCK_D)
    q_row = first_row + tl.arange(0, 16)
    q_at = query + sequence.to(tl.int64) * q_sequence + q_row // GROUP_HEADS * q_token
    q_at += (head * GROUP_HEADS + q_row % GROUP_HEADS) * q_head
    is_query = (q_row < tl.minimum(num_tokens * GROUP_HEADS, first_row + ROWS))[:, None] & (element < HEAD_SIZE)[
        None, :
    ]
    q, q_sum, factor = _to_half(tl.load(q_at[:, None] + element[None, :], mask=is_query, other=0.0), CODE)
    q = _query_operand(q, BLOCK_D, KEY_VECTOR, KW, CODE)
    q_sum = tl.reshape(_first_rows(q_sum[:, None], ROWS), (ROWS,))
    factor = tl.reshape(_first_rows(factor[:, None], ROWS), (ROWS,)) * scale

    first = 0
    if HAS_WINDOW:
        first = tl.maximum(context - num_tokens - window + 1, 0) // TOKENS
    tiles = tl.cdiv(tl.cdiv(context, TOKENS) - first, num_splits)
    first += tl.program_id(1) * tiles
    start, end = first * TOKENS, tl.minimum((first + tiles) * TOKENS, context)

    octet = tl.arange(0, TOKENS // 8)
    stored_d: tl.constexpr = BLOCK_D // 2 if CODE == "int4" else BLOCK_D
    stored_size: tl.constexpr = HEAD_SIZE // 2 if CODE == "int4" else HEAD_SIZE
    k_element = _key_offsets(stored_d, KEY_VECTOR)
    k_rows = keys + head * k_head + tl.arange(0, 8)[:, None, None, None] * k_token + k_element
    v_element = _value_offsets(stored_d, VALUE_VECTOR)
    v_of_eight = tl.arange(0, 4)[:, None, None, None, None, None] * 2 + tl.arange(0, 2)[None, None, None, :, None, None]
    v_rows = values + head * v_head + v_of_eight * v_token + v_element
    table = block_table + sequence.to(tl.int64) * table_row
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    least = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((BLOCK_D, ROWS), tl.float32)
    unit = _SMALLEST_UNIT
    for begin in range(start, end, TOKENS):
        of_octet = begin + octet * 8
        page = tl.load(table + of_octet // PAGE_SIZE, mask=of_octet < end, other=0).to(tl.int64)
        slot = of_octet % PAGE_SIZE
        token = begin + tl.arange(0, TOKENS)
        k_at = k_rows + (page * k_page + slot * k_token)[None, None, :, None]
        k_within = (of_octet[None, None, :, None] + tl.arange(0, 8)[:, None, None, None] < end) & (
            k_element < stored_size
        )
        k_codes = _key_operand(tl.load(k_at, mask=k_within, other=0), stored_d, KEY_VECTOR, TOKENS, KW)
        score = _first_rows(_dot(q, _decoded(k_codes, CODE, HAS_FP8)), ROWS)
        if CODE != "half":
            k_scale, k_least = _scales(
                key_scales + head * ks_head, page, slot, token < end, ks_page, ks_token, CODE, TOKENS
            )
            score = score * k_scale[None, :]
            if CODE == "int4":
                score += q_sum[:, None] * k_least[None, :]
        seen = (token[None, :] <= position[:, None]) & (token[None, :] < end)
        if HAS_WINDOW:
            seen &= token[None, :] > position[:, None] - window
        score = tl.where(seen, score * factor[:, None], float("-inf"))
        new_peak = tl.maximum(peak, tl.max(score, axis=1))
        base = tl.where(new_peak == float("-inf"), 0.0, new_peak)  # where nothing was seen yet, to avoid inf - inf
        decay = tl.exp2(peak - base)
        weight = tl.exp2(score - base[:, None])
        peak = new_peak
        total = total * decay + tl.sum(weight, axis=1)
        shrink = decay
        if CODE != "half":
            v_scale, v_least = _scales(
                value_scales + head * vs_head, page, slot, token < end, vs_page, vs_token, CODE, TOKENS
            )
            new_unit = tl.maximum(unit, tl.max(v_scale))
            shrink = decay * (unit / new_unit)
            unit = new_unit
            if CODE == "int4":
                least = least * decay + tl.sum(weight * v_least[None, :], axis=1)
            weight = weight * (v_scale * (1.0 / unit))[None, :]
        v_at = v_rows + (page * v_page + slot * v_token)[None, None, :, None, None, None]
        v_within = (of_octet[None, None, :, None, None, None] + v_of_eight < end) & (v_element < stored_size)
        v_codes = _value_operand(tl.load(v_at, mask=v_within, other=0), stored_d, VALUE_VECTOR, TOKENS, KW)
        value = _decoded(v_codes, CODE, HAS_FP8)
        acc = acc * shrink[None, :] + _dot(value, _probability_operand(weight.to(value.dtype), TOKENS, KW, ROWS))

    sequence_row = (sequence.to(tl.int64) * num_tokens + row // GROUP_HEADS) * (tl.num_programs(0) // tiles_of_rows)
    out_row = (sequence_row + head) * GROUP_HEADS + row % GROUP_HEADS
    if CODE != "half":
        acc = acc * unit + least[None, :]
    if SPLIT:
        out_row = out_row * num_splits + tl.program_id(1)
        tl.store(peaks + out_row, peak, mask=is_row)
        tl.store(sums + out_row, total, mask=is_row)
    else:
        inverse = 1.0 / tl.where(total == 0.0, 1.0, total)
        acc = acc * inverse[None, :]
    acc = _in_order(acc, BLOCK_D, VALUE_VECTOR, ROWS, CODE)
    within = is_row[:, None] & (element < HEAD_SIZE)[None, :]
    tl.store(out + out_row[:, None] * HEAD_SIZE + element[None, :], acc.to(out.dtype.element_ty), mask=within)


@triton.jit
def combine(
    partials, peaks, sums, out, num_splits, HEAD_SIZE: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_SPLITS: tl.constexpr
):  # fmt: skip
    """The output of one query and head, ``out [S T H, HEAD_SIZE]``, from its splits, always in the same order."""
    row = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, BLOCK_SPLITS)
    element = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    peak = tl.load(peaks + row * num_splits + split, mask=split < num_splits, other=float("-inf"))
    total = tl.load(sums + row * num_splits + split, mask=split < num_splits, other=0.0)
    at = partials + (row * num_splits + split[:, None]) * HEAD_SIZE + element[None, :]
    within = (split[:, None] < num_splits) & (element[None, :] < HEAD_SIZE)
    part = tl.load(at, mask=within, other=0.0)
    highest = tl.max(peak, axis=0)
    weight = tl.exp2(peak - tl.where(highest == float("-inf"), 0.0, highest))
    total = tl.sum(total * weight, axis=0)
    value = tl.sum(part * weight[:, None], axis=0) / tl.where(total == 0.0, 1.0, total)
    tl.store(out + row * HEAD_SIZE + element, value.to(out.dtype.element_ty), mask=element < HEAD_SIZE)


@triton.jit
def _to_half(q, code: tl.constexpr):
    """Queries for codes: float16 of a power of two a row, which is exact but for what is 2**-14 of the row's largest.

    Returns:
        The queries, their sum, and the power of two.
    """
    total = tl.full((16,), 0.0, tl.float32)
    factor = tl.full((16,), 1.0, tl.float32)
    if code != "half":
        wide = q.to(tl.float32)
        exponent = tl.max(tl.abs(wide), axis=1).to(tl.int32, bitcast=True) >> 23
        exponent = tl.minimum(tl.maximum(exponent, 1), 253)
        q = (wide * ((254 - exponent) << 23).to(tl.float32, bitcast=True)[:, None]).to(tl.float16)
        total = tl.sum(q.to(tl.float32), axis=1)
        factor = (exponent << 23).to(tl.float32, bitcast=True)
    return q, total, factor


@triton.jit
def _query_operand(q, block_d: tl.constexpr, vector: tl.constexpr, kw: tl.constexpr, code: tl.constexpr):
    """Queries with their elements in the order of the decoded `_key_operand`."""
    parts: tl.constexpr = 2 if code == "int4" else 1
    q = tl.reshape(q, (16, block_d // (4 * vector * parts), 4, vector // kw, kw, parts))
    return tl.reshape(tl.permute(q, (0, 5, 1, 3, 2, 4)), (16, block_d))


@triton.jit
def _first_rows(x, rows: tl.constexpr):
    """The first ``rows``, 8 or 16, of 16."""
    if rows == 8:
        x, _ = tl.split(tl.permute(tl.reshape(x, (2, 8, x.shape[1])), (1, 2, 0)))
    return x


@triton.jit
def _in_order(acc, block_d: tl.constexpr, vector: tl.constexpr, rows: tl.constexpr, code: tl.constexpr):
    """Outputs ``[rows, block_d]`` of which the elements were in the order of the decoded `_value_operand`."""
    parts: tl.constexpr = 2 if code == "int4" else 1
    acc = tl.reshape(acc, (parts, block_d // (8 * vector * parts), vector, 8, rows))
    return tl.reshape(tl.permute(acc, (4, 1, 3, 2, 0)), (rows, block_d))


@triton.jit
def _key_offsets(block_d: tl.constexpr, vector: tl.constexpr):
    """Elements of a key: ``[1, chunks, 1, 4 * vector]``."""
    chunk = tl.arange(0, block_d // (4 * vector))[None, :, None, None]
    return chunk * (4 * vector) + tl.arange(0, 4 * vector)[None, None, None, :]


@triton.jit
def _key_operand(codes, block_d: tl.constexpr, vector: tl.constexpr, tokens: tl.constexpr, kw: tl.constexpr):
    """Loaded ``[8, chunks, octets, 4 * vector]`` to ``[block_d, tokens]``, where no thread hands anything on."""
    codes = tl.reshape(codes, (8, block_d // (4 * vector), tokens // 8, 4, vector // kw, kw))
    return tl.reshape(tl.permute(codes, (1, 4, 3, 5, 2, 0)), (block_d, tokens))


@triton.jit
def _value_offsets(block_d: tl.constexpr, vector: tl.constexpr):
    """Elements of a value: ``[1, 8, 1, 1, chunks, vector]``."""
    chunk = tl.arange(0, block_d // (8 * vector))[None, None, None, None, :, None]
    thread = tl.arange(0, 8)[None, :, None, None, None, None]
    return chunk * (8 * vector) + thread * vector + tl.arange(0, vector)[None, None, None, None, None, :]


@triton.jit
def _value_operand(codes, block_d: tl.constexpr, vector: tl.constexpr, tokens: tl.constexpr, kw: tl.constexpr):
    """Loaded ``[4, 8, octets, 2, chunks, vector]`` to ``[block_d, tokens]``, where no thread hands anything on."""
    codes = tl.reshape(codes, (4, 8, tokens // (4 * kw), kw // 2, 2, block_d // (8 * vector), vector))
    return tl.reshape(tl.permute(codes, (5, 6, 1, 2, 0, 3, 4)), (block_d, tokens))


@triton.jit
def _probability_operand(weight, tokens: tl.constexpr, kw: tl.constexpr, rows: tl.constexpr):
    """Weights ``[tokens, rows]`` with their tokens in the order of `_value_operand`."""
    weight = tl.reshape(weight, (rows, tokens // (4 * kw), kw // 2, 4, 2))
    return tl.reshape(tl.permute(weight, (1, 3, 2, 4, 0)), (tokens, rows))


@triton.jit
def _scales(base, page, slot, within, page_stride, token_stride, code: tl.constexpr, tokens: tl.constexpr):
    """Scales of the tile's tokens, and of four bits what the code 8 stands for; 0 behind the context."""
    at = base + (page * page_stride + slot * token_stride)[:, None] + tl.arange(0, 8)[None, :] * token_stride
    stored = tl.load(tl.reshape(at, (tokens,)), mask=within, other=0)
    scale = stored
    middle = stored
    if code == "int4":
        scale = (stored & 0xFFFF).to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)
        minimum = (stored >> 16).to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)
        middle = minimum + 8.0 * scale
    return scale, middle


@triton.jit
def _decoded(codes, code: tl.constexpr, has_fp8: tl.constexpr):
    """Numbers of codes; four-bit ones, less 8, are twice as many rows, those of the low halves first."""
    value = codes
    if code == "int8":
        value = int8_to_half(codes)
    elif code == "e4m3":
        value = e4m3_to_half(codes, has_fp8)
    elif code == "int4":
        low, high = int4_to_half(codes)
        value = tl.reshape(tl.permute(tl.join(low, high), (2, 0, 1)), (2 * codes.shape[0], codes.shape[1]))
    return value


@triton.jit
def _dot(a, b):
    if INTERPRET:
        return tl.dot(a.to(tl.float32), b.to(tl.float32))
    return tl.dot(a, b)
