"""Checkpoints in FP8 of Hugging Face, DeepSeek and FBGEMM."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing.fp8 import Fp8Config, input_scale, pack, quantize, unpack
from qmeter_native.quantization.activation_quantizer import ActivationQuantizer
from qmeter_native.quantization.checkpoint_formats.layer_format import LayerFormat, no_scales, rounded_and_packed
from qmeter_native.quantization.layer_names import is_named
from qmeter_native.quantization.scaled_linear import ScaledLinear

__all__ = ["Fp8Format", "stored_input_scale"]


class Fp8Format:
    """See `CheckpointFormat`: every layer but the LM head and ``modules_to_not_convert``.

    FBGEMM's upper bound of a token's magnitude (``activation_scale_ub``) is not applied.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self._fields = Fp8Config.from_dict(config)

    @property
    def stored_config(self) -> dict[str, Any]:
        """See `CheckpointFormat`."""
        return self._fields.to_dict()

    def layer(self, name: str) -> LayerFormat | None:
        """See `CheckpointFormat`."""
        fields = self._fields
        if name.endswith("lm_head") or is_named(name, fields.modules_to_not_convert):
            return None
        is_static, block = fields.activation_scheme == "static", fields.weight_block_size
        by_channel = fields.quant_method == "fbgemm_fp8"
        granularity = "block" if block else "channel" if by_channel else "tensor"
        quantizer = ActivationQuantizer("fp8", None if block is None else block[1])
        return LayerFormat(
            required=frozenset({"weight"}),
            optional=frozenset({"weight_scale", "weight_scale_inv", "input_scale", "activation_scale"}),
            unpack=partial(unpack, block=block),
            **rounded_and_packed(
                partial(quantize, granularity=granularity, power_of_two=fields.scale_fmt == "ue8m0"),
                partial(pack, layout=fields.quant_method, granularity=granularity),
            ),
            linear=partial(ScaledLinear, quantizer=quantizer),
            input_scales=stored_input_scale if is_static else no_scales,
        )


def stored_input_scale(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The scale of a layer's input, as an argument of `ScaledLinear`.

    Raises:
        UsageError: There is none.
    """
    scale = input_scale(tensors)
    if scale is None:
        raise UsageError(
            f"there is no input_scale, and inputs are quantized statically; it has {', '.join(sorted(tensors))}",
            "Set activation_scheme dynamic in quantization_config.",
        )
    return {"input_scale": scale.reshape(1)}
