"""The families of quantized checkpoints, by the ``quant_method`` of their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from qmeter_native.errors import UsageError
from qmeter_native.quantization.checkpoint_formats.layer_format import CheckpointFormat

__all__ = ["FAMILIES", "checkpoint_format"]

FAMILIES: Final = {
    "gptq": "gptq.GptqFormat",
    "awq": "awq.AwqFormat",
    "compressed-tensors": "compressed_tensors.CompressedTensorsFormat",
    "bitsandbytes": "bitsandbytes.BitsandbytesFormat",
    "fp8": "fp8.Fp8Format",
    "fbgemm_fp8": "fp8.Fp8Format",
    "modelopt": "modelopt.ModeloptFormat",
    "hqq": "hqq.HqqFormat",
    "qoq": "qoq.QoqFormat",
}
"""``quant_method`` and the class that reads it."""


def checkpoint_format(quantization: Mapping[str, Any]) -> CheckpointFormat:
    """The format of a ``quantization_config``.

    Raises:
        UsageError: The method, or a field of its configuration, is not one that we read.
    """
    method = str(quantization.get("quant_method", ""))
    if method not in FAMILIES:
        raise UsageError(f"quant_method is {method!r}", f"Checkpoints of {', '.join(FAMILIES)} are read.")
    module, _, name = FAMILIES[method].partition(".")
    found: CheckpointFormat = getattr(import_module(f"{__package__}.{module}"), name)(quantization)
    return found
