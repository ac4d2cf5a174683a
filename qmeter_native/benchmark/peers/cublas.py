"""cuBLAS on 16-bit copies of weights and activations: what quantization is to beat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from qmeter_native.benchmark.contender import Contender, Product
from qmeter_native.kernels.catalog import FORMATS
from qmeter_native.work.scheme import WeightLayout

__all__ = ["contenders"]


def contenders(vllm_ops: Path | None) -> tuple[Contender, ...]:
    """``torch.nn.functional.linear``, beside every format."""
    labels = tuple(form.label for form in FORMATS)
    return (Contender("cublas", labels, _prepare, (0, 0), layout=WeightLayout(16), ceiling="fp16", is_16_bit=True),)


def _prepare(weight: Any, dtype: Any) -> Product:
    matrix = weight.dequantize(torch.float32).to(dtype)
    return lambda activation: torch.nn.functional.linear(activation.half, matrix)
