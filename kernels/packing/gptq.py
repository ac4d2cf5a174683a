"""GPTQ: integers of 2, 3, 4 or 8 bits, packed along the inputs; 5 to 7 in the newer layout of bit planes.

A layer of N outputs and K inputs in groups of G stores

- ``qweight`` int32 ``[K * bits / 32, N]``, the codes of consecutive inputs of one output, lowest bits first;
- ``qzeros`` int32 ``[ceil(K / G), N * bits / 32]``, zero points of consecutive outputs: zero - 1 where
  ``checkpoint_format`` is "gptq", so that it holds no zero of 0, and zero itself in "gptq_v2" and "gptq_p";
- ``scales`` float16 ``[ceil(K / G), N]``;
- ``g_idx`` int32 ``[K]``, the group of each input: ``k // G`` but for act-order (``desc_act``).

"gptq_p" splits codes into planes whose widths divide 32 (three bits: 2 + 1): each 32 codes take ``bits`` words, the
lowest plane first. Layouts as GPTQModel 7 writes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing.bits import pack_bits, unpack_bits
from qmeter_native.kernels.packing.requirements import (
    group_order,
    integer_zeros,
    required_field,
    required_tensor,
    same_values,
)
from qmeter_native.kernels.packing.rounding import round_asymmetric, round_symmetric
from qmeter_native.kernels.quantized_weight import IntegerWeight

__all__ = ["GptqConfig", "pack", "quantize", "unpack"]

_PLANES: Final[dict[int, tuple[int, ...]]] = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,)}
_STREAM_BITS: Final = (2, 3, 4, 8)


@dataclass(frozen=True, slots=True)
class GptqConfig:
    """``quantization_config`` of a GPTQ checkpoint, or its ``quantize_config.json``.

    Attributes:
        bits: 2, 3, 4 or 8; "gptq_p" also 5, 6 and 7.
        group_size: Inputs that share a scale, -1: all.
        desc_act: Act-order: ``g_idx`` names the group of each input.
        sym: Every zero point is ``2 ** (bits - 1)``.
        checkpoint_format: "gptq" (zero points stored less 1), "gptq_v2", "gptq_p".
        lm_head: Whether the output layer is quantized too.
        dynamic: Other values of these fields by pattern of a layer's name: ``+:pattern`` or ``pattern`` overrides,
            ``-:pattern`` leaves the layer unquantized; the first that matches from the name's start counts.
    """

    bits: int = 4
    group_size: int = 128
    desc_act: bool = False
    sym: bool = True
    checkpoint_format: str = "gptq"
    lm_head: bool = False
    dynamic: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        required_field("gptq", "checkpoint_format", self.checkpoint_format, ("gptq", "gptq_v2", "gptq_p"))
        widths = tuple(_PLANES) if self.checkpoint_format == "gptq_p" else _STREAM_BITS
        required_field(self.checkpoint_format, "bits", self.bits, widths)
        if self.group_size != -1 and self.group_size < 1:
            raise UsageError(f"gptq: group_size is {self.group_size}", "It must be positive, or -1 for all inputs.")

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> GptqConfig:
        """Read ``quantization_config``.

        Raises:
            UsageError: A field is missing or has a value that is not supported.
        """
        required_field("gptq", "quant_method", config.get("quant_method", "gptq"), ("gptq",))
        required_field("gptq", "pack_dtype", config.get("pack_dtype", "int32"), ("int32",))
        required_field("gptq", "is_marlin_format", config.get("is_marlin_format", False), (False,))
        for name in ("bits", "group_size"):
            if name not in config:
                raise UsageError(f"gptq: {name} is missing from quantization_config", "It must be given.")
        return cls(
            bits=config["bits"],
            group_size=config["group_size"],
            desc_act=bool(config.get("desc_act", False)),
            sym=bool(config.get("sym", True)),
            checkpoint_format=config.get("checkpoint_format") or config.get("format") or "gptq",
            lm_head=bool(config.get("lm_head", False)),
            dynamic=config.get("dynamic") or {},
        )

    def to_dict(self) -> dict[str, Any]:
        """``quantization_config`` as vLLM 0.26 and transformers 5 read it."""
        config: dict[str, Any] = {
            "quant_method": "gptq",
            "bits": self.bits,
            "group_size": self.group_size,
            "desc_act": self.desc_act,
            "sym": self.sym,
            "lm_head": self.lm_head,
            "checkpoint_format": self.checkpoint_format,
            "pack_dtype": "int32",
        }
        if self.dynamic:
            config["dynamic"] = {pattern: dict(values) for pattern, values in self.dynamic.items()}
        return config

    def of_layer(self, name: str) -> GptqConfig | None:
        """What holds for the layer called ``name`` after ``dynamic``; None: it is not quantized."""
        for pattern, values in self.dynamic.items():
            if re.match(pattern.removeprefix("+:").removeprefix("-:"), name):
                known = {
                    key: value for key, value in values.items() if key in ("bits", "group_size", "desc_act", "sym")
                }
                return None if pattern.startswith("-:") else replace(self, dynamic={}, **known)
        return replace(self, dynamic={})

    def check_layer(self, name: str, num_outputs: int, num_inputs: int) -> None:
        """Refuse a layer that the format cannot hold.

        Raises:
            UsageError: Naming the layer and what does not divide.
        """
        step = 32 if self.checkpoint_format == "gptq_p" else math.lcm(self.bits, 32) // self.bits
        for what, size in (("inputs", num_inputs), ("outputs", num_outputs)):
            if size % step:
                raise UsageError(
                    f"{name} is {num_outputs} x {num_inputs}, and GPTQ at {self.bits} bits packs multiples of {step}",
                    f"Its {what} must be a multiple of {step}, or the layer must stay unquantized.",
                )


def quantize(weight: Any, config: GptqConfig) -> IntegerWeight:
    """Round to nearest, without GPTQ's correction of errors, which needs calibration data; scales are float16.

    Args:
        weight: Floating point ``[N, K]``.
        config: Its ``desc_act`` is ignored: an order by activations needs calibration data.
    """
    round_weight = round_symmetric if config.sym else round_asymmetric
    return round_weight(weight, config.bits, config.group_size, torch.float16)


def pack(weight: IntegerWeight, config: GptqConfig) -> dict[str, Any]:
    """The checkpoint's tensors ``qweight``, ``qzeros``, ``scales`` and ``g_idx``.

    Raises:
        UsageError: The format cannot hold the weight: other bits or groups than ``config`` has, sizes that do not
            divide, zero points that are no codes, a zero of 0 in "gptq", unequal zeros where ``sym``, an order
            where not ``desc_act``.
    """
    num_outputs, num_inputs = weight.shape
    config.check_layer("the layer", num_outputs, num_inputs)
    group_size = num_inputs if config.group_size == -1 else config.group_size
    required_field("gptq", "bits", config.bits, (weight.bits,))
    if weight.group_size != group_size:
        raise UsageError(f"groups of {weight.group_size} inputs", f"The configuration has {config.group_size}.")
    if weight.group_of is not None and not config.desc_act:
        raise UsageError("the weight's groups are in act-order", "Set desc_act in the configuration.")
    zeros = integer_zeros(weight)
    _check_symmetry(zeros, config, stored_as="")
    group_of = weight.group_of
    if group_of is None:
        group_of = torch.arange(num_inputs, dtype=torch.int32, device=weight.codes.device) // group_size
    return {
        "qweight": _pack_words(weight.codes, config, dim=1).t().contiguous(),
        "qzeros": _pack_words(_stored_zeros(zeros, config), config, dim=0).t().contiguous(),
        "scales": same_values("scales", weight.scales, torch.float16).t().contiguous(),
        "g_idx": group_of.to(torch.int32),
    }


def unpack(tensors: Mapping[str, Any], config: GptqConfig) -> IntegerWeight:
    """The weight that a checkpoint's tensors mean.

    Raises:
        UsageError: A tensor is missing or of another type or shape, or tensors and configuration disagree: zero points
            that are not those of ``sym`` (v2 zeros labelled "gptq", for one), an order where not ``desc_act``.
    """
    floats = (torch.float16, torch.bfloat16, torch.float32)
    scales = required_tensor(tensors, "scales", floats, None, None)
    num_groups, num_outputs = scales.shape
    qweight = required_tensor(tensors, "qweight", (torch.int32,), None, num_outputs)
    num_inputs = qweight.shape[0] * 32 // config.bits
    config.check_layer("qweight", num_outputs, num_inputs)
    group_size = num_inputs if config.group_size == -1 else config.group_size
    required_tensor(tensors, "scales", floats, -(-num_inputs // group_size), num_outputs)
    qzeros = required_tensor(tensors, "qzeros", (torch.int32,), num_groups, num_outputs * config.bits // 32)
    zeros = _meant_zeros(_unpack_words(qzeros.t(), config, num_outputs, dim=0), config)
    return IntegerWeight(
        codes=_unpack_words(qweight.t(), config, num_inputs, dim=1),
        scales=scales.t().contiguous(),
        zeros=None if config.sym else zeros,
        bits=config.bits,
        group_size=group_size,
        group_of=_order(tensors, config, num_inputs, group_size),
    )


def _order(tensors: Mapping[str, Any], config: GptqConfig, num_inputs: int, group_size: int) -> Any | None:
    """``g_idx`` where it is an order of its own, None where it is ``k // group_size`` or, without act-order, absent."""
    if "g_idx" not in tensors and not config.desc_act:
        return None
    group_of = group_order(tensors, "g_idx", num_inputs, group_size)
    if group_of is not None and not config.desc_act:
        raise UsageError("g_idx is in act-order, and desc_act is false", "Set desc_act in quantization_config.")
    return group_of


