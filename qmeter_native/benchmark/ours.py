"""Our own kernels as contenders."""

from __future__ import annotations

from typing import Any, Final

from qmeter_native.benchmark.contender import Activation, Contender, Prepare, Product
from qmeter_native.kernels.catalog import KERNELS

__all__ = ["OURS", "our_contenders"]


def our_contenders() -> tuple[Contender, ...]:
    """All kernels of matrix products; each imports its package when it first lays out a weight."""
    entries = {entry.name: entry for entry in KERNELS}
    return tuple(
        Contender(f"qmeter.{name}", entries[name].formats, prepare, entries[name].minimum)
        for name, prepare in OURS.items()
    )


def _weight_only_linear(weight: Any, dtype: Any) -> Product:
    from qmeter_native.kernels.weight_only import WeightOnlyTensor, weight_only_linear

    prepared = WeightOnlyTensor.prepare(weight, dtype)
    return lambda activation: weight_only_linear(activation.values, prepared)


def _weight_only_gemm(weight: Any, dtype: Any) -> Product:
    from qmeter_native.kernels.weight_only import WeightOnlyTensor, weight_only_gemm

    prepared = WeightOnlyTensor.prepare(weight, dtype)
    return lambda activation: weight_only_gemm(activation.values, prepared)


def _scaled_gemm(weight: Any, dtype: Any) -> Product:
    from qmeter_native.kernels.scaled import ScaledTensor, scaled_gemm

    prepared = ScaledTensor.prepare(weight)

    def product(x: Activation) -> Any:
        return scaled_gemm(x.values, x.flat_scales, prepared, out_dtype=x.out_dtype, x_zeros=x.flat_zeros)

    return product


def _w4a8_gemm(weight: Any, dtype: Any) -> Product:
    from qmeter_native.kernels.w4a8 import W4A8Tensor, w4a8_gemm

    prepared = W4A8Tensor.prepare(weight)
    return lambda x: w4a8_gemm(x.values, x.flat_scales, prepared, out_dtype=x.out_dtype)


OURS: Final[dict[str, Prepare]] = {
    "weight_only_linear": _weight_only_linear,
    "weight_only_gemm": _weight_only_gemm,
    "scaled_gemm": _scaled_gemm,
    "w4a8_gemm": _w4a8_gemm,
}
"""How each lays out a weight, by its name in the catalog."""
