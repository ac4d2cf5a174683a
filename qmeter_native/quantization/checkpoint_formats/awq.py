"""Checkpoints of AWQ, in AutoAWQ's GEMM layout."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from qmeter_native.kernels.packing.awq import AwqConfig, pack, quantize, unpack
from qmeter_native.quantization.checkpoint_formats.by_rows import by_rows
from qmeter_native.quantization.checkpoint_formats.layer_format import LayerFormat, rounded_and_packed
from qmeter_native.quantization.weight_only_linear import WeightOnlyLinear

__all__ = ["AwqFormat"]


class AwqFormat:
    """See `CheckpointFormat`: every layer but the LM head and ``modules_to_not_convert``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self._fields = AwqConfig.from_dict(config)

    @property
    def stored_config(self) -> dict[str, Any]:
        """See `CheckpointFormat`."""
        return self._fields.to_dict()

    def layer(self, name: str) -> LayerFormat | None:
        """See `CheckpointFormat`."""
        if name.endswith("lm_head") or self._fields.of_layer(name) is None:
            return None
        return LayerFormat(
            required=frozenset({"qweight", "qzeros", "scales"}),
            unpack=partial(unpack, config=self._fields),
            **rounded_and_packed(by_rows(partial(quantize, config=self._fields)), partial(pack, config=self._fields)),
            linear=WeightOnlyLinear,
            check=self._fields.check_layer,
        )
