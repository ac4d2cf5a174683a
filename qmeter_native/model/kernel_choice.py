"""Which kernels a quantization method asked for, and which really ran."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KernelChoice", "ObservedKernels"]


@dataclass(frozen=True, slots=True)
class ObservedKernels:
    """All GEMM-like kernels of one implementation.

    Attributes:
        implementation: ``Marlin``, ``Machete``, ``CUTLASS scaled-mm``, ``cuBLAS`` …, ``unknown``.
        scheme: Scheme or number format as far as names tell, such as ``W4A16-INT``.
        calls: Launches.
        time_s: Time given to them.
        time_share: Of all GEMM time of the decoder's linear layers and the LM head.
    """

    implementation: str
    scheme: str | None
    calls: int
    time_s: float
    time_share: float


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """Requested against observed.

    Attributes:
        method: Quantization method as the engine reports it, less vLLM's ``auto_`` (``gptq``, ``fp8`` …); None =
            unquantized; ``unknown`` if the engine did not say.
        expected: Implementations that carry the method out in its own number format; empty if the method is unknown.
        observed: What ran, most time first.
        is_fallback: The quantized format was asked for and (nearly) no GEMM time ran in it; None if it cannot be told.
        message: One sentence for people.
    """

    method: str | None
    expected: tuple[str, ...]
    observed: tuple[ObservedKernels, ...]
    is_fallback: bool | None
    message: str
