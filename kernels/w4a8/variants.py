"""The specialisations of the kernel that are compiled without a GPU."""

from __future__ import annotations

from typing import Any

from qmeter_native.kernels.aot import KernelVariant
from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.w4a8.layout import INPUTS
from qmeter_native.kernels.w4a8.product import w4a8_product
from qmeter_native.kernels.w4a8.tensor import CHANNEL, FP8, PROGRESSIVE

__all__ = ["aot_variants"]

_SMALL = GemmConfig(16, 64, INPUTS, 4, 4, 4)
_LARGE = GemmConfig(128, 128, INPUTS, 1, 8, 3)
_ARGUMENTS = {
    PROGRESSIVE: {"groups": "*i32", "scales": "*fp32"},
    CHANNEL: {"scales": "*fp32", "zeros": "*fp32", "x_sums": "*i32"},
    FP8: {"groups": "*i32"},
}


def aot_variants() -> tuple[KernelVariant, ...]:
    """Few and many tokens of each kind; loads by pointers, as Ampere needs them."""
    return (
        _variant(PROGRESSIVE, "small", _SMALL, True),
        _variant(PROGRESSIVE, "large", _LARGE, True),
        _variant(PROGRESSIVE, "small, pointers", _SMALL, False),
        _variant(PROGRESSIVE, "large, pointers", _LARGE, False),
        _variant(CHANNEL, "small", _SMALL, True),
        _variant(CHANNEL, "small, pointers", _SMALL, False),
        _variant(FP8, "small", _SMALL, True),
        _variant(FP8, "large", _LARGE, True),
    )


def _variant(kind: str, name: str, config: GemmConfig, uses_tma: bool) -> KernelVariant:
    element, partial = ("fp8e4nv", "*fp32") if kind == FP8 else ("i8", "*i32")
    pointers = {"codes": "*u8", "x_scales": "*fp32", "out": "*fp16"} | _ARGUMENTS[kind]
    if config.split_k > 1:
        pointers |= {"partials": partial, "counters": "*i32"}
    x = f"tensordesc<{element}[{config.block_m},{INPUTS // 2}]>" if uses_tma else f"*{element}"
    signature = {"x": x} | pointers | dict.fromkeys(("m", "n", "k", "x_stride", "x_scale_token"), "i32")
    constexprs: dict[str, Any] = dict.fromkeys(set(w4a8_product.arg_names) - set(signature))
    constexprs |= {
        "KIND": kind, "SCALES": "float16", "BLOCK_M": config.block_m, "BLOCK_N": config.block_n,
        "IS_SPLIT": config.split_k > 1, "EVEN_K": True, "TMA": uses_tma, "STAGES": config.num_stages,
    }  # fmt: skip
    aligned = (*pointers, "n", "k", "x_stride", *(() if uses_tma else ("x",)))
    minimum = (9, 0) if uses_tma else (8, 0)
    return KernelVariant(
        f"w4a8 {kind} {name}",
        w4a8_product,
        signature,
        constexprs,
        aligned,
        config.num_warps,
        config.num_stages,
        minimum,
    )
