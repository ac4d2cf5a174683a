"""gemlite's Triton kernels; its first call of a size tunes itself, which the check before the timing takes care of."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qmeter_native.benchmark.contender import Contender, Product, require
from qmeter_native.errors import MissingExtraError
from qmeter_native.kernels.packing.requirements import integer_zeros

__all__ = ["contenders"]


def contenders(vllm_ops: Path | None) -> tuple[Contender, ...]:
    """``gemlite.helper.A16Wn``, the weight-only layer of 2, 4 and 8 bits.

    Raises:
        MissingExtraError: It is not installed.
    """
    if find_spec("gemlite") is None:
        raise MissingExtraError("gemlite is not installed", "pip install gemlite")
    labels = ("W4A16-INT g128", "W4A16-INT g128 zp", "W4A16-INT g64 HQQ", "W8A16-INT g128", "W2A16-INT g128")
    return (Contender("gemlite", labels, _prepare),)


def _prepare(weight: Any, dtype: Any) -> Product:
    from gemlite.helper import A16Wn

    require(weight.group_of is None, "it knows no act-order")
    is_float = weight.zeros is not None and weight.zeros.is_floating_point()
    zeros = weight.zeros if is_float else integer_zeros(weight)
    helper = A16Wn(device=str(weight.codes.device), dtype=dtype)
    layer = helper.from_weights(
        weight.codes, weight.scales.to(dtype), zeros.to(dtype), weight.bits, weight.group_size, None
    )
    return lambda activation: layer.forward(activation.values)
