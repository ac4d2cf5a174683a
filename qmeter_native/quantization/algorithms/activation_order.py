"""Act-order of GPTQ: the inputs that matter most are quantized first, and share their groups.

llm-compressor quantizes the inputs of a layer from the first to the last in groups of neighbours. So the layer is given
its inputs in the order of their mean squares in the calibration text (the diagonal of GPTQ's Hessian), and the order is
written beside the codes as ``g_idx``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from qmeter_native.kernels.quantized_weight import IntegerWeight

__all__ = ["in_first_order", "input_orders", "reorder_inputs"]


def input_orders(model: Any, layers: Collection[str], batches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The inputs of each layer, int64 ``[K]``, those of the largest mean square first.

    Args:
        model: transformers' model.
        layers: Names of linear layers.
        batches: What it reads.
    """
    squares: dict[str, Any] = {}

    def watch(name: str) -> Any:
        def add(module: Any, arguments: tuple[Any, ...]) -> None:
            found = arguments[0].detach().float().square().flatten(0, -2).sum(0)
            squares[name] = squares.get(name, 0) + found

        return model.get_submodule(name).register_forward_pre_hook(add)

    hooks = [watch(name) for name in layers]
    try:
        with torch.no_grad():
            for batch in batches:
                model(**batch, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.argsort(found, descending=True, stable=True) for name, found in squares.items()}


def reorder_inputs(model: Any, orders: Mapping[str, Any]) -> None:
    """Let layers read their inputs in the orders given; the model computes what it did."""
    for name, order in orders.items():
        layer = model.get_submodule(name)
        layer.weight.data = layer.weight.data[:, order].contiguous()
        layer.register_forward_pre_hook(_reordering(order))


def in_first_order(weight: IntegerWeight, order: Any) -> IntegerWeight:
    """A weight whose inputs are in ``order`` with its inputs as the model has them, and the group of each."""
    place = torch.argsort(order)
    groups = (place // weight.group_size).to(torch.int32)
    return replace(weight, codes=weight.codes[:, place].contiguous(), group_of=groups)


def _reordering(order: Any) -> Any:
    return lambda module, arguments: (arguments[0][..., order.to(arguments[0].device)], *arguments[1:])
