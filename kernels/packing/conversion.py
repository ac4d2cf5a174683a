"""Conversion of a layer between formats of integers: GPTQ, AWQ, compressed-tensors, HQQ. Exact, or refused.

Both formats' layouts are of the same meaning, codes, scales and zero points, which are unpacked from the one and packed
into the other. Three changes keep the meaning: zero points of the middle appear or vanish where a format has them or
not; scales are repeated where the target's groups are smaller; types of scales change where no scale does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing import awq, compressed_tensors, gptq, hqq
from qmeter_native.kernels.packing.awq import AwqConfig
from qmeter_native.kernels.packing.compressed_tensors_config import LayerScheme
from qmeter_native.kernels.packing.gptq import GptqConfig
from qmeter_native.kernels.packing.hqq import HqqConfig
from qmeter_native.kernels.quantized_weight import IntegerWeight

__all__ = ["IntegerFormat", "convert"]

IntegerFormat = GptqConfig | AwqConfig | HqqConfig | LayerScheme
"""What describes a layer's integers; of compressed-tensors the scheme of the layer."""

_MODULES: Final = {GptqConfig: gptq, AwqConfig: awq, HqqConfig: hqq, LayerScheme: compressed_tensors}


def convert(tensors: Mapping[str, Any], source: IntegerFormat, target: IntegerFormat) -> dict[str, Any]:
    """The tensors of a layer in another format; a bias stays as it is.

    Args:
        tensors: As ``source`` names them.
        source: The format they are in.
        target: The format to write.

    Raises:
        UsageError: The target cannot hold the weight exactly, and why: other bits, a zero of 0 in GPTQ v1, zero points
            where it is symmetric, fractions of zero points outside HQQ, act-order in AWQ or HQQ, larger groups, sizes
            that it cannot pack, scales beyond float16.
    """
    weight = _module(source).unpack(tensors, source)
    if not isinstance(weight, IntegerWeight):
        raise UsageError(f"the layer holds a {type(weight).__name__}", "Convert layers of integers with groups.")
    group_size = _group_size(target, weight.shape[1])
    if weight.group_size != group_size:
        weight = _regrouped(weight, group_size)
    stored: dict[str, Any] = _module(target).pack(weight, target)
    return {**stored, "bias": tensors["bias"]} if "bias" in tensors else stored


def _module(config: IntegerFormat) -> Any:
    """The module that packs what ``config`` describes."""
    for kind, module in _MODULES.items():
        if isinstance(config, kind):
            return module
    known = ", ".join(kind.__name__ for kind in _MODULES)
    raise UsageError(f"no conversion is known for a {type(config).__name__}", f"There are those of {known}.")


def _group_size(target: IntegerFormat, num_inputs: int) -> int:
    """Inputs that share a scale in the target; all where it says so."""
    size = target.weights.group_size if isinstance(target, LayerScheme) else target.group_size
    return num_inputs if size in (None, -1) else size


def _regrouped(weight: IntegerWeight, group_size: int) -> IntegerWeight:
    """The same weight in smaller groups, which share their scales."""
    if weight.group_size % group_size or weight.group_of is not None:
        raise UsageError(
            f"groups of {weight.group_size} inputs{'' if weight.group_of is None else ' in act-order'} are no whole "
            f"number of groups of {group_size}",
            "Choose a group_size that divides it.",
        )
    num_inputs = weight.shape[1]
    group_of = torch.arange(0, num_inputs, group_size, device=weight.codes.device) // weight.group_size
    return replace(
        weight,
        scales=weight.scales[:, group_of],
        zeros=None if weight.zeros is None else weight.zeros[:, group_of],
        group_size=group_size,
    )
