"""Rounding to nearest in each format, as its ``quantization_config`` says: what a method does without calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from qmeter_native.kernels.packing import awq, bitsandbytes, gptq, mxfp4

__all__ = ["ROUNDINGS"]

Config = Mapping[str, Any]


def _gptq(weight: Any, config: Config) -> Any:
    return gptq.quantize(weight, gptq.GptqConfig.from_dict(config))


def _awq(weight: Any, config: Config) -> Any:
    return awq.quantize(weight, awq.AwqConfig.from_dict(config))


def _bitsandbytes(weight: Any, config: Config) -> Any:
    """Scales are rounded too where they are quantized twice."""
    fields = bitsandbytes.BitsAndBytesConfig.from_dict(config)
    rounded = bitsandbytes.quantize(weight, fields.quant_type)
    return bitsandbytes.unpack(bitsandbytes.pack(rounded, double_quant=True)) if fields.double_quant else rounded


def _mxfp4(weight: Any, config: Config) -> Any:
    return mxfp4.quantize(weight, rounding="even")


ROUNDINGS: Final[dict[str, Callable[[Any, Config], Any]]] = {
    "gptq": _gptq,
    "awq": _awq,
    "bitsandbytes": _bitsandbytes,
    "mxfp4": _mxfp4,
}
"""By the format's name: weight, floating point ``[N, K]``, and configuration to the `QuantizedWeight`."""
