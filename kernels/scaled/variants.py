"""The specialisations of the kernel that are compiled without a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qmeter_native.kernels.aot import KernelVariant
from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.scaled.product import scaled_product
from qmeter_native.kernels.scaled.tiles import swaps_operands

__all__ = ["aot_variants"]

_TYPES = {"int8": "i8", "fp8": "fp8e4nv"}
_SMALL = GemmConfig(16, 64, 256, 4)
_SMALL_BLOCK = GemmConfig(32, 64, 128, 4)
_LARGE = GemmConfig(128, 256, 128, 1, 8, 3, 1)
_LARGE_BLOCK = GemmConfig(128, 128, 128, 1, 8, 4, 1)
_AMPERE = GemmConfig(128, 128, 128, 1, 8, 4)
_AMPERE_SMALL = GemmConfig(16, 64, 128, 4)


def aot_variants() -> tuple[KernelVariant, ...]:
    """Few and many tokens, both types, the three ways of scales."""
    hopper = (9, 0)
    return (
        _variant("scaled int8 small", "int8", _SMALL, True, hopper),
        _variant("scaled int8 large", "int8", _LARGE, True, hopper, {"x_zeros": "*i32", "column_sums": "*i32"}),
        _variant("scaled int8 small, pointers", "int8", _AMPERE_SMALL, False, (8, 0)),
        _variant("scaled int8 large, pointers", "int8", _AMPERE, False, (8, 0)),
        _variant("scaled fp8 small", "fp8", _SMALL, True, hopper, {"bias": "*bf16"}),
        _variant("scaled fp8 large", "fp8", _LARGE, True, hopper),
        _variant("scaled fp8 large, precise", "fp8", _AMPERE, True, hopper, imprecise=128),
        _variant("scaled fp8 small, blocks", "fp8", _SMALL_BLOCK, True, hopper, is_block_scaled=True),
        _variant("scaled fp8 large, blocks", "fp8", _LARGE_BLOCK, True, hopper, is_block_scaled=True),
    )


def _variant(
    name: str,
    type_name: str,
    config: GemmConfig,
    uses_tma: bool,
    minimum: tuple[int, int],
    optional: Mapping[str, str] | None = None,
    is_block_scaled: bool = False,
    imprecise: int | None = None,
) -> KernelVariant:
    element = _TYPES[type_name]
    partial = "*i32" if type_name == "int8" and not is_block_scaled else "*fp32"
    matrices = {"x": f"*{element}", "w": f"*{element}"}
    if uses_tma:
        matrices = {
            "x": f"tensordesc<{element}[{config.block_m},{config.block_k}]>",
            "w": f"tensordesc<{element}[{config.block_n},{config.block_k}]>",
        }
    pointers = {"out": "*bf16", "x_scales": "*fp32", "w_scales": "*fp32"} | dict(optional or {})
    if config.split_k > 1:
        pointers |= {"partials": partial, "counters": "*i32"}
    strides = ("x_stride", "w_stride", "x_scale_token", "x_scale_block", "w_scale_row", "x_zero_token")
    signature = matrices | pointers | dict.fromkeys(("m", "n", "k", *strides), "i32")
    constexprs: dict[str, Any] = dict.fromkeys(set(scaled_product.arg_names) - set(signature))
    constexprs |= {
        "BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "BLOCK_K": config.block_k, "IS_SPLIT": config.split_k > 1,
        "SWAP": swaps_operands(config), "INTEGER": type_name == "int8", "BLOCK_SCALED": is_block_scaled,
        "EVEN_K": True, "TMA": uses_tma, "IMPRECISE": imprecise, "PERSISTENT": config.persistent > 0,
        "STAGES": config.num_stages,
    }  # fmt: skip
    aligned = (*pointers, "n", "k", "x_stride", "w_stride", *(() if uses_tma else ("x", "w")))
    return KernelVariant(
        name, scaled_product, signature, constexprs, aligned, config.num_warps, config.num_stages, minimum
    )
