"""compressed-tensors: what llm-compressor writes, one module for its formats of linear layers.

A layer of N outputs and K inputs, G groups of inputs a row, stores

- ``pack-quantized``: ``weight_packed`` int32 ``[N, ceil(K * bits / 32)]``, codes (values + ``2 ** (bits - 1)``) of
  consecutive inputs, lowest bits first; ``weight_scale`` ``[N, G]``; ``weight_shape`` int64 ``[2]``; where not
  symmetric ``weight_zero_point`` int32 ``[ceil(N * bits / 32), G]``, packed along the outputs; in act-order
  ``weight_g_idx`` int32 ``[K]``. Widths that do not divide 32 are streams since version 0.18; before, a word held
  ``32 // bits`` whole codes.
- ``int-quantized``: ``weight`` int8 ``[N, K]``, ``weight_scale``, ``weight_zero_point`` int8 as the scale.
- ``float-quantized``, ``nvfp4-pack-quantized``, ``mxfp4-pack-quantized``: see `fp8`, `nvfp4` and `mxfp4`.

Inputs that are quantized with scales found beforehand add ``input_scale`` and ``input_zero_point``, one number each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import fp8, int8, mxfp4, nvfp4
from qmeter_native.kernels.packing.bits import num_words, pack_bits, unpack_bits
from qmeter_native.kernels.packing.compressed_tensors_config import LayerScheme
from qmeter_native.kernels.packing.requirements import group_order, integer_zeros, required_field, required_tensor
from qmeter_native.kernels.packing.rounding import round_asymmetric, round_symmetric
from qmeter_native.kernels.quantized_weight import CodebookWeight, IntegerWeight, QuantizedWeight, ScaledWeight

__all__ = ["StaticInput", "pack", "quantize", "static_input", "unpack"]

_FLOATS: Final = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class StaticInput:
    """Scale and zero point of a layer's inputs, found beforehand.

    Attributes:
        scale: float32 ``[1]``; an input is ``scale * (code - zero_point)``.
        zero_point: int8 ``[1]``; None: symmetric.
    """

    scale: Any
    zero_point: Any | None


def quantize(weight: Any, scheme: LayerScheme) -> QuantizedWeight:
    """Round to nearest; scales of integers have the weight's own type, as compressed-tensors has them.

    Args:
        weight: Floating point ``[N, K]``.
        scheme: An act-order is ignored: it needs calibration data.
    """
    scheme.check_layer("the layer", *weight.shape)
    weights = scheme.weights
    if scheme.format == "nvfp4-pack-quantized":
        return nvfp4.quantize(weight)
    if scheme.format == "mxfp4-pack-quantized":
        return mxfp4.quantize(weight, rounding="even")
    if scheme.format == "float-quantized":
        return fp8.quantize(weight, weights.strategy)
    if _is_scaled_int8(scheme):
        by_tensor = weights.strategy == "tensor"
        rows = int8.quantize(weight.reshape(1, -1) if by_tensor else weight)
        return ScaledWeight(rows.values.reshape(weight.shape), rows.scales, _block(scheme, *weight.shape))
    round_weight = round_symmetric if weights.symmetric else round_asymmetric
    return round_weight(weight, weights.num_bits, weights.group_size or -1, weight.dtype)


def pack(weight: QuantizedWeight, scheme: LayerScheme) -> dict[str, Any]:
    """The checkpoint's tensors.

    Raises:
        UsageError: The scheme cannot hold the weight: another kind of weight, other bits, groups or blocks, an order or
            zero points where it has none.
    """
    scheme.check_layer("the layer", *weight.shape)
    if isinstance(weight, CodebookWeight) and scheme.format == "nvfp4-pack-quantized":
        return nvfp4.pack(weight)
    if isinstance(weight, CodebookWeight) and scheme.format == "mxfp4-pack-quantized":
        return mxfp4.pack(weight)
    if isinstance(weight, ScaledWeight) and scheme.format in ("int-quantized", "float-quantized"):
        return _pack_scaled(weight, scheme)
    if isinstance(weight, IntegerWeight) and scheme.format in ("pack-quantized", "int-quantized"):
        return _pack_integers(weight, scheme)
    raise UsageError(f"{scheme.format} holds no {type(weight).__name__}", "Quantize to this format anew.")


def unpack(tensors: Mapping[str, Any], scheme: LayerScheme) -> QuantizedWeight:
    """The weight that a checkpoint's tensors mean.

    Raises:
        UsageError: A tensor is missing or of another type or shape, or contradicts the scheme.
    """
    if scheme.format == "nvfp4-pack-quantized":
        return nvfp4.unpack(tensors)
    if scheme.format == "mxfp4-pack-quantized":
        return mxfp4.unpack(tensors)
    if scheme.format == "pack-quantized":
        return _unpack_words(tensors, scheme)
    if scheme.format == "float-quantized" or _is_scaled_int8(scheme):
        return _unpack_scaled(tensors, scheme)
    return _unpack_bytes(tensors, scheme)


def static_input(tensors: Mapping[str, Any], scheme: LayerScheme) -> StaticInput | None:
    """What a layer's inputs are quantized by, where that was found beforehand for the whole tensor; else None.

    Raises:
        UsageError: A tensor is missing or of another type or shape.
    """
    inputs = scheme.input_activations
    if inputs is None or inputs.dynamic or inputs.strategy != "tensor":
        return None
    shape = (1,) if "input_scale" in tensors and tensors["input_scale"].ndim else ()
    scale = required_tensor(tensors, "input_scale", _FLOATS, *shape).float().reshape(1)
    if inputs.symmetric:
        return StaticInput(scale, None)
    return StaticInput(scale, required_tensor(tensors, "input_zero_point", (torch.int8,), *shape).reshape(1))


def _is_scaled_int8(scheme: LayerScheme) -> bool:
    """Whether a scheme's weights are INT8 numbers with a scale an output or in all, as W8A8 kernels multiply."""
    weights = scheme.weights
    whole = weights.symmetric and weights.num_bits == 8 and weights.strategy in ("tensor", "channel")
    return scheme.format == "int-quantized" and whole


