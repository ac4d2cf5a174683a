"""Checkpoints of compressed-tensors, such as llm-compressor writes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import nvfp4
from qmeter_native.kernels.packing.compressed_tensors import pack, quantize, static_input, unpack
from qmeter_native.kernels.packing.compressed_tensors_config import CompressedTensorsConfig, LayerScheme, TensorScheme
from qmeter_native.quantization.activation_quantizer import ActivationQuantizer
from qmeter_native.quantization.checkpoint_formats.by_rows import by_rows
from qmeter_native.quantization.checkpoint_formats.layer_format import LayerFormat, rounded_and_packed
from qmeter_native.quantization.scaled_linear import ScaledLinear
from qmeter_native.quantization.w4a8_linear import W4A8Linear
from qmeter_native.quantization.weight_only_linear import WeightOnlyLinear

__all__ = ["CompressedTensorsFormat"]

_WEIGHT: Final[dict[str, frozenset[str]]] = {
    "pack-quantized": frozenset({"weight_packed", "weight_scale", "weight_shape"}),
    "int-quantized": frozenset({"weight", "weight_scale"}),
    "float-quantized": frozenset({"weight", "weight_scale"}),
    "nvfp4-pack-quantized": frozenset({"weight_packed", "weight_scale", "weight_global_scale"}),
    "mxfp4-pack-quantized": frozenset({"weight_packed", "weight_scale"}),
}
_INPUT: Final = frozenset({"input_scale", "input_zero_point", "input_global_scale"})


class CompressedTensorsFormat:
    """See `CheckpointFormat`: what ``config_groups`` target, but for ``ignore``.

    No kernel of ours multiplies 4-bit inputs: such layers are weight-only, and ``config`` says so.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._fields = CompressedTensorsConfig.from_dict(config)
        self.config = {**config, "config_groups": _as_computed(config.get("config_groups") or {})}

    @property
    def stored_config(self) -> dict[str, Any]:
        """See `CheckpointFormat`."""
        return self._fields.to_dict()

    def layer(self, name: str) -> LayerFormat | None:
        """See `CheckpointFormat`."""
        scheme = self._fields.of_layer(name)
        if scheme is None:
            return None
        weights = scheme.weights
        required, optional = _WEIGHT[scheme.format], set(_INPUT)
        if not weights.symmetric:
            required |= {"weight_zero_point"}
        else:
            optional.add("weight_zero_point")  # some writers store zeros, which mean nothing
        if weights.by_activation:
            required |= {"weight_g_idx"}
        return LayerFormat(
            required=required,
            optional=frozenset(optional),
            unpack=partial(unpack, scheme=scheme),
            **rounded_and_packed(_rounding(scheme), partial(pack, scheme=scheme)),
            linear=_linear(scheme),
            input_scales=partial(_static, scheme=scheme),
            check=scheme.check_layer,
        )


def _rounding(scheme: LayerScheme) -> Any:
    """What rounds a weight, by rows unless all of them share a scale."""
    if scheme.weights.strategy == "tensor":
        return partial(quantize, scheme=scheme)
    if scheme.weights.strategy == "tensor_group":
        return lambda weight: by_rows(partial(nvfp4.quantize, global_scale=nvfp4.scale_of_matrix(weight)))(weight)
    return by_rows(partial(quantize, scheme=scheme))


def _linear(scheme: LayerScheme) -> Any:
    """The layer's class, with its quantizer of inputs.

    Raises:
        UsageError: No kernel of ours multiplies such weights with such inputs.
    """
    weights, inputs = scheme.weights, scheme.input_activations
    if inputs is None or inputs.num_bits in (4, 16):
        return WeightOnlyLinear
    quantizer = _quantizer(inputs)
    if weights.num_bits == 8 and weights.type == inputs.type and weights.symmetric and weights.strategy != "group":
        return partial(ScaledLinear, quantizer=quantizer)
    fits = weights.symmetric if inputs.type == "float" else weights.strategy == "channel"
    if weights.num_bits == 4 and weights.type == "int" and fits:
        return partial(W4A8Linear, quantizer=quantizer)
    raise UsageError(
        f"weights of {weights.num_bits} bits ({weights.type}, by {weights.strategy}) with inputs of {inputs.num_bits} "
        f"bits ({inputs.type}, by {inputs.strategy})",
        "8-bit inputs are multiplied with 8-bit weights of their type, and with 4-bit ones: FP8 with "
        "symmetric ones, INT8 with one scale an output.",
    )


def _quantizer(inputs: TensorScheme) -> ActivationQuantizer:
    if inputs.num_bits != 8 or inputs.strategy not in ("tensor", "token", "group"):
        raise UsageError(
            f"compressed-tensors: input_activations have {inputs.num_bits} bits and strategy {inputs.strategy}",
            "Inputs of 8 bits are read, by tensor, token or group.",
        )
    number = "int8" if inputs.type == "int" else "fp8"
    return ActivationQuantizer(number, inputs.group_size, inputs.symmetric)  # type: ignore[arg-type]


def _static(tensors: Mapping[str, Any], scheme: LayerScheme) -> dict[str, Any]:
    """Scale and zero point of inputs, as arguments of `ScaledLinear`."""
    found = static_input(tensors, scheme)
    if found is None:
        return {}
    zero = None if found.zero_point is None else found.zero_point.int()
    return {"input_scale": found.scale, "input_zero": zero}


def _as_computed(groups: Mapping[str, Any]) -> dict[str, Any]:
    """``config_groups`` without quantization of inputs to 4 bits."""
    computed = {}
    for name, group in groups.items():
        inputs = group.get("input_activations") if isinstance(group, Mapping) else None
        is_wide = not inputs or inputs.get("num_bits") != 4
        computed[name] = group if is_wide else {**group, "input_activations": None}
    return computed
