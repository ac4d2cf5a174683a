"""``weight_only_gemm``: the fused product, ``out[M, N] = x[M, K] @ w[N, K].T + bias``."""

from __future__ import annotations

from typing import Any

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import (
    check_capability,
    check_contiguous,
    check_dtype,
    check_same_device,
    check_shape,
)
from qmeter_native.kernels.gemm_config import GemmConfig
from qmeter_native.kernels.weight_only.config import check_config, choose_config
from qmeter_native.kernels.weight_only.constants import product_constants
from qmeter_native.kernels.weight_only.product import weight_only_kernel
from qmeter_native.kernels.weight_only.tensor import WeightOnlyTensor
from qmeter_native.kernels.weight_only.variants import aot_variants

__all__ = ["aot_variants", "check_arguments", "weight_only_gemm"]


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
        DeviceError: The GPU is older than Ampere.
    """
    check_arguments(x, weight, bias)
    n, k = weight.shape
    rows = x.reshape(-1, k)
    if weight.order is not None:
        rows = rows.index_select(1, weight.order)
    out = torch.empty((rows.shape[0], n), dtype=x.dtype, device=x.device)
    if rows.shape[0]:
        m, layout = rows.shape[0], weight.layout
        chosen = choose_config(layout, m) if config is None else check_config(config, layout, m)
        _launch(rows, weight, bias, out, chosen)
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
    m, (n, k), layout = rows.shape[0], weight.shape, weight.layout
    blocks = config.tiles(m, n)
    partials = out
    if config.split_k > 1:
        size = blocks * config.split_k * config.block_n * config.block_m
        partials = torch.empty(size, dtype=torch.float32, device=out.device)
    unread = weight.row_scales
    scales, zeros, table, bias_or_unread = (
        unread if tensor is None else tensor for tensor in (weight.scales, weight.zeros, weight.table, bias)
    )
    weight_only_kernel[(blocks, config.split_k)](
        rows, weight.words, scales, zeros, weight.row_scales, bias_or_unread, table, out, partials, weight.counters,
        m, n, k, layout.tiles, layout.padded_shape[0] // 2, config.split_k,
        HAS_BIAS=bias is not None, EVEN_K=k % layout.tile_k == 0, **product_constants(weight, rows.dtype, config),
        num_warps=config.num_warps, num_stages=config.num_stages,
    )  # fmt: skip
