"""``torch._scaled_mm``: FP8 by cuBLASLt (one scale a tensor) and CUTLASS (a scale a row)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qmeter_native.benchmark.contender import Activation, Contender, Product, require

__all__ = ["contenders"]


def contenders(vllm_ops: Path | None) -> tuple[Contender, ...]:
    """With fast accumulation, as serving engines call it; scales by row come out in bfloat16 only."""
    return (Contender("torch._scaled_mm", ("W8A8-FP tensor", "W8A8-FP"), _prepare, (8, 9)),)


def _prepare(weight: Any, dtype: Any) -> Product:
    n, k = weight.shape
    is_tensor = weight.block == (n, k)
    require(is_tensor or dtype == torch.bfloat16, "with scales by row it gives bfloat16 only")
    column_major = weight.values.clone().t()
    scales = weight.scales.reshape(()) if is_tensor else weight.scales.reshape(1, n).contiguous()

    def product(activation: Activation) -> Any:
        x_scales = activation.scales[0, 0] if is_tensor else activation.scales
        return torch._scaled_mm(
            activation.values,
            column_major,
            scale_a=x_scales,
            scale_b=scales,
            out_dtype=activation.out_dtype,
            use_fast_accum=True,
        )

    return product
