"""HQQ: integers of 2, 3, 4 or 8 bits in groups along the inputs, with zero points in floating point.

The matrix is cut into R = N * K / G rows of one group each. Codes of rows that lie far apart share a word: at four bits
row r has the high nibble and row r + R / 2 the low one; at two bits quarters of the rows share a byte; at three bits
tenths of the rows, filled up with zeros, share an int32 word, the first in bits 27 to 29. A layer stores ``W_q`` ``[R /
codes per word, G]``, ``scale`` and ``zero`` ``[R, 1]``, and what else is known of it (bits, shape, packing, ...) as
tensors, too, so that safetensors can hold it: numbers as int32 scalars, truths as uint8, texts as their characters.
As hqq 0.2.8 writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing.requirements import required_field, required_tensor, same_values
from qmeter_native.kernels.packing.rounding import grouped
from qmeter_native.kernels.quantized_weight import IntegerWeight

__all__ = ["HqqConfig", "pack", "quantize", "unpack"]

_PACKING: Final = {8: "8bit_u8", 4: "4bit_u8", 3: "3bit_32", 2: "2bit_u8"}
_CODES_PER_WORD: Final = {8: 1, 4: 2, 3: 10, 2: 4}
_FALSE: Final = ("view_as_float", "quant_scale", "quant_zero", "offload_meta")
_TRUE: Final = ("encoded_state_dict", "stores_quant_config", "channel_wise", "optimize")
_FLOATS: Final = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class HqqConfig:
    """``quantization_config`` of an HQQ checkpoint, one for all layers.

    Attributes:
        bits: 2, 3, 4 or 8.
        group_size: Inputs that share a scale and a zero point, -1: all; it must divide them.
        skip_modules: A layer whose name contains one of these is not quantized.
    """

    bits: int = 4
    group_size: int = 64
    skip_modules: tuple[str, ...] = ("lm_head",)

    def __post_init__(self) -> None:
        required_field("hqq", "nbits", self.bits, tuple(_PACKING))
        if self.group_size != -1 and self.group_size < 1:
            raise UsageError(f"hqq: group_size is {self.group_size}", "It must be positive, or -1 for all inputs.")

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> HqqConfig:
        """Read ``quantization_config`` as transformers writes it.

        Raises:
            UsageError: A field is missing or has a value that is not supported: groups along the outputs (axis 0), or
                another configuration for each layer.
        """
        required_field("hqq", "quant_method", config.get("quant_method", "hqq"), ("hqq",))
        parameters = config.get("quant_config", {}).get("weight_quant_params")
        if parameters is None:
            raise UsageError(
                "hqq: weight_quant_params is missing from quant_config", "Configurations by layer are not supported."
            )
        required_field("hqq", "axis", parameters.get("axis", 1), (1,))
        required_field("hqq", "channel_wise", parameters.get("channel_wise", True), (True,))
        group_size = parameters.get("group_size")
        skipped = tuple(config.get("skip_modules") or ())
        return cls(parameters.get("nbits"), -1 if group_size is None else group_size, skipped)

    def to_dict(self) -> dict[str, Any]:
        """``quantization_config`` as transformers 5 reads it."""
        parameters = {
            "nbits": self.bits,
            "channel_wise": True,
            "group_size": None if self.group_size == -1 else self.group_size,
            "optimize": True,
            "round_zero": self.bits == 4,
            "axis": 1,
            "view_as_float": False,
        }
        return {
            "quant_method": "hqq",
            "quant_config": {
                "weight_quant_params": parameters,
                "scale_quant_params": None,
                "zero_quant_params": None,
                "offload_meta": False,
            },
            "skip_modules": list(self.skip_modules),
        }

    def of_layer(self, name: str) -> HqqConfig | None:
        """What holds for the layer called ``name``; None: it is not quantized."""
        return None if any(part in name for part in self.skip_modules) else self

    def check_layer(self, name: str, num_outputs: int, num_inputs: int) -> None:
        """Refuse a layer that the format cannot hold.

        Raises:
            UsageError: Naming the layer and what does not divide.
        """
        group_size = num_inputs if self.group_size == -1 else self.group_size
        size = f"{name} is {num_outputs} x {num_inputs}"
        if num_inputs % group_size:
            raise UsageError(f"{size}, and HQQ needs inputs in groups of {group_size}", "Choose another group_size.")
        num_rows, step = num_outputs * num_inputs // group_size, _CODES_PER_WORD[self.bits]
        if self.bits != 3 and num_rows % step:
            raise UsageError(
                f"{size}: {num_rows} groups, and HQQ at {self.bits} bits packs multiples of {step}",
                "Choose another group_size.",
            )


def quantize(
    weight: Any, config: HqqConfig, scale_dtype: Any = torch.float16, *, iterations: int = 20
) -> IntegerWeight:
    """Round to nearest between a group's smallest and largest weight, then move the zero points by HQQ's solver.

    The solver minimizes the sum of ``|error| ** 0.7``, which heeds outliers less than squares do, by half-quadratic
    splitting: in turn an estimate of the error, shrunken (generalized soft threshold), and the zero point that makes up
    for the rest on average. It ends when the mean error falls no more. After Badri and Shaji, "Half-Quadratic
    Quantization of Large Machine Learning Models", 2023, with its values: p = 0.7, beta = 10.

    Args:
        weight: Floating point ``[N, K]``.
        config: Its ``bits`` and ``group_size`` count.
        scale_dtype: Type of scales and zero points.
        iterations: Steps of the solver at most; 0 rounds only.
    """
    config.check_layer("the layer", *weight.shape)
    groups, group_size = grouped(weight, config.group_size)
    largest = (1 << config.bits) - 1
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    spread = high - low
    scales = torch.where(spread > 1e-4, spread / largest, 1.0).clamp_min(1 / 2e4)  # as hqq: scales that float16 holds
    zeros = -low / scales
    if config.bits == 4:
        zeros = zeros.round()
    best_error = torch.inf
    for _ in range(iterations):
        codes = (groups / scales + zeros).round().clamp(0, largest)
        error = groups - (codes - zeros) * scales
        if (mean_error := float(error.abs().mean())) >= best_error:
            break
        best_error = mean_error
        zeros = (codes - (groups - _shrunken(error)) / scales).mean(2, keepdim=True)
    scales, zeros = scales.to(scale_dtype), zeros.to(scale_dtype)
    codes = (groups / scales.float() + zeros.float()).round().clamp(0, largest).to(torch.uint8)
    return IntegerWeight(codes.flatten(1), scales.squeeze(2), zeros.squeeze(2), config.bits, group_size)


def pack(weight: IntegerWeight, config: HqqConfig) -> dict[str, Any]:
    """The checkpoint's tensors, those that describe the layer among them.

    Raises:
        UsageError: The format cannot hold the weight: other bits or groups than ``config`` has, an act-order, sizes
            that do not divide, zero points that the scales' type does not hold.
    """
    num_outputs, num_inputs = weight.shape
    config.check_layer("the layer", num_outputs, num_inputs)
    required_field("hqq", "nbits", config.bits, (weight.bits,))
    group_size = num_inputs if config.group_size == -1 else config.group_size
    if weight.group_size != group_size:
        raise UsageError(f"groups of {weight.group_size} inputs", f"The configuration has {config.group_size}.")
    if weight.group_of is not None:
        raise UsageError("the weight's groups are in act-order, and HQQ has none", "Convert it to GPTQ.")
    zeros = torch.full_like(weight.scales, 1 << (weight.bits - 1)) if weight.zeros is None else weight.zeros
    return {
        "W_q": _pack_rows(weight.codes.reshape(-1, group_size), weight.bits),
        "scale": weight.scales.reshape(-1, 1),
        "zero": same_values("zero points", zeros, weight.scales.dtype).reshape(-1, 1),
        "nbits": torch.tensor(weight.bits, dtype=torch.int32),
        "group_size": torch.tensor(group_size, dtype=torch.int32),
        "shape": torch.tensor([num_outputs, num_inputs]),
        "axis": torch.tensor(1, dtype=torch.int32),
        "packing": _text(_PACKING[weight.bits]),
        "unpack_view_dtype": _text("torch.int32" if weight.bits == 3 else "torch.uint8"),
        "compute_dtype": _text(str(weight.scales.dtype)),
        **{name: torch.tensor(0, dtype=torch.uint8) for name in _FALSE},
        **{name: torch.tensor(1, dtype=torch.uint8) for name in _TRUE},
        "round_zero": torch.tensor(int(weight.bits == 4), dtype=torch.uint8),
    }


def unpack(tensors: Mapping[str, Any], config: HqqConfig) -> IntegerWeight:
    """The weight that a checkpoint's tensors mean.

    Raises:
        UsageError: A tensor is missing or of another type or shape, or the layer's own description contradicts
            ``config`` or is not supported.
    """
    num_outputs, num_inputs = required_tensor(tensors, "shape", (torch.int64, torch.int32), 2).tolist()
    config.check_layer("W_q", num_outputs, num_inputs)
    group_size = num_inputs if config.group_size == -1 else config.group_size
    expected = {"nbits": config.bits, "group_size": group_size, "axis": 1, "quant_scale": 0, "quant_zero": 0}
    for name, value in expected.items():
        if name in tensors:
            required_field("hqq", name, int(tensors[name]), (value,))
    num_rows, per_word = num_outputs * num_inputs // group_size, _CODES_PER_WORD[config.bits]
    scales = required_tensor(tensors, "scale", _FLOATS, num_rows, 1)
    zeros = required_tensor(tensors, "zero", _FLOATS, num_rows, 1)
    word = torch.int32 if config.bits == 3 else torch.uint8
    stored = required_tensor(tensors, "W_q", (word, *_FLOATS), None, None)
    words = {"W_q": stored.view(word) if stored.dtype in _FLOATS else stored}  # view_as_float
    rows = required_tensor(words, "W_q", (word,), -(-num_rows // per_word), group_size)
    return IntegerWeight(
        codes=_unpack_rows(rows, config.bits)[:num_rows].reshape(num_outputs, num_inputs),
        scales=scales.reshape(num_outputs, -1),
        zeros=zeros.reshape(num_outputs, -1),
        bits=config.bits,
        group_size=group_size,
    )


def _shrunken(error: Any) -> Any:
    """The generalized soft threshold of HQQ's solver: ``sign(e) * max(0, |e| - |e| ** (p - 1) / beta)``."""
    size = error.abs()
    return error.sign() * (size - size.pow(0.7 - 1) / 10).clamp_min(0)


def _pack_rows(codes: Any, bits: int) -> Any:
    """Words ``[R / per word, G]`` of codes ``[R, G]``: equal parts of the rows, the first in the highest bits."""
    per_word = _CODES_PER_WORD[bits]
    parts = torch.nn.functional.pad(codes, (0, 0, 0, -codes.shape[0] % per_word)).unflatten(0, (per_word, -1)).int()
    words = torch.zeros_like(parts[0])
    for part in parts:
        words = words << bits | part
    return words if bits == 3 else words.to(torch.uint8)


def _unpack_rows(words: Any, bits: int) -> Any:
    """Codes uint8 ``[per word * rows, G]`` of words ``[rows, G]``."""
    per_word = _CODES_PER_WORD[bits]
    mask = (1 << bits) - 1
    parts = [((words >> (bits * (per_word - 1 - part))) & mask).to(torch.uint8) for part in range(per_word)]
    return torch.cat(parts)


def _text(text: str) -> Any:
    """A text as uint8 characters."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)