def _block(scheme: LayerScheme, num_outputs: int, num_inputs: int) -> tuple[int, int]:
    """Outputs and inputs that share a scale."""
    if scheme.weights.block is not None:
        return scheme.weights.block
    return (num_outputs if scheme.weights.strategy == "tensor" else 1), num_inputs


def _pack_scaled(weight: ScaledWeight, scheme: LayerScheme) -> dict[str, Any]:
    """``weight`` and ``weight_scale`` of INT8 or FP8 numbers."""
    block = _block(scheme, *weight.shape)
    if weight.block != block:
        raise UsageError(
            f"the weight has a scale for blocks of {weight.block[0]} x {weight.block[1]}",
            f"The scheme has one for blocks of {block[0]} x {block[1]}.",
        )
    if scheme.format == "float-quantized":
        return fp8.pack(weight, "compressed-tensors", scheme.weights.strategy)
    if not _is_scaled_int8(scheme):
        raise UsageError("plain INT8 has no zero points, groups or fewer bits, and the scheme has", "Quantize anew.")
    return int8.pack(weight)


def _unpack_scaled(tensors: Mapping[str, Any], scheme: LayerScheme) -> ScaledWeight:
    """INT8 or FP8 numbers and their scales."""
    is_float = scheme.format == "float-quantized"
    weight = fp8.unpack(tensors, scheme.weights.block) if is_float else int8.unpack(tensors)
    if weight.block != _block(scheme, *weight.shape):
        raise UsageError(
            f"weight_scale has {weight.scales.numel()} numbers, and the strategy is {scheme.weights.strategy}",
            "They must agree: the layer was quantized by another scheme.",
        )
    return weight


def _pack_integers(weight: IntegerWeight, scheme: LayerScheme) -> dict[str, Any]:
    """The tensors of ``pack-quantized`` and of ``int-quantized`` weights that are no plain INT8."""
    weights, (num_outputs, num_inputs) = scheme.weights, weight.shape
    required_field(scheme.format, "weights.num_bits", weights.num_bits, (weight.bits,))
    group_size = weights.group_size or num_inputs
    if weight.group_size != group_size:
        raise UsageError(f"groups of {weight.group_size} inputs", f"The scheme has groups of {group_size}.")
    if weight.group_of is not None and not weights.by_activation:
        raise UsageError("the weight's groups are in act-order", "Set actorder of the scheme's weights.")
    zeros, half = integer_zeros(weight), 1 << (weight.bits - 1)
    if weights.symmetric and not bool((zeros == half).all()):
        raise UsageError("the weight has zero points", "The scheme's weights are symmetric.")
    tensors = {"weight_scale": weight.scales}
    if scheme.format == "int-quantized":
        tensors["weight"] = (weight.codes.to(torch.int16) - half).to(torch.int8)
        if not weights.symmetric:
            tensors["weight_zero_point"] = (zeros.to(torch.int16) - half).to(torch.int8)
    else:
        tensors["weight_packed"] = pack_bits(weight.codes, weight.bits, dense=not scheme.padded)
        tensors["weight_shape"] = torch.tensor([num_outputs, num_inputs])
        if not weights.symmetric:
            tensors["weight_zero_point"] = pack_bits(zeros, weight.bits, dim=0, dense=not scheme.padded)
    if weights.by_activation:
        plain = torch.arange(num_inputs, device=weight.codes.device) // group_size
        tensors["weight_g_idx"] = (plain if weight.group_of is None else weight.group_of).to(torch.int32)
    return tensors


