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
    from qmeter_native.kernels import weight_only

    prepared = weight_only.WeightOnlyTensor.prepare(weight, dtype)
    return lambda activation: weight_only.weight_only_linear(activation.values, prepared)


def _weight_only_gemm(weight: Any, dtype: Any) -> Product:
    from qmeter_native.kernels import weight_only

    prepared = weight_only.WeightOnlyTensor.prepare(weight, dtype)
    return lambda activation: weight_only.weight_only_gemm(activation.values, prepared)


def _scaled_gemm(weight: Any, dtype: Any) -> Product:
    from qmeter_native.kernels import scaled

    prepared = scaled.ScaledTensor.prepare(weight)

    def product(activation: Activation) -> Any:
        return scaled.scaled_gemm(
            activation.values,
            activation.flat_scales,
            prepared,
            out_dtype=activation.out_dtype,
            x_zeros=activation.flat_zeros,
        )

    return product


def _w4a8_gemm(weight: Any, dtype: Any) -> Product:
    from qmeter_native.kernels import w4a8

    prepared = w4a8.W4A8Tensor.prepare(weight)

    def product(activation: Activation) -> Any:
        return w4a8.w4a8_gemm(activation.values, activation.flat_scales, prepared, out_dtype=activation.out_dtype)

    return product


OURS: Final[dict[str, Prepare]] = {
    "weight_only_linear": _weight_only_linear,
    "weight_only_gemm": _weight_only_gemm,
    "scaled_gemm": _scaled_gemm,
    "w4a8_gemm": _w4a8_gemm,
}
"""How each lays out a weight, by its name in the catalog."""
