"""Number formats of a model that runs: how wide weights, activations and the KV cache are, scales included."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from qmeter_native.work.role import Role

__all__ = ["Scheme", "WeightLayout", "read_scheme"]

_DTYPE_BITS: Final = {"float32": 32, "float": 32, "bfloat16": 16, "float16": 16, "half": 16}
_FP8_PER_CHANNEL: Final = ("fbgemm_fp8", "fp8_per_channel", "ptpc_fp8")
_FP8: Final = ("fp8", "fp8_per_tensor", "fp8_per_block", "modelopt", "modelopt_fp8", *_FP8_PER_CHANNEL)

_WHOLE_TOKEN: Final = 1 << 30
"""A group of inputs that share a scale, wider than any token."""


@dataclass(frozen=True, slots=True)
class WeightLayout:
    """How a weight matrix ``[N, K]`` lies in memory.

    Attributes:
        bits: Bits of a weight.
        scale_bits: Bits of a scale, nested scales included; 0 = none.
        zero_bits: Bits of the zero point beside each scale; 0 = none is read.
        block: Rows and columns (of N and K) that share a scale; 0 = all of them.
        row_bits: Further bits for each of the K columns (GPTQ's order of groups).
        channel_bits: Further bits for each of the N outputs (the outer scales of QoQ's two levels).
        tensor_bits: Further bits for the whole matrix (NVFP4's outer scale).
    """

    bits: float
    scale_bits: float = 0
    zero_bits: float = 0
    block: tuple[int, int] = (0, 0)
    row_bits: int = 0
    channel_bits: int = 0
    tensor_bits: int = 0

    def num_bytes(self, n: int, k: int) -> int:
        """Bytes of a matrix of ``n`` outputs and ``k`` inputs: codes, scales and zero points."""
        rows = math.ceil(n / (self.block[0] or n))
        columns = math.ceil(k / (self.block[1] or k))
        shared = rows * columns * (self.scale_bits + self.zero_bits)
        bits = n * k * self.bits + shared + k * self.row_bits + n * self.channel_bits + self.tensor_bits
        return math.ceil(bits / 8)


_NVFP4: Final = WeightLayout(4, scale_bits=8, block=(1, 16), tensor_bits=32)


@dataclass(frozen=True, slots=True)
class Scheme:
    """Formats of everything that a decoder moves.

    Attributes:
        weight: Format of the decoder's linear layers.
        compute_bits: Bits of the residual stream, of outputs and of unquantized weights.
        activation_bits: Bits of what linear layers read.
        activation_scale_group: Inputs that share one fp32 scale; 0 = none is read per token.
        kv_bits: Bits of an element of the KV cache; None if its format is not known.
        is_head_quantized: The LM head has the format of the other linear layers.
    """

    weight: WeightLayout
    compute_bits: int = 16
    activation_bits: int = 16
    activation_scale_group: int = 0
    kv_bits: int | None = 16
    is_head_quantized: bool = False

    def weight_of(self, role: Role) -> WeightLayout:
        """Format of a role's weights."""
        is_plain = role is Role.LM_HEAD and not self.is_head_quantized
        return WeightLayout(self.compute_bits) if is_plain else self.weight

    def input_bytes(self, role: Role, k: int) -> float:
        """Bytes of one token's input to a linear layer of ``k`` inputs, with its scales."""
        if role is Role.LM_HEAD and not self.is_head_quantized:
            return k * self.compute_bits / 8
        scales = math.ceil(k / self.activation_scale_group) * 4 if self.activation_scale_group else 0
        return k * self.activation_bits / 8 + scales


def read_scheme(
    method: str | None, config: Mapping[str, Any] | None, dtype: str | None, kv_cache_dtype: str | None = None
) -> tuple[Scheme | None, str | None]:
    """The formats that an engine runs, or None and the reason why they are not known.

    Args:
        method: Quantization as the engine calls it (``gptq``, ``fp8`` …); None = unquantized, if ``config`` is empty
            too. What ``config`` calls ``quant_method`` counts where both are given.
        config: ``quantization_config`` of the model's ``config.json``. Layouts: docs/work-model.md.
        dtype: Compute type, such as ``bfloat16`` or ``torch.float16``; None and ``auto`` tell nothing.
        kv_cache_dtype: The engine's name; ``auto`` and None are the compute type.
    """
    fields = config or {}
    name = str(fields.get("quant_method") or method or "").lower().removesuffix("_marlin").removeprefix("auto_")
    if dtype in (None, "auto"):
        return None, "the engine did not say its compute type"
    compute = _DTYPE_BITS.get(str(dtype).removeprefix("torch."))
    if compute is None:
        return None, f"the compute type {dtype} is not one that the work model knows"
    found = _weights(name, fields, compute)
    if found is None:
        return None, f"the work model does not know the quantization {name!r} with this configuration"
    weight, activation_bits, group = found
    return Scheme(
        weight=weight,
        compute_bits=compute,
        activation_bits=activation_bits,
        activation_scale_group=group,
        kv_bits=_kv_bits(kv_cache_dtype, compute),
        is_head_quantized=bool(fields.get("lm_head", False)),
    ), None


_Found = tuple[WeightLayout, int, int]
"""Weights, bits of activations, and how many of them share a scale."""


def _weights(name: str, fields: Mapping[str, Any], compute: int) -> _Found | None:
    if not name or name == "none":
        return WeightLayout(compute), compute, 0
    if name == "gptq":
        return _gptq(fields), compute, 0
    if name == "awq":
        bits = int(fields.get("bits") or fields.get("w_bit") or 4)
        group = int(fields.get("group_size") or fields.get("q_group_size") or 128)
        return _grouped(bits, group, bits if fields.get("zero_point", True) else 0), compute, 0
    if name == "compressed-tensors":
        return _compressed_tensors(fields, compute)
    if name == "hqq":
        return _hqq(fields, compute)
    if name in ("qoq", "qserve"):
        return _qoq(fields)
    if name.startswith("modelopt") and "FP4" in f"{name} {fields.get('quant_algo', '')}".upper():
        is_weight_only = str(fields.get("quant_algo")).upper().startswith("W4A16")
        return _NVFP4, compute if is_weight_only else 4, 0
    if name in _FP8:
        return _fp8(name, fields, compute)
    if name in ("mxfp4", "gpt_oss_mxfp4"):
        return WeightLayout(4, scale_bits=8, block=(1, 32)), compute, 0
    if name == "bitsandbytes":
        return _bitsandbytes(fields, compute)
    return None


def _grouped(bits: int, group: int, zero_bits: int) -> WeightLayout:
    """Groups of inputs with an fp16 scale each; a group size below 1 means one group."""
    return WeightLayout(bits, scale_bits=16, zero_bits=zero_bits, block=(1, max(group, 0)))


def _gptq(fields: Mapping[str, Any]) -> WeightLayout:
    """Marlin, Machete and ExLlama read no zero points of symmetric weights: they are all the same."""
    bits, group = int(fields.get("bits") or 4), int(fields.get("group_size") or 128)
    plain = _grouped(bits, group, 0 if fields.get("sym", True) else bits)
    if not fields.get("desc_act", False):
        return plain
    return WeightLayout(plain.bits, plain.scale_bits, plain.zero_bits, plain.block, row_bits=32)


def _hqq(fields: Mapping[str, Any], compute: int) -> _Found | None:
    """Zero points are fp16 numbers, as scales are."""
    weights = (fields.get("quant_config") or {}).get("weight_quant_params") or {}
    if not weights.get("nbits"):
        return None
    return WeightLayout(int(weights["nbits"]), 16, 16, (1, int(weights.get("group_size") or 0))), compute, 0


def _qoq(fields: Mapping[str, Any]) -> _Found:
    """By channel, or in two levels: an int8 scale and a 4-bit zero point a group, an fp16 scale a channel."""
    group = int(fields.get("group_size") or 128)
    if group < 1:
        return WeightLayout(4, scale_bits=16, zero_bits=4, block=(1, 0)), 8, _WHOLE_TOKEN
    return WeightLayout(4, scale_bits=8, zero_bits=4, block=(1, group), channel_bits=16), 8, _WHOLE_TOKEN


def _fp8(name: str, fields: Mapping[str, Any], compute: int) -> _Found:
    """Blocks of weights (DeepSeek), output channels (FBGEMM, per token), or one scale; fp32 scales. ModelOpt says so
    by an algorithm.
    """
    algorithm = str(fields.get("quant_algo", "")).upper()
    if algorithm == "FP8_PB_WO":
        return WeightLayout(8, scale_bits=32, block=(128, 128)), compute, 0
    if algorithm == "FP8_PER_CHANNEL_PER_TOKEN":
        return WeightLayout(8, scale_bits=32, block=(1, 0)), 8, _WHOLE_TOKEN
    block = fields.get("weight_block_size") or ([128, 128] if name == "fp8_per_block" else None)
    if block:
        return WeightLayout(8, scale_bits=32, block=(int(block[0]), int(block[1]))), 8, int(block[1])
    if name in _FP8_PER_CHANNEL:
        return WeightLayout(8, scale_bits=32, block=(1, 0)), 8, _WHOLE_TOKEN
    return WeightLayout(8, scale_bits=32), 8, 0


def _bitsandbytes(fields: Mapping[str, Any], compute: int) -> _Found:
    """LLM.int8() has a scale for each output and token; NF4 and FP4 one for 64 weights, perhaps quantized again."""
    if fields.get("load_in_8bit"):
        return WeightLayout(8, scale_bits=32, block=(1, 0)), 8, _WHOLE_TOKEN
    # Double quantization: an 8-bit scale, and an fp32 one for 256 of those.
    scale_bits = 8 + 32 / 256 if fields.get("bnb_4bit_use_double_quant") else 32
    return WeightLayout(4, scale_bits=scale_bits, block=(1, 64)), compute, 0


def _compressed_tensors(fields: Mapping[str, Any], compute: int) -> _Found | None:
    groups = fields.get("config_groups") or {}
    if len(groups) != 1:
        return None
    (group,) = groups.values()
    weights, inputs = group.get("weights") or {}, group.get("input_activations") or {}
    bits = int(weights.get("num_bits") or 0)
    strategy, size = str(weights.get("strategy")), int(weights.get("group_size") or 0)
    block = {"tensor": (0, 0), "channel": (1, 0), "group": (1, size), "tensor_group": (1, size)}.get(strategy)
    if strategy == "block" and weights.get("block_structure"):
        block = (int(weights["block_structure"][0]), int(weights["block_structure"][1]))
    if not bits or block is None:
        return None
    # FP4's scales have 8 bits, those of integers in groups the model's type, those of 8-bit products are fp32.
    scale_bits = 8 if weights.get("type") == "float" and bits == 4 else 32 if inputs and bits == 8 else 16
    tensor_bits = 32 if strategy == "tensor_group" else 0
    zero_bits = 0 if weights.get("symmetric", True) else bits
    per_token = {"token": _WHOLE_TOKEN, "group": int(inputs.get("group_size") or 0)}.get(str(inputs.get("strategy")), 0)
    layout = WeightLayout(bits, scale_bits, zero_bits, block, tensor_bits=tensor_bits)
    return layout, int(inputs.get("num_bits") or compute), per_token


def _kv_bits(name: str | None, compute: int) -> int | None:
    """By vLLM's names: those that begin with fp8 or int8 have 8 bits, int4 and nvfp4 have 4; scales are left out."""
    if name is None or name == "auto":
        return compute
    if name in _DTYPE_BITS:
        return _DTYPE_BITS[name]
    prefixes = {"fp8": 8, "int8": 8, "int4": 4, "nvfp4": 4}
    return next((bits for prefix, bits in prefixes.items() if name.startswith(prefix)), None)
