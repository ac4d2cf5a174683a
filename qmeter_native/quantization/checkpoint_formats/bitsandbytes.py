"""Checkpoints of bitsandbytes: NF4 and FP4, and LLM.int8()."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import torch

from qmeter_native.kernels.packing import bitsandbytes, llm_int8
from qmeter_native.kernels.packing.bitsandbytes import BitsAndBytesConfig
from qmeter_native.kernels.packing.llm_int8 import LlmInt8Config
from qmeter_native.kernels.quantized_weight import CodebookWeight
from qmeter_native.quantization.checkpoint_formats.by_rows import by_rows
from qmeter_native.quantization.checkpoint_formats.layer_format import LayerFormat, rounded_and_packed
from qmeter_native.quantization.layer_names import is_named
from qmeter_native.quantization.llm_int8_linear import LlmInt8Linear
from qmeter_native.quantization.weight_only_linear import WeightOnlyLinear

__all__ = ["BitsandbytesFormat"]

_BLOCK: Final = 64
"""Values that share a scale: the library's default."""


class BitsandbytesFormat:
    """See `CheckpointFormat`: every layer but ``llm_int8_skip_modules``, or where none are given, the LM head."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self._skipped = tuple(config.get("llm_int8_skip_modules") or ("lm_head",))
        self._fields = (LlmInt8Config if config.get("load_in_8bit") else BitsAndBytesConfig).from_dict(config)
        self._layer = _eight_bits(self._fields) if isinstance(self._fields, LlmInt8Config) else _four_bits(self._fields)

    @property
    def stored_config(self) -> dict[str, Any]:
        """See `CheckpointFormat`."""
        return {**self._fields.to_dict(), "llm_int8_skip_modules": list(self._skipped)}

    def layer(self, name: str) -> LayerFormat | None:
        """See `CheckpointFormat`."""
        return None if is_named(name, self._skipped) else self._layer


def _four_bits(fields: BitsAndBytesConfig) -> LayerFormat:
    state = f"weight.quant_state.bitsandbytes__{fields.quant_type}"
    names = {"weight", "weight.absmax", "weight.quant_map", state}
    if fields.double_quant:
        names |= {"weight.nested_absmax", "weight.nested_quant_map"}

    round_to_table = by_rows(partial(bitsandbytes.quantize, quant_type=fields.quant_type))

    def quantize(weight: Any) -> CodebookWeight:
        """Scales are rounded too where they are quantized twice."""
        rounded = round_to_table(weight)
        return bitsandbytes.unpack(bitsandbytes.pack(rounded, double_quant=True)) if fields.double_quant else rounded

    def store(weight: Any) -> dict[str, Any]:
        plain = round_to_table(weight)
        return bitsandbytes.pack(
            plain,
            blocksize=_BLOCK,
            double_quant=fields.double_quant,
            storage=getattr(torch, fields.quant_storage),
            dtype=weight.dtype,
        )

    return LayerFormat(frozenset(names), bitsandbytes.unpack, quantize, store, WeightOnlyLinear)


def _eight_bits(fields: LlmInt8Config) -> LayerFormat:
    return LayerFormat(
        required=frozenset({"weight", "SCB"}),
        optional=frozenset({"weight_format"}),
        unpack=llm_int8.unpack,
        **rounded_and_packed(by_rows(llm_int8.quantize), llm_int8.pack),
        linear=partial(LlmInt8Linear, threshold=fields.threshold),
    )
