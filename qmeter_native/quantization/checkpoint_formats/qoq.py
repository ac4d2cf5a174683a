"""Checkpoints of QoQ, in QServe's layout."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from qmeter_native.kernels.packing.qoq import QoqConfig, pack, quantize, unpack
from qmeter_native.quantization.activation_quantizer import ActivationQuantizer
from qmeter_native.quantization.checkpoint_formats.by_rows import by_rows
from qmeter_native.quantization.checkpoint_formats.layer_format import LayerFormat, rounded_and_packed
from qmeter_native.quantization.layer_names import is_named
from qmeter_native.quantization.w4a8_linear import W4A8Linear

__all__ = ["QoqFormat"]

_BY_CHANNEL: Final = frozenset({"qweight", "s1_scales", "s1_szeros"})
_BY_GROUP: Final = frozenset({"qweight", "s1_scales", "s2_scales", "s2_zeros"})


class QoqFormat:
    """See `CheckpointFormat`: every layer but the LM head and ``modules_to_not_convert``."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self._fields = QoqConfig.from_dict(config)

    @property
    def stored_config(self) -> dict[str, Any]:
        """See `CheckpointFormat`."""
        return self._fields.to_dict()

    def layer(self, name: str) -> LayerFormat | None:
        """See `CheckpointFormat`."""
        if name.endswith("lm_head") or is_named(name, self._fields.modules_to_not_convert):
            return None
        return LayerFormat(
            required=_BY_CHANNEL if self._fields.group_size == -1 else _BY_GROUP,
            unpack=partial(unpack, config=self._fields),
            **rounded_and_packed(by_rows(partial(quantize, config=self._fields)), pack),
            linear=partial(W4A8Linear, quantizer=ActivationQuantizer("int8")),
            check=self._fields.check_layer,
        )
