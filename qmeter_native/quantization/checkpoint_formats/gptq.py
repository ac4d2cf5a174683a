"""Checkpoints of GPTQ."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing.gptq import GptqConfig, pack, quantize, unpack
from qmeter_native.quantization.checkpoint_formats.by_rows import by_rows
from qmeter_native.quantization.checkpoint_formats.layer_format import LayerFormat, rounded_and_packed
from qmeter_native.quantization.weight_only_linear import WeightOnlyLinear

__all__ = ["GptqFormat"]


class GptqFormat:
    """See `CheckpointFormat`: every layer but the LM head, unless ``lm_head`` or ``dynamic`` says otherwise."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self._fields = GptqConfig.from_dict(config)

    @property
    def stored_config(self) -> dict[str, Any]:
        """See `CheckpointFormat`."""
        return self._fields.to_dict()

    def layer(self, name: str) -> LayerFormat | None:
        """See `CheckpointFormat`. Without act-order the order of groups goes without saying."""
        fields = self._fields.of_layer(name)
        if fields is None or (name.endswith("lm_head") and not self._fields.lm_head):
            return None
        words, order = frozenset({"qweight", "qzeros", "scales"}), frozenset({"g_idx"})
        return LayerFormat(
            required=words | order if fields.desc_act else words,
            optional=order,
            unpack=partial(unpack, config=fields),
            **rounded_and_packed(by_rows(partial(quantize, config=fields)), partial(pack, config=fields)),
            linear=WeightOnlyLinear,
            check=partial(_check, fields),
        )


def _check(fields: GptqConfig, name: str, num_outputs: int, num_inputs: int) -> None:
    """Refuse what the layout cannot hold, and a last group that is short: it can, but no kernel reads it."""
    fields.check_layer(name, num_outputs, num_inputs)
    if fields.group_size != -1 and num_inputs % fields.group_size:
        raise UsageError(
            f"{name} is {num_outputs} x {num_inputs}, and GPTQ's kernels need inputs in groups of {fields.group_size}",
            "Choose another model or --quantization.",
        )
