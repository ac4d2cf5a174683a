"""Rounds large matrices some rows at a time, so that memory holds temporary copies of a few rows only.

A matrix of 70B models has 235 million weights; rounding it whole takes 3 to 8 GB beside it, most of it in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Final

__all__ = ["by_rows"]

_WEIGHTS_AT_ONCE: Final = 1 << 24
_ROWS: Final = 128
"""Rows are cut in multiples of it: blocks of 128 x 128 and bitsandbytes' blocks of the flattened matrix stay whole."""


def by_rows(quantize: Callable[[Any], Any], weights_at_once: int = _WEIGHTS_AT_ONCE) -> Callable[[Any], Any]:
    """``quantize`` for a matrix ``[N, K]``, whose rows (or 128 of them) must be rounded without regard to others."""

    def quantize_parts(weight: Any) -> Any:
        rows = max(weights_at_once // weight.shape[1] // _ROWS, 1) * _ROWS
        parts = [quantize(part) for part in weight.split(rows)]
        return parts[0] if len(parts) == 1 else _joined(parts)

    return quantize_parts


def _joined(parts: list[Any]) -> Any:
    """The `QuantizedWeight` of all rows; what they share (a codebook's table, sizes) is the first one's."""
    import torch

    shared = ("table", "group_of")
    tensors = {
        field.name: [getattr(part, field.name) for part in parts]
        for field in fields(parts[0])
        if isinstance(getattr(parts[0], field.name), torch.Tensor) and field.name not in shared
    }
    return replace(parts[0], **{name: torch.cat(values) for name, values in tensors.items()})
