# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""The fused product: ``out[M, N] = x[M, K] @ w[N, K].T + bias``, weights decoded on the way to the tensor cores.

It is computed as ``out.T = w @ x.T``: the decoded weights are the product's A operand, which ``wgmma`` takes from
registers, so that they never go back to shared memory; ``x.T`` is B, in shared memory. The words lie in the order of A's
fragments (encoding.py), which the compiler finds out by itself: no layout is converted in the loop.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from qmeter_native.errors import UsageError
from qmeter_native.kernels.aot import KernelVariant
from qmeter_native.kernels.checks import (
    check_capability,
    check_contiguous,
    check_dtype,
    check_same_device,
    check_shape,
)
from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.weight_only.config import check_config, choose_config, scales_accumulator
from qmeter_native.kernels.weight_only.decode import INTERPRET, constraints, decode, decode_assembly
from qmeter_native.kernels.weight_only.encoding import ENCODINGS
from qmeter_native.kernels.weight_only.tensor import WeightOnlyTensor

__all__ = ["aot_variants", "weight_only_gemm"]


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


@triton.jit
def weight_only_kernel(
    x, words, scales, zeros, row_scales, bias, table, out, partials, counters,
    m_size, n_size, k_size, tiles, half_rows,
    KIND: tl.constexpr, ZERO: tl.constexpr, ASSEMBLY: tl.constexpr, CONSTRAINTS: tl.constexpr,
    WORDS: tl.constexpr, SPAN: tl.constexpr, TILE_K: tl.constexpr, GROUP: tl.constexpr,
    SCALE_ACCUMULATOR: tl.constexpr, HAS_BIAS: tl.constexpr, EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP_M: tl.constexpr, SPLIT_K: tl.constexpr,
    PLAIN: tl.constexpr,
):  # fmt: skip
    """One tile of the output, or its sum over one of ``SPLIT_K`` stretches of inputs."""
    D: tl.constexpr = x.dtype.element_ty
    TILES: tl.constexpr = BLOCK_N // 64
    TILE_WORDS: tl.constexpr = 64 * SPAN
    # Scales of a tile: more than one where groups are smaller than it.
    S: tl.constexpr = TILE_K // GROUP if (GROUP > 0 and GROUP < TILE_K) else 1
    TILES_OF_GROUP: tl.constexpr = GROUP // TILE_K if GROUP > TILE_K else 1

    # Neighbouring programs share GROUP_M tiles of x and go through the weights together, so that both stay in L2.
    blocks_m, blocks_n = tl.cdiv(m_size, BLOCK_M), tl.cdiv(n_size, BLOCK_N)
    pid, split = tl.program_id(0), tl.program_id(1)
    of_group = GROUP_M * blocks_n
    first_m = pid // of_group * GROUP_M
    group_m = tl.minimum(blocks_m - first_m, GROUP_M)
    block_m = first_m + pid % of_group % group_m
    block_n = pid % of_group // group_m

    per_split = tl.cdiv(tiles, SPLIT_K)
    first = split * per_split
    last = tl.minimum(first + per_split, tiles)

    row_tiles = (block_n * TILES + tl.arange(0, TILES)).to(tl.int64) * tiles
    word_pointers = words + row_tiles[:, None] * (WORDS * TILE_WORDS) + tl.arange(0, TILE_WORDS)[None, :]
    pairs = block_n * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)[None, :] + tl.arange(0, S)[:, None] * half_rows
    ms = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    ns = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    ks = tl.arange(0, TILE_K)
    x_pointers = x + ms[None, :].to(tl.int64) * k_size + ks[:, None]

    accumulator = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    if SCALE_ACCUMULATOR:
        # These loads feed no product, so that the compiler would not pipeline them: one tile ahead, by hand.
        scale = load_pairs(scales + tl.minimum(first, tiles - 1) // TILES_OF_GROUP * half_rows + pairs, tl.float32)
    for tile in range(first, last):
        w0 = load_words(word_pointers + tile * (WORDS * TILE_WORDS), TILES, SPAN)
        w1, w2 = w0, w0
        if WORDS == 3:
            w1 = load_words(word_pointers + (tile * WORDS + 1) * TILE_WORDS, TILES, SPAN)
            w2 = load_words(word_pointers + (tile * WORDS + 2) * TILE_WORDS, TILES, SPAN)
        group = tile * S // TILES_OF_GROUP if GROUP > 0 else 0
        zero = w0
        if ZERO != "none":
            zero_point = load_pairs(zeros + group * half_rows + pairs, D)
            if ZERO == "fused":
                zero = tl.broadcast_to(zero_point, (BLOCK_N, SPAN))
        w = decode(w0, w1, w2, zero, table, KIND, ZERO, ASSEMBLY, CONSTRAINTS, D, PLAIN)
        if ZERO == "raw":
            w = tl.reshape(tl.reshape(w, (BLOCK_N, S, TILE_K // S)) - zero_point[:, :, None], (BLOCK_N, TILE_K))
        if EVEN_K:
            x_mask = (ms < m_size)[None, :]
        else:
            x_mask = (ms < m_size)[None, :] & (ks < k_size - tile * TILE_K)[:, None]
        xs = tl.load(x_pointers + tile * TILE_K, mask=x_mask, other=0.0)
        if SCALE_ACCUMULATOR:
            product = _dot(w, xs, tl.zeros((BLOCK_N, BLOCK_M), tl.float32), PLAIN)
            accumulator += product * scale
            following = tl.minimum(tile + 1, tiles - 1) // TILES_OF_GROUP
            scale = load_pairs(scales + following * half_rows + pairs, tl.float32)
        else:
            if GROUP > 0:
                factor = load_pairs(scales + group * half_rows + pairs, D)
                w = tl.reshape(tl.reshape(w, (BLOCK_N, S, TILE_K // S)) * factor[:, :, None], (BLOCK_N, TILE_K))
            accumulator = _dot(w, xs, accumulator, PLAIN)

    inside = (ms < m_size)[None, :] & (ns < n_size)[:, None]
    out_pointers = out + ms[None, :].to(tl.int64) * n_size + ns[:, None]
    if SPLIT_K == 1:
        _store(out_pointers, accumulator, row_scales, bias, ns, inside, n_size, HAS_BIAS)
    else:
        # The last of a tile's programs to arrive adds up all partial sums, in their order: the result does not depend
        # on which it was. A second kernel would cost a launch (about 2 us).
        output = block_m * blocks_n + block_n
        cell = tl.arange(0, BLOCK_N)[:, None] * BLOCK_M + tl.arange(0, BLOCK_M)[None, :]
        own = partials + output.to(tl.int64) * (SPLIT_K * BLOCK_N * BLOCK_M) + cell
        tl.store(own + split * (BLOCK_N * BLOCK_M), accumulator)
        tl.debug_barrier()
        arrived = tl.atomic_add(counters + output, 1, sem="acq_rel", scope="gpu")
        if arrived == SPLIT_K - 1:
            total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
            for part in tl.static_range(SPLIT_K):
                total += tl.load(own + part * (BLOCK_N * BLOCK_M), cache_modifier=".cg")
            _store(out_pointers, total, row_scales, bias, ns, inside, n_size, HAS_BIAS)
            tl.store(counters + output, 0)


@triton.jit
def _dot(w, xs, accumulator, PLAIN: tl.constexpr):
    if PLAIN:
        return tl.dot(w.to(tl.float32), xs.to(tl.float32), accumulator)
    return tl.dot(w, xs, accumulator)


@triton.jit
def _store(pointers, total, row_scales, bias, ns, inside, n_size, HAS_BIAS: tl.constexpr):
    total = total * tl.load(row_scales + ns)[:, None]
    if HAS_BIAS:
        total += tl.load(bias + ns, mask=ns < n_size, other=0.0).to(tl.float32)[:, None]
    tl.store(pointers, total.to(pointers.dtype.element_ty), mask=inside)


def weight_only_gemm(
    x: Any, weight: WeightOnlyTensor, bias: Any | None = None, *, config: GemmConfig | None = None
) -> Any:
    """``x @ w.T + bias`` by the fused kernel: ``[..., K]`` to ``[..., N]``.

    Args:
        x: float16 or bfloat16 ``[..., K]``, contiguous.
        weight: ``[N, K]``.
        bias: ``[N]``, of the type of ``x``.
        config: Tiles; None: the table's, or safe ones.

    Raises:
        UsageError: An argument has another type, shape, stride or device than stated.
    """
    check_arguments(x, weight, bias)
    n, k = weight.shape
    rows = x.reshape(-1, k)
    if weight.order is not None:
        rows = rows.index_select(1, weight.order)
    out = torch.empty((rows.shape[0], n), dtype=x.dtype, device=x.device)
    if rows.shape[0]:
        _launch(rows, weight, bias, out, config or choose_config(weight, rows.shape[0]))
    return out.reshape(*x.shape[:-1], n)


def check_arguments(x: Any, weight: WeightOnlyTensor, bias: Any | None) -> None:
    """Refuse what the kernels do not take, before anything is launched."""
    check_dtype("x", x, torch.float16, torch.bfloat16)
    if x.ndim == 0:
        raise UsageError("x has no dimension", f"It must be (..., {weight.shape[1]}).")
    check_shape("x", x, *(None,) * (x.ndim - 1), weight.shape[1])
    check_contiguous("x", x)
    if bias is not None:
        check_dtype("bias", bias, x.dtype)
        check_shape("bias", bias, weight.shape[0])
        check_contiguous("bias", bias)
    check_same_device(x=x, weight=weight, bias=bias)
    check_capability("The weight-only product", x.device, (8, 0))


def _launch(rows: Any, weight: WeightOnlyTensor, bias: Any | None, out: Any, config: GemmConfig) -> None:
    m, (n, k) = rows.shape[0], weight.shape
    config = check_config(config, weight, m)
    blocks = triton.cdiv(m, config.block_m) * triton.cdiv(n, config.block_n)
    partials = out
    if config.split_k > 1:
        size = blocks * config.split_k * config.block_n * config.block_m
        partials = torch.empty(size, dtype=torch.float32, device=out.device)
    weight_only_kernel[(blocks, config.split_k)](
        rows, weight.words, _or(weight.scales, weight), _or(weight.zeros, weight), weight.row_scales,
        _or(bias, weight), _or(weight.table, weight), out, partials, weight.counters,
        m, n, k, weight.words.shape[1], weight.padded_shape[0] // 2,
        HAS_BIAS=bias is not None, EVEN_K=k % weight.tile_k == 0, **_constants(weight, rows.dtype, config),
        num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip


def _or(tensor: Any | None, weight: WeightOnlyTensor) -> Any:
    """A pointer that is not read, where there is nothing."""
    return weight.row_scales if tensor is None else tensor


def _zero_mode(weight: WeightOnlyTensor) -> str:
    """How zero points are taken off: in the decoding where a tile has one integer of them for an output, else after."""
    if weight.zeros is None:
        return "none"
    return "raw" if weight.float_zeros or 0 < weight.group_size < weight.tile_k else "fused"


def _constants(weight: WeightOnlyTensor, dtype: Any, config: GemmConfig) -> dict[str, Any]:
    name = "fp16" if dtype == torch.float16 else "bf16"
    return _constants_of(weight.kind, name, _zero_mode(weight), weight.span, weight.group_size, config, weight.values)


def _constants_of(
    kind: str, dtype: str, zero: str, span: int, group_size: int, config: GemmConfig, table: tuple[float, ...] = ()
) -> dict[str, Any]:
    """Compile-time arguments of the kernel but HAS_BIAS and EVEN_K."""
    encoding = ENCODINGS[kind]
    tile_k = encoding.parts * span
    return {
        "KIND": kind,
        "ZERO": zero,
        "ASSEMBLY": decode_assembly(kind, dtype, zero, table),
        "CONSTRAINTS": constraints(kind),
        "WORDS": encoding.words,
        "SPAN": span,
        "TILE_K": tile_k,
        "GROUP": group_size,
        "SCALE_ACCUMULATOR": scales_accumulator(group_size, tile_k, config.block_m),
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "GROUP_M": 8,
        "SPLIT_K": config.split_k,
        "PLAIN": INTERPRET,
    }


_POINTERS = {
    "words": "*i16", "scales": "*i32", "zeros": "*i32", "row_scales": "*fp32", "table": "*fp32",
    "partials": "*fp32", "counters": "*i32",
}  # fmt: skip


def aot_variants() -> tuple[KernelVariant, ...]:
    """The variants that serving meets most, and one of each decoding."""
    small, medium, large = (
        GemmConfig(16, 128, 128, 4, 8, 4),
        GemmConfig(64, 128, 128, 1, 8, 4),
        GemmConfig(128, 128, 128, 1, 8, 4),
    )
    return (
        _variant("uint4-g128-m16", "uint4", "fp16", "none", 32, 128, small),
        _variant("uint4-g128-m64", "uint4", "fp16", "none", 32, 128, medium),
        _variant("uint4-g128-m128", "uint4", "fp16", "none", 32, 128, large),
        _variant("uint4-g128-bf16-m16", "uint4", "bf16", "none", 32, 128, small),
        _variant("uint4-g128-zero-m16", "uint4", "fp16", "fused", 32, 128, small),
        _variant("uint4-g64-float-zero-m16", "uint4", "fp16", "raw", 32, 64, small),
        _variant("uint8-row-m16", "uint8", "fp16", "none", 64, 0, small),
        _variant("uint8-row-bf16-m16", "uint8", "bf16", "none", 64, 0, small),
        _variant("uint2-g128-m16", "uint2", "fp16", "fused", 16, 128, small),
        _variant("uint3-g128-m16", "uint3", "fp16", "none", 16, 128, small),
        _variant("nf4-g64-m16", "table", "fp16", "none", 32, 64, small, tuple(float(i) for i in range(16))),
        _variant("nvfp4-g16-bf16-m16", "e2m1", "bf16", "none", 32, 16, small),
        _variant("mxfp4-g32-m128", "e2m1", "fp16", "none", 32, 32, large),
        _variant("fp8-block-m128", "e4m3", "fp16", "none", 64, 128, large),
    )


def _variant(
    name: str,
    kind: str,
    dtype: str,
    zero: str,
    span: int,
    group_size: int,
    config: GemmConfig,
    table: tuple[float, ...] = (),
) -> KernelVariant:
    activations = dict.fromkeys(("x", "bias", "out"), f"*{dtype}")
    sizes = dict.fromkeys(("m_size", "n_size", "k_size", "tiles", "half_rows"), "i32")
    return KernelVariant(
        name=f"weight-only-{name}",
        function=weight_only_kernel,
        signature=_POINTERS | activations | sizes,
        constexprs=_constants_of(kind, dtype, zero, span, group_size, config, table)
        | {"HAS_BIAS": False, "EVEN_K": True},
        aligned=(*_POINTERS, *activations, "n_size", "k_size", "tiles", "half_rows"),
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