def _stored_zeros(zeros: Any, config: GptqConfig) -> Any:
    """Zero points as ``checkpoint_format`` stores them."""
    if config.checkpoint_format != "gptq":
        return zeros
    if int(zeros.min()) == 0:
        raise UsageError(
            f"{int((zeros == 0).sum())} zero points are 0, and checkpoint_format gptq stores them less 1",
            "Choose checkpoint_format gptq_v2.",
        )
    return zeros - 1


def _meant_zeros(stored: Any, config: GptqConfig) -> Any:
    """Zero points from what ``checkpoint_format`` stores.

    Raises:
        UsageError: They contradict ``sym``; or one of "gptq" holds all ones, which some kernels read as
            ``2 ** bits`` and others as 0, and which zero points of v2 labelled "gptq" may also be.
    """
    if config.checkpoint_format != "gptq":
        _check_symmetry(stored, config, stored_as=config.checkpoint_format)
        return stored
    largest = (1 << config.bits) - 1
    if config.sym:
        _check_symmetry((stored.to(torch.int16) + 1), config, stored_as="gptq")
    elif int(stored.max()) == largest:
        raise UsageError(
            f"qzeros hold {largest}, which checkpoint_format gptq cannot mean: zero points are stored less 1",
            "If the checkpoint's zero points are stored as they are, its checkpoint_format is gptq_v2.",
        )
    return stored + 1


