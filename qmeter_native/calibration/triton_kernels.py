"""Triton kernels that load a GPU in ways that serving does: one launch a call, work known by arithmetic.

They are loads for calibration and for the truth test, not the reference kernels of quantization methods: what counts is
that each is one kernel whose bytes and operations are known. Importing this module imports triton.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"
from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

__all__ = [
    "attention_decode",
    "copy",
    "dram_read",
    "fp32_fma",
    "gemm",
    "l2_read",
    "quantize_fp8",
    "rms_norm",
    "silu_and_mul",
    "w4a16_gemm",
    "w8a16_gemm",
]


def w4a16_gemm(x: Any, qweight: Any, qzeros: Any, scales: Any, out: Any) -> None:
    """``out = x @ dequantized`` for weights in GPTQ's layout, groups of 128.

    Args:
        x: float16 (16, K).
        qweight: int32 (K / 8, N), eight 4-bit codes along K each, lowest first.
        qzeros: int32 (K / 128, N / 8), zero points less one.
        scales: float16 (K / 128, N).
        out: float16 (16, N).
    """
    k, n = x.shape[1], out.shape[1]
    _w4a16_gemm[(n // 64,)](x, qweight, qzeros, scales, out, k, n, block_n=64, num_warps=4, num_stages=4)


def w8a16_gemm(x: Any, weight: Any, scales: Any, out: Any) -> None:
    """``out = (x @ weight) * scales``: x, out float16 (16, K), (16, N); weight int8 (K, N); scales float16 (N,)."""
    k, n = x.shape[1], out.shape[1]
    _w8a16_gemm[(n // 64,)](x, weight, scales, out, k, n, block_n=64, block_k=128, num_warps=4, num_stages=4)


def gemm(x: Any, weight: Any, out: Any) -> None:
    """``out = x @ weight.T``, every tile by one program.

    Args:
        x: float16, bfloat16 or float8_e4m3fn (M, K); M and N multiples of 128, K of 128.
        weight: Like ``x``, (N, K).
        out: float16 or bfloat16 (M, N).
    """
    (m, k), n = x.shape, weight.shape[0]
    inner = 128 // x.element_size()
    grid = (m // 128 * (n // 128),)
    _gemm[grid](x, weight, out, m, n, k, block=128, inner=inner, group=8, num_warps=8, num_stages=3)


def attention_decode(query: Any, key: Any, value: Any, out: Any) -> None:
    """One new token a sequence against its KV cache, 16 query heads for each KV head.

    Args:
        query: float16 (sequences * kv_heads, 16, D).
        key: float16 (sequences * kv_heads, context, D); context a multiple of 64.
        value: Like ``key``.
        out: Like ``query``.
    """
    num_heads, context, width = key.shape
    _attention_decode[(num_heads,)](
        query, key, value, out, context, width**-0.5, width=width, block=64, num_warps=4, num_stages=3
    )


def rms_norm(x: Any, weight: Any, out: Any) -> None:
    """``out = x / rms(x) * weight`` by rows: x and out float16 (rows, columns), columns a power of two."""
    rows, columns = x.shape
    _rms_norm[(rows,)](x, weight, out, columns=columns, num_warps=8)


def silu_and_mul(x: Any, out: Any) -> None:
    """``out = silu(x[:, :columns]) * x[:, columns:]``: x float16 (rows, 2 * columns), columns a multiple of 1024."""
    rows, columns = out.shape
    _silu_and_mul[(rows, columns // 1024)](x, out, columns, block=1024, num_warps=4)


def quantize_fp8(x: Any, out: Any, scales: Any) -> None:
    """Rows to float8_e4m3fn by their largest value: x float16 (rows, columns), scales float32 (rows,)."""
    rows, columns = x.shape
    _quantize_fp8[(rows,)](x, out, scales, columns=columns, num_warps=8)


def copy(source: Any, target: Any) -> None:
    """Copy float32 elements, a multiple of 4096."""
    _copy[(source.numel() // 4096,)](source, target, block=4096, num_warps=8)


def dram_read(source: Any, out: Any, num_programs: int) -> None:
    """Read float32 elements, a multiple of ``4096 * num_programs``; ``out`` float32 (num_programs,) takes the sums."""
    num_blocks = source.numel() // (4096 * num_programs)
    _dram_read[(num_programs,)](source, out, num_blocks, block=4096, num_warps=8)


def l2_read(source: Any, out: Any, num_programs: int, num_blocks: int) -> None:
    """Each program reads ``num_blocks`` times 4096 float32 of a source that fits in L2, past L1.

    The source has a power of two of blocks; programs begin at different ones.
    """
    _l2_read[(num_programs,)](source, out, num_blocks, source.numel() // 4096, block=4096, num_warps=8)


def fp32_fma(values: Any, num_programs: int, num_steps: int) -> None:
    """``num_steps`` fused multiply-adds on each of ``2048 * num_programs`` float32 between -1.9 and 1.9, in registers.

    They walk the map x² - 1.9, which is chaotic: a linear one runs into its fixed point, and then no bit toggles.
    """
    _fp32_fma[(num_programs,)](values, num_steps, 1.9, block=2048, num_warps=8)


@triton.jit
def _w4a16_gemm(x, qweight, qzeros, scales, out, k, n, block_n: tl.constexpr):
    rows = tl.arange(0, 16)
    columns = tl.program_id(0) * block_n + tl.arange(0, block_n)
    inner = tl.arange(0, 128)
    words = tl.arange(0, 16)
    shifts = tl.arange(0, 8) * 4
    total = tl.zeros((16, block_n), dtype=tl.float32)
    for group in range(0, k // 128):
        packed = tl.load(qweight + (group * 16 + words)[:, None] * n + columns[None, :])
        codes = tl.reshape((packed[:, None, :] >> shifts[None, :, None]) & 15, (128, block_n))
        packed_zero = tl.load(qzeros + group * (n // 8) + columns // 8)
        zero = ((packed_zero >> ((columns % 8) * 4)) & 15) + 1
        scale = tl.load(scales + group * n + columns)
        weight = (codes - zero[None, :]).to(tl.float16) * scale[None, :]
        a = tl.load(x + rows[:, None] * k + (group * 128 + inner)[None, :])
        total += tl.dot(a, weight)
    tl.store(out + rows[:, None] * n + columns[None, :], total.to(tl.float16))


@triton.jit
def _w8a16_gemm(x, weight, scales, out, k, n, block_n: tl.constexpr, block_k: tl.constexpr):
    rows = tl.arange(0, 16)
    columns = tl.program_id(0) * block_n + tl.arange(0, block_n)
    inner = tl.arange(0, block_k)
    total = tl.zeros((16, block_n), dtype=tl.float32)
    for start in range(0, k, block_k):
        codes = tl.load(weight + (start + inner)[:, None] * n + columns[None, :])
        a = tl.load(x + rows[:, None] * k + (start + inner)[None, :])
        total += tl.dot(a, codes.to(tl.float16))
    scale = tl.load(scales + columns).to(tl.float32)
    tl.store(out + rows[:, None] * n + columns[None, :], (total * scale[None, :]).to(tl.float16))


@triton.jit
def _gemm(x, weight, out, m, n, k, block: tl.constexpr, inner: tl.constexpr, group: tl.constexpr):
    per_group = group * (n // block)  # programs of some rows of tiles, which share weights in L2
    first = tl.program_id(0) // per_group * group
    size = tl.minimum(m // block - first, group)
    tile = tl.program_id(0) % per_group
    rows = (first + tile % size) * block + tl.arange(0, block)
    columns = tile // size * block + tl.arange(0, block)
    depth = tl.arange(0, inner)
    total = tl.zeros((block, block), dtype=tl.float32)
    for start in range(0, k, inner):
        a = tl.load(x + rows[:, None] * k + (start + depth)[None, :])
        b = tl.load(weight + columns[None, :] * k + (start + depth)[:, None])
        total = tl.dot(a, b, total)
    tl.store(out + rows[:, None] * n + columns[None, :], total.to(out.dtype.element_ty))


@triton.jit
def _attention_decode(query, key, value, out, context, scale, width: tl.constexpr, block: tl.constexpr):
    head = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, 16)
    dims = tl.arange(0, width)
    tokens = tl.arange(0, block)
    q = tl.load(query + head * 16 * width + rows[:, None] * width + dims[None, :])
    keys = key + head * context * width
    values = value + head * context * width
    highest = tl.full((16,), -1.0e30, dtype=tl.float32)
    weights = tl.zeros((16,), dtype=tl.float32)
    total = tl.zeros((16, width), dtype=tl.float32)
    for start in range(0, context, block):
        k = tl.load(keys + (start + tokens)[None, :] * width + dims[:, None])
        scores = tl.dot(q, k) * scale
        new_highest = tl.maximum(highest, tl.max(scores, 1))
        shrink = tl.exp(highest - new_highest)
        p = tl.exp(scores - new_highest[:, None])
        weights = weights * shrink + tl.sum(p, 1)
        v = tl.load(values + (start + tokens)[:, None] * width + dims[None, :])
        total = total * shrink[:, None] + tl.dot(p.to(tl.float16), v)
        highest = new_highest
    total = total / weights[:, None]
    tl.store(out + head * 16 * width + rows[:, None] * width + dims[None, :], total.to(tl.float16))


@triton.jit
def _rms_norm(x, weight, out, columns: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.arange(0, columns)
    values = tl.load(x + row * columns + offsets).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(values * values, 0) / columns + 1e-6)
    result = values * scale * tl.load(weight + offsets).to(tl.float32)
    tl.store(out + row * columns + offsets, result.to(tl.float16))


@triton.jit
def _silu_and_mul(x, out, columns, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.program_id(1) * block + tl.arange(0, block)
    gate = tl.load(x + row * 2 * columns + offsets).to(tl.float32)
    up = tl.load(x + row * 2 * columns + columns + offsets).to(tl.float32)
    tl.store(out + row * columns + offsets, (gate / (1.0 + tl.exp(-gate)) * up).to(tl.float16))


@triton.jit
def _quantize_fp8(x, out, scales, columns: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    offsets = tl.arange(0, columns)
    values = tl.load(x + row * columns + offsets).to(tl.float32)
    scale = tl.max(tl.abs(values), 0) / 448.0
    tl.store(out + row * columns + offsets, (values / scale).to(tl.float8e4nv))
    tl.store(scales + row, scale)


@triton.jit
def _copy(source, target, block: tl.constexpr):
    offsets = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    tl.store(target + offsets, tl.load(source + offsets))


@triton.jit
def _dram_read(source, out, num_blocks, block: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    offsets = tl.arange(0, block)
    total = tl.zeros((block,), dtype=tl.float32)
    for number in range(0, num_blocks):
        total += tl.load(source + (program * num_blocks + number) * block + offsets)
    tl.store(out + program, tl.sum(total, 0))


@triton.jit
def _l2_read(source, out, num_blocks, source_blocks, block: tl.constexpr):
    program = tl.program_id(0)
    offsets = tl.arange(0, block)
    total = tl.zeros((block,), dtype=tl.float32)
    for number in range(0, num_blocks):
        start = ((program * 7 + number) % source_blocks) * block
        total += tl.load(source + start + offsets, cache_modifier=".cg")
    tl.store(out + program, tl.sum(total, 0))


@triton.jit
def _fp32_fma(values, num_steps, less, block: tl.constexpr):
    offsets = tl.program_id(0) * block + tl.arange(0, block)
    x = tl.load(values + offsets)
    for _ in range(0, num_steps):
        x = x * x - less
    tl.store(values + offsets, x)
