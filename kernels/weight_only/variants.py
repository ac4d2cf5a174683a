"""Variants of the weight-only kernels that are compiled without a GPU: what serving meets most, and each decoding."""

from __future__ import annotations

from typing import Any

from qmeter_native.kernels.aot import KernelVariant
from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.weight_only.constants import Format
from qmeter_native.kernels.weight_only.dequantize import NUM_WARPS, dequantize_tile_kernel
from qmeter_native.kernels.weight_only.product import weight_only_kernel

__all__ = ["aot_variants"]

_SMALL = GemmConfig(16, 128, 128, split_k=6, num_warps=8, num_stages=4)
_UNROLLED = GemmConfig(16, 128, 256, split_k=6, num_warps=8, num_stages=3)
_MEDIUM = GemmConfig(64, 128, 128, num_warps=8, num_stages=4)
_LARGE = GemmConfig(128, 128, 128, num_warps=8, num_stages=3)
_TABLE = tuple(float(code) for code in range(16))

_POINTERS = {
    "words": "*i16", "scales": "*i32", "zeros": "*i32", "row_scales": "*fp32", "table": "*fp32",
}  # fmt: skip


def aot_variants() -> tuple[KernelVariant, ...]:
    """A handful: each takes about a second to compile."""
    return (
        _product("uint4-g128-m16", Format("uint4", "fp16", 32, 128), _SMALL),
        _product("uint4-g128-m16-unrolled", Format("uint4", "fp16", 32, 128), _UNROLLED),
        _product("uint4-g128-m64", Format("uint4", "fp16", 32, 128), _MEDIUM),
        _product("uint4-g128-bf16-m128", Format("uint4", "bf16", 32, 128), _LARGE),
        _product("uint4-g128-zeros-m16", Format("uint4", "fp16", 32, 128, "integer"), _SMALL),
        _product("uint4-g64-float-zeros-m16", Format("uint4", "bf16", 32, 64, "float"), _SMALL),
        _product("uint8-row-m16", Format("uint8", "fp16", 64, 0), _SMALL),
        _product("uint8-row-bf16-m16", Format("uint8", "bf16", 64, 0), _SMALL),
        _product("uint2-g128-zeros-m16", Format("uint2", "fp16", 16, 128, "integer"), _SMALL),
        _product("uint3-g128-m16", Format("uint3", "fp16", 16, 128), _SMALL),
        _product("nf4-g64-m16", Format("table", "bf16", 32, 64, table=_TABLE), _SMALL),
        _product("nvfp4-g16-m16", Format("e2m1", "bf16", 32, 16), _SMALL),
        _product("mxfp4-g32-m128", Format("e2m1", "fp16", 32, 32), _LARGE),
        _product("fp8-block-m128", Format("e4m3", "fp16", 64, 128), _LARGE),
        _dequantization("uint4-g128", Format("uint4", "fp16", 32, 128), has_order=False),
        _dequantization("uint3-g128-zeros-order", Format("uint3", "bf16", 16, 128, "integer"), has_order=True),
    )


def _product(name: str, format_: Format, config: GemmConfig) -> KernelVariant:
    pointers = _POINTERS | {"partials": "*fp32", "counters": "*i32"}
    pointers |= dict.fromkeys(("x", "bias", "out"), f"*{format_.dtype}")
    sizes = ("n_size", "k_size", "tiles", "half_rows")
    config = GemmConfig(
        config.block_m,
        config.block_n,
        config.block_k if config is _UNROLLED else format_.tile_k,
        config.split_k,
        config.num_warps,
        config.num_stages,
    )
    constants = format_.product_constants(config) | {"HAS_BIAS": False, "EVEN_K": True, "PLAIN": False}
    return _variant(
        f"weight-only-{name}", weight_only_kernel, pointers, (*sizes, "m_size", "splits"), sizes, constants, config
    )


def _dequantization(name: str, format_: Format, has_order: bool) -> KernelVariant:
    pointers = _POINTERS | {"order": "*i32", "out": f"*{format_.dtype}"}
    sizes = ("n_size", "k_size", "tiles", "half_rows")
    zero = "none" if format_.zeros == "none" else "raw"
    constants = format_.constants(zero) | {"HAS_ORDER": has_order, "PLAIN": False}
    return _variant(
        f"weight-only-dequantize-{name}",
        dequantize_tile_kernel,
        pointers,
        sizes,
        sizes,
        constants,
        GemmConfig(0, 0, 0, num_warps=NUM_WARPS),
    )


def _variant(
    name: str,
    function: Any,
    pointers: dict[str, str],
    sizes: tuple[str, ...],
    aligned: tuple[str, ...],
    constants: dict[str, Any],
    config: GemmConfig,
) -> KernelVariant:
    return KernelVariant(
        name,
        function,
        signature=pointers | dict.fromkeys(sizes, "i32"),
        constexprs=constants,
        aligned=(*pointers, *aligned),
        num_warps=config.num_warps,
        num_stages=config.num_stages,
    )