def _check_symmetry(zeros: Any, config: GptqConfig, stored_as: str) -> None:
    """Refuse zero points other than the middle where the configuration is symmetric."""
    half = 1 << (config.bits - 1)
    low, high = int(zeros.min()), int(zeros.max())
    if not config.sym or low == high == half:
        return
    other = {"gptq": half + 1, "gptq_v2": half - 1}.get(stored_as)
    if low == high == other:
        label = "gptq_v2" if stored_as == "gptq" else "gptq"
        raise UsageError(
            f"sym is true, and all zero points of qzeros are {other} as checkpoint_format {stored_as} reads them",
            f"They are stored as {label}: set checkpoint_format {label} in quantization_config.",
        )
    raise UsageError(
        f"sym is true, and zero points reach from {low} to {high}", f"They must all be {half}, or sym must be false."
    )


def _pack_words(codes: Any, config: GptqConfig, dim: int) -> Any:
    """Words of codes along ``dim`` of two, as a stream or in planes."""
    if config.checkpoint_format != "gptq_p":
        return pack_bits(codes, config.bits, dim=dim)
    blocks = codes.movedim(dim, -1).unflatten(-1, (-1, 32))
    words, offset = [], 0
    for width in _PLANES[config.bits]:
        words.append(pack_bits((blocks >> offset) & ((1 << width) - 1), width))
        offset += width
    return torch.cat(words, -1).flatten(-2).movedim(-1, dim)


def _unpack_words(words: Any, config: GptqConfig, length: int, dim: int) -> Any:
    """Codes uint8 of words along ``dim`` of two."""
    if config.checkpoint_format != "gptq_p":
        return unpack_bits(words, config.bits, length, dim)
    blocks = words.movedim(dim, -1).unflatten(-1, (-1, config.bits))
    codes = torch.zeros((*blocks.shape[:-1], 32), dtype=torch.uint8, device=words.device)
    offset = 0
    for width in _PLANES[config.bits]:
        codes |= unpack_bits(blocks[..., offset : offset + width], width, 32) << offset
        offset += width
    return codes.flatten(-2).movedim(-1, dim).contiguous()
