"""``torch._int_mm``: cuBLAS on int8. It gives int32 sums; scales are not its part and are not timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qmeter_native.benchmark.contender import Activation, Contender, Product

__all__ = ["contenders"]


def contenders(vllm_ops: Path | None) -> tuple[Contender, ...]:
    """The second operand column by column: with both row by row it runs at a tenth of the rate on an H200."""
    return (Contender("torch._int_mm", ("W8A8-INT",), _prepare, (7, 5), finish=_scaled),)


def _prepare(weight: Any, dtype: Any) -> Product:
    column_major = weight.values.clone().t()
    return lambda activation: torch._int_mm(activation.values, column_major)


def _scaled(sums: Any, activation: Activation, weight: Any) -> Any:
    """What the sums stand for, for the check."""
    return (sums.double() * activation.scales.double() * weight.scales.double().reshape(1, -1)).to(activation.out_dtype)
