"""LLM.int8() as bitsandbytes stores it: INT8 weights with the largest magnitude of each output's row.

A layer stores ``weight`` int8 ``[N, K]``, ``SCB`` float32 ``[N]`` and ``weight_format`` uint8, 0: rows. A weight is
``weight * SCB / 127``. Inputs above the threshold are multiplied in 16 bits by the kernel; weights know nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import int8
from qmeter_native.kernels.packing.requirements import required_field, required_tensor
from qmeter_native.kernels.quantized_weight import ScaledWeight

__all__ = ["LlmInt8Config", "pack", "quantize", "unpack"]

_LARGEST: Final = 127
_ROWS: Final = 0


@dataclass(frozen=True, slots=True)
class LlmInt8Config:
    """``quantization_config`` of a bitsandbytes checkpoint with ``load_in_8bit``.

    Attributes:
        threshold: Inputs of a larger magnitude are outliers, their columns multiplied in 16 bits; 0: none are.
        skip_modules: A layer whose name contains one of these is not quantized.
    """

    threshold: float = 6.0
    skip_modules: tuple[str, ...] = ("lm_head",)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> LlmInt8Config:
        """Read ``quantization_config``.

        Raises:
            UsageError: A field has a value that is not supported.
        """
        required_field("llm_int8", "quant_method", config.get("quant_method", "bitsandbytes"), ("bitsandbytes",))
        required_field("llm_int8", "load_in_8bit", config.get("load_in_8bit"), (True,))
        required_field("llm_int8", "load_in_4bit", config.get("load_in_4bit", False), (False,))
        kept = config.get("llm_int8_has_fp16_weight", False)
        required_field("llm_int8", "llm_int8_has_fp16_weight", kept, (False,))
        skipped = config.get("llm_int8_skip_modules")
        return cls(float(config.get("llm_int8_threshold", 6.0)), ("lm_head",) if skipped is None else tuple(skipped))

    def to_dict(self) -> dict[str, Any]:
        """``quantization_config`` as vLLM 0.26 and transformers 5 read it."""
        return {
            "quant_method": "bitsandbytes",
            "load_in_8bit": True,
            "load_in_4bit": False,
            "llm_int8_threshold": self.threshold,
            "llm_int8_skip_modules": list(self.skip_modules),
            "llm_int8_has_fp16_weight": False,
            "llm_int8_enable_fp32_cpu_offload": False,
        }

    def of_layer(self, name: str) -> LlmInt8Config | None:
        """What holds for the layer called ``name``; None: it is not quantized."""
        return None if any(part in name for part in self.skip_modules) else self


def quantize(weight: Any) -> ScaledWeight:
    """Round to nearest by rows, as `int8.quantize` does; bitsandbytes rounds the weight to float16 before.

    Args:
        weight: Floating point ``[N, K]``.
    """
    return int8.quantize(weight.half())


def pack(weight: ScaledWeight) -> dict[str, Any]:
    """The checkpoint's tensors ``weight``, ``SCB`` and ``weight_format``.

    ``SCB`` is 127 scales in float32, so that a scale comes back within 2 ** -23 of itself.

    Raises:
        UsageError: The weight is not int8, or has no scale of its own for each output.
    """
    if weight.values.dtype != torch.int8 or weight.block != (1, weight.shape[1]):
        raise UsageError(
            f"a weight of {str(weight.values.dtype).removeprefix('torch.')} with scales of blocks of "
            f"{weight.block[0]} x {weight.block[1]}",
            "LLM.int8() holds int8 with one scale an output.",
        )
    return {
        "weight": weight.values,
        "SCB": weight.scales.squeeze(1) * _LARGEST,
        "weight_format": torch.tensor(_ROWS, dtype=torch.uint8),
    }


def unpack(tensors: Mapping[str, Any]) -> ScaledWeight:
    """The weight that a checkpoint's tensors mean; a missing ``weight_format`` is rows, as in older files.

    Raises:
        UsageError: A tensor is missing or of another type or shape, or ``weight_format`` is a layout for older GPUs.
    """
    values = required_tensor(tensors, "weight", (torch.int8,), None, None)
    num_outputs, num_inputs = values.shape
    largest = required_tensor(tensors, "SCB", (torch.float32,), num_outputs)
    if "weight_format" in tensors:
        required_field("llm_int8", "weight_format", int(tensors["weight_format"]), (_ROWS,))
    return ScaledWeight(values, largest[:, None] / _LARGEST, (1, num_inputs))