def _unpack_words(tensors: Mapping[str, Any], scheme: LayerScheme) -> IntegerWeight:
    """A ``pack-quantized`` weight."""
    weights = scheme.weights
    shape = required_tensor(tensors, "weight_shape", (torch.int64, torch.int32), 2)
    num_outputs, num_inputs = shape.tolist()
    scheme.check_layer("weight_packed", num_outputs, num_inputs)
    packed = required_tensor(tensors, "weight_packed", (torch.int32,), num_outputs, None)
    dense = _is_dense(packed.shape[1], num_inputs, weights.num_bits, scheme.padded)
    group_size = weights.group_size or num_inputs
    num_groups = num_inputs // group_size
    zeros = None
    if not weights.symmetric:
        words = num_words(num_outputs, weights.num_bits, dense=dense)
        zeros = required_tensor(tensors, "weight_zero_point", (torch.int32,), words, num_groups)
        zeros = unpack_bits(zeros, weights.num_bits, num_outputs, 0, dense=dense)
    return IntegerWeight(
        codes=unpack_bits(packed, weights.num_bits, num_inputs, dense=dense),
        scales=required_tensor(tensors, "weight_scale", _FLOATS, num_outputs, num_groups),
        zeros=zeros,
        bits=weights.num_bits,
        group_size=group_size,
        group_of=group_order(tensors, "weight_g_idx", num_inputs, group_size) if weights.by_activation else None,
    )


def _is_dense(words: int, num_inputs: int, bits: int, padded: bool) -> bool:
    """Whether a row of so many words is a stream; its version tells where both layouts take as many.

    Raises:
        UsageError: Neither takes as many.
    """
    sizes = {dense: num_words(num_inputs, bits, dense=dense) for dense in (True, False)}
    layouts = [dense for dense, size in sizes.items() if size == words]
    if not layouts:
        expected = " or ".join(str(size) for size in dict.fromkeys(sizes.values()))
        raise UsageError(
            f"weight_packed has {words} words a row", f"{num_inputs} inputs of {bits} bits take {expected}."
        )
    return layouts[0] if len(layouts) == 1 else not padded


def _unpack_bytes(tensors: Mapping[str, Any], scheme: LayerScheme) -> IntegerWeight:
    """An ``int-quantized`` weight in groups, with zero points, or of less than 8 bits."""
    weights = scheme.weights
    values = required_tensor(tensors, "weight", (torch.int8,), None, None)
    num_outputs, num_inputs = values.shape
    scheme.check_layer("weight", num_outputs, num_inputs)
    group_size, half = weights.group_size or num_inputs, 1 << (weights.num_bits - 1)
    if int(values.min()) < -half or int(values.max()) >= half:
        raise UsageError(
            f"weight reaches from {int(values.min())} to {int(values.max())}",
            f"{weights.num_bits} bits hold {-half} to {half - 1}.",
        )
    num_groups, zeros = num_inputs // group_size, None
    if not weights.symmetric:
        zeros = required_tensor(tensors, "weight_zero_point", (torch.int8,), num_outputs, num_groups)
        zeros = (zeros.to(torch.int16) + half).to(torch.uint8)
    return IntegerWeight(
        codes=(values.to(torch.int16) + half).to(torch.uint8),
        scales=required_tensor(tensors, "weight_scale", _FLOATS, num_outputs, num_groups),
        zeros=zeros,
        bits=weights.num_bits,
        group_size=group_size,
        group_of=group_order(tensors, "weight_g_idx", num_inputs, group_size) if weights.by_activation else None,
    )
