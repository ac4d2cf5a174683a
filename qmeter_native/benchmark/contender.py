"""What is timed side by side: kernels that multiply the same activations with the same quantized weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qmeter_native.errors import UsageError
from qmeter_native.kernels.catalog import KernelFormat
from qmeter_native.work.scheme import WeightLayout

__all__ = ["Activation", "Contender", "Prepare", "Product", "require"]


@dataclass(frozen=True, slots=True)
class Activation:
    """The left side of a product; build it with `of`.

    Attributes:
        values: ``[M, K]``, 16-bit or quantized.
        scales: float32 ``[M, 1]`` or ``[M, K / 128]`` of quantized values; None for 16-bit ones.
        zeros: int32 ``[M, 1]`` of asymmetric ones, else None.
        out_dtype: Type of the product, of torch.
        half: What the values stand for in that type, ``[M, K]``: for kernels that know no quantized activations.
        scales_by_column: The scales with tokens next to each other in memory.
        row_peaks: float32 ``[M]``: the magnitude that the largest int8 of each row stands for; None without scales.
    """

    values: Any
    scales: Any
    zeros: Any
    out_dtype: Any
    half: Any
    scales_by_column: Any
    row_peaks: Any

    @classmethod
    def of(cls, values: Any, scales: Any, zeros: Any, out_dtype: Any) -> Activation:
        """With all that kernels want of it, so that making it is no part of what is timed."""
        if scales is None:
            return cls(values, None, None, out_dtype, values, None, None)
        half = _real(values, scales, zeros).to(out_dtype)
        return cls(values, scales, zeros, out_dtype, half, scales.t().contiguous().t(), scales[:, 0] * 127.0)

    @property
    def flat_scales(self) -> Any:
        """Scales by token as a vector ``[M]``, by group as they are."""
        return self.scales.squeeze(1) if self.scales is not None and self.scales.shape[1] == 1 else self.scales

    @property
    def flat_zeros(self) -> Any:
        """Zero points as a vector ``[M]``, or None."""
        return None if self.zeros is None else self.zeros.squeeze(1)

    def real(self, rows: Any) -> Any:
        """What some rows stand for, in double precision ``[rows, K]``."""
        if self.scales is None:
            return self.values[rows].double()
        zeros = None if self.zeros is None else self.zeros[rows]
        return _real(self.values[rows], self.scales[rows].double(), zeros)


def _real(values: Any, scales: Any, zeros: Any) -> Any:
    """``(values - zeros) * scales`` in the scales' type."""
    shifted = values.to(scales.dtype) if zeros is None else values.to(scales.dtype) - zeros
    return shifted * scales.repeat_interleave(values.shape[1] // scales.shape[1], 1)


Product = Callable[[Activation], Any]
"""Multiplies, on the stream that is current, and returns ``[M, N]``; may be captured in a CUDA graph."""

Prepare = Callable[[Any, Any], Product]
"""From a logical weight on the device and the type of torch of the 16-bit side to the product with it, laid out as the
kernel wants it. Raises `UsageError` where the kernel does not take such a weight."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A kernel.

    Attributes:
        name: ``qmeter.…`` for ours, else ``library.kernel``.
        formats: Labels of those that it multiplies.
        prepare: Lays out a weight.
        minimum, maximum: Compute capabilities that it runs on, both included; None: no limit.
        dtypes: Types of the 16-bit side.
        layout: Of its weights in memory, where it is not the format's: cuBLAS reads 16 bits a weight.
        ceiling: The rate that bounds it, where it is not the format's.
        is_16_bit: It multiplies what is quantized in 16 bits, rounded once more.
        finish: From what it gives, the activation and the weight to the product, where what it gives is not that yet;
            for the check, not timed.
    """

    name: str
    formats: tuple[str, ...]
    prepare: Prepare
    minimum: tuple[int, int] = (8, 0)
    maximum: tuple[int, int] | None = None
    dtypes: tuple[str, ...] = ("float16", "bfloat16")
    layout: WeightLayout | None = None
    ceiling: str | None = None
    is_16_bit: bool = False
    finish: Callable[[Any, Activation, Any], Any] | None = None

    def why_not(self, form: KernelFormat, dtype: str, capability: tuple[int, int]) -> str | None:
        """Why it cannot run; None if it can."""
        if form.label not in self.formats:
            return f"it does not multiply {form.label}"
        if dtype not in self.dtypes:
            return f"it takes {' and '.join(self.dtypes)} only"
        if capability < self.minimum or (self.maximum is not None and capability > self.maximum):
            until = "" if self.maximum is None else f" to {self.maximum[0]}.{self.maximum[1]}"
            return f"it runs on compute capability {self.minimum[0]}.{self.minimum[1]}{until or ' and newer'}"
        return None

    def weight_bytes(self, form: KernelFormat, n: int, k: int) -> int:
        """Bytes of one copy of the weights."""
        return (self.layout or form.layout).num_bytes(n, k)


def require(is_met: bool, what: str) -> None:
    """Refuse a weight that a kernel does not take.

    Raises:
        UsageError: ``what`` it needs is not met.
    """
    if not is_met:
        raise UsageError(what)
