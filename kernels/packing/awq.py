"""AWQ in AutoAWQ's GEMM layout: 4-bit integers with zero points, packed along the outputs in an interleaved order.

A layer of N outputs and K inputs in groups of G stores ``qweight`` int32 ``[K, N / 8]``, ``qzeros`` int32
``[K / G, N / 8]`` and ``scales`` float16 ``[K / G, N]``. Nibble i of a word, lowest first, holds output
``(0, 2, 4, 6, 1, 3, 5, 7)[i]`` of eight, and zero points are stored as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing.bits import pack_bits, unpack_bits
from qmeter_native.kernels.packing.requirements import integer_zeros, required_field, required_tensor, same_values
from qmeter_native.kernels.packing.rounding import round_asymmetric
from qmeter_native.kernels.quantized_weight import IntegerWeight

__all__ = ["AwqConfig", "pack", "quantize", "unpack"]

_BITS: Final = 4
_OUTPUT_OF_NIBBLE: Final = (0, 2, 4, 6, 1, 3, 5, 7)
_NIBBLE_OF_OUTPUT: Final = (0, 4, 1, 5, 2, 6, 3, 7)


@dataclass(frozen=True, slots=True)
class AwqConfig:
    """``quantization_config`` of an AWQ checkpoint.

    Attributes:
        group_size: Inputs that share a scale and a zero point, -1: all.
        modules_to_not_convert: A layer whose name contains one of these is not quantized.
    """

    group_size: int = 128
    modules_to_not_convert: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.group_size != -1 and self.group_size < 1:
            raise UsageError(f"awq: group_size is {self.group_size}", "It must be positive, or -1 for all inputs.")

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> AwqConfig:
        """Read ``quantization_config``; also AutoAWQ's own names ``w_bit`` and ``q_group_size``.

        Raises:
            UsageError: A field is missing or has a value that is not supported; of the layouts only "gemm" is.
        """
        required_field("awq", "quant_method", config.get("quant_method", "awq"), ("awq",))
        required_field("awq", "bits", config.get("bits", config.get("w_bit")), (_BITS,))
        required_field("awq", "zero_point", config.get("zero_point", True), (True,))
        required_field("awq", "version", str(config.get("version", "gemm")).lower(), ("gemm",))
        group_size = config.get("group_size", config.get("q_group_size"))
        if group_size is None:
            raise UsageError("awq: group_size is missing from quantization_config", "It must be given.")
        return cls(group_size, tuple(config.get("modules_to_not_convert") or ()))

    def to_dict(self) -> dict[str, Any]:
        """``quantization_config`` as vLLM 0.26 and transformers 5 read it."""
        return {
            "quant_method": "awq",
            "bits": _BITS,
            "group_size": self.group_size,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": list(self.modules_to_not_convert) or None,
        }

    def of_layer(self, name: str) -> AwqConfig | None:
        """What holds for the layer called ``name``; None: it is not quantized."""
        return None if any(part in name for part in self.modules_to_not_convert) else self

    def check_layer(self, name: str, num_outputs: int, num_inputs: int) -> None:
        """Refuse a layer that the format cannot hold.

        Raises:
            UsageError: Naming the layer and what does not divide.
        """
        if num_outputs % 8 or (self.group_size != -1 and num_inputs % self.group_size):
            raise UsageError(
                f"{name} is {num_outputs} x {num_inputs}, and AWQ needs outputs in multiples of 8 and inputs in groups "
                f"of {self.group_size}",
                "Choose another group_size, or leave the layer unquantized.",
            )


def quantize(weight: Any, config: AwqConfig) -> IntegerWeight:
    """Round to nearest, without AWQ's scaling of inputs, which needs calibration data; scales are float16.

    Args:
        weight: Floating point ``[N, K]``.
        config: Its ``group_size`` counts.
    """
    return round_asymmetric(weight, _BITS, config.group_size, torch.float16)


def pack(weight: IntegerWeight, config: AwqConfig) -> dict[str, Any]:
    """The checkpoint's tensors ``qweight``, ``qzeros`` and ``scales``.

    Raises:
        UsageError: The format cannot hold the weight: other than 4 bits, other groups than ``config`` has, an
            act-order, sizes that do not divide, zero points that are no codes.
    """
    num_outputs, num_inputs = weight.shape
    config.check_layer("the layer", num_outputs, num_inputs)
    required_field("awq", "bits", weight.bits, (_BITS,))
    group_size = num_inputs if config.group_size == -1 else config.group_size
    if weight.group_size != group_size:
        raise UsageError(f"groups of {weight.group_size} inputs", f"The configuration has {config.group_size}.")
    if weight.group_of is not None:
        raise UsageError("the weight's groups are in act-order, and AWQ has none", "Convert it to GPTQ.")
    return {
        "qweight": _pack_words(weight.codes),
        "qzeros": _pack_words(integer_zeros(weight)),
        "scales": same_values("scales", weight.scales, torch.float16).t().contiguous(),
    }


def unpack(tensors: Mapping[str, Any], config: AwqConfig) -> IntegerWeight:
    """The weight that a checkpoint's tensors mean.

    Raises:
        UsageError: A tensor is missing or of another type or shape.
    """
    qweight = required_tensor(tensors, "qweight", (torch.int32,), None, None)
    num_inputs, num_outputs = qweight.shape[0], qweight.shape[1] * 8
    config.check_layer("qweight", num_outputs, num_inputs)
    group_size = num_inputs if config.group_size == -1 else config.group_size
    num_groups = num_inputs // group_size
    qzeros = required_tensor(tensors, "qzeros", (torch.int32,), num_groups, num_outputs // 8)
    floats = (torch.float16, torch.bfloat16, torch.float32)
    scales = required_tensor(tensors, "scales", floats, num_groups, num_outputs)
    return IntegerWeight(
        codes=_unpack_words(qweight),
        scales=scales.t().contiguous(),
        zeros=_unpack_words(qzeros),
        bits=_BITS,
        group_size=group_size,
    )


def _pack_words(codes: Any) -> Any:
    """int32 ``[columns, N / 8]`` of codes ``[N, columns]``."""
    eights = codes.t().unflatten(1, (-1, 8))
    return pack_bits(eights[..., list(_OUTPUT_OF_NIBBLE)].flatten(1), _BITS)


def _unpack_words(words: Any) -> Any:
    """Codes uint8 ``[N, columns]`` of int32 ``[columns, N / 8]``."""
    nibbles = unpack_bits(words, _BITS, words.shape[1] * 8).unflatten(1, (-1, 8))
    return nibbles[..., list(_NIBBLE_OF_OUTPUT)].flatten(1).t().contiguous()
