"""Checkpoints of NVIDIA's ModelOpt: FP8 and NVFP4."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from qmeter_native.kernels.packing import fp8, nvfp4
from qmeter_native.kernels.packing.modelopt import ModelOptConfig
from qmeter_native.quantization.activation_quantizer import ActivationQuantizer
from qmeter_native.quantization.checkpoint_formats.fp8 import stored_input_scale
from qmeter_native.quantization.checkpoint_formats.layer_format import LayerFormat, rounded_and_packed
from qmeter_native.quantization.layer_names import is_named
from qmeter_native.quantization.scaled_linear import ScaledLinear
from qmeter_native.quantization.weight_only_linear import WeightOnlyLinear

__all__ = ["ModeloptFormat"]

_FP8_TOKEN: Final = ActivationQuantizer("fp8")
_INPUT: Final = frozenset({"input_scale"})


class ModeloptFormat:
    """See `CheckpointFormat`: every layer but ``exclude_modules``, or where none are given, the LM head.

    No kernel of ours multiplies 4-bit inputs: NVFP4 is weight-only, and ``config`` says so.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._fields = ModelOptConfig.from_dict(config)
        self._skipped = self._fields.exclude_modules or ("lm_head",)
        is_fp4 = "NVFP4" in self._fields.quant_algo
        self.config = {**config, "quant_algo": "W4A16_NVFP4"} if is_fp4 else config
        self._layer = _FORMATS[self._fields.quant_algo]

    @property
    def stored_config(self) -> dict[str, Any]:
        """See `CheckpointFormat`."""
        return {"quant_method": "modelopt", **self._fields.to_dict()["quantization"]}

    def layer(self, name: str) -> LayerFormat | None:
        """See `CheckpointFormat`."""
        return None if is_named(name, self._skipped) else self._layer


def _fp8(granularity: str) -> dict[str, Any]:
    return rounded_and_packed(
        partial(fp8.quantize, granularity=granularity), partial(fp8.pack, layout="modelopt", granularity=granularity)
    )


_NVFP4: Final = LayerFormat(
    required=frozenset({"weight", "weight_scale", "weight_scale_2"}),
    unpack=nvfp4.unpack,
    **rounded_and_packed(nvfp4.quantize, partial(nvfp4.pack, convention="modelopt")),
    linear=WeightOnlyLinear,
    optional=_INPUT,
)

_FORMATS: Final = {
    "FP8": LayerFormat(
        required=frozenset({"weight", "weight_scale", "input_scale"}),
        unpack=fp8.unpack,
        **_fp8("tensor"),
        linear=partial(ScaledLinear, quantizer=_FP8_TOKEN),
        input_scales=stored_input_scale,
    ),
    "FP8_PER_CHANNEL_PER_TOKEN": LayerFormat(
        required=frozenset({"weight", "weight_scale"}),
        unpack=fp8.unpack,
        **_fp8("channel"),
        linear=partial(ScaledLinear, quantizer=_FP8_TOKEN),
    ),
    "FP8_PB_WO": LayerFormat(
        required=frozenset({"weight", "weight_scale"}),
        unpack=partial(fp8.unpack, block=(128, 128)),
        **_fp8("block"),
        linear=WeightOnlyLinear,
        optional=_INPUT,
    ),
    "NVFP4": _NVFP4,
    "W4A16_NVFP4": _NVFP4,
}
