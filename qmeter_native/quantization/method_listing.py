"""What ``methods`` shows: every method, who serves it, and whether this machine runs it natively."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from qmeter_native.kernels.catalog import KERNELS
from qmeter_native.quantization.method import ARCHITECTURES, KV_FORMATS, Method
from qmeter_native.quantization.methods import METHODS

__all__ = ["EMBEDDED_KV", "MethodLine", "MethodListing", "architecture_of", "method_line", "method_listing"]

SCHEMA_VERSION: Final = 1

EMBEDDED_KV: Final = (
    "The embedded engine keeps keys and values in 16 bits: transformers' continuous batching has no quantized paged "
    "cache. kernels.paged_attention attends over such caches and is benchmarked, not served; `quality` rounds them."
)
"""What becomes of a method's cache there."""

_OLDEST: Final = (8, 0)
"""Of our kernels."""
_HEAD_DIM: Final = 128
"""Of the head whose scales are shared out over its elements."""


@dataclass(frozen=True, slots=True)
class MethodLine:
    """A method on a machine.

    Attributes:
        name: As ``--quantization`` spells it.
        scheme: Its label.
        algorithm: What chooses the codes.
        needs_calibration: That reads text.
        checkpoint: What checkpoints call the format.
        bits_per_weight: Of a matrix of 4096 x 4096, scales and zero points included.
        kv_bits: Of an element of the cache, scales of a head of 128 included.
        minimum: Oldest compute capability that multiplies in its formats.
        state: ``native``, ``fallback`` (it runs, in other formats) or ``absent``.
        reason: Why it is not native here; None: it is.
        vllm_kernels: Who wrote the products that vLLM 0.26 runs, by architecture; empty: it does not serve the method.
        vllm_attention: Likewise attention, where the cache decides that.
        vllm_flags: Of ``vllm serve``, beside the checkpoint.
        vllm_note: Why vLLM does not serve it, or what it needs; None: nothing.
        vllm_here: Of `vllm_kernels`, those of this GPU; None: none is stated for it.
        embedded_kernel: The function of `qmeter_native.kernels` by which the embedded engine multiplies; None: torch.
        embedded_note: What of the method that engine does not do; None: nothing.
        elsewhere: What older GPUs do with it.
        summary: One sentence.
    """

    name: str
    scheme: str
    algorithm: str
    needs_calibration: bool
    checkpoint: str
    bits_per_weight: float
    kv_bits: float
    minimum: str
    state: str
    reason: str | None
    vllm_kernels: Mapping[str, tuple[str, ...]]
    vllm_attention: Mapping[str, tuple[str, ...]]
    vllm_flags: tuple[str, ...]
    vllm_note: str | None
    vllm_here: tuple[str, ...] | None
    embedded_kernel: str | None
    embedded_note: str | None
    elsewhere: str
    summary: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class MethodListing:
    """All methods on a machine; schema: ``methods.schema.json``.

    Attributes:
        gpu: Name of the first GPU; None: there is none.
        compute_capability: Its, such as ``9.0``.
        methods: In the order of the table.
    """

    gpu: str | None
    compute_capability: str | None
    methods: tuple[MethodLine, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def method_listing(gpu: tuple[str, tuple[int, int]] | None) -> MethodListing:
    """By the GPU's name and compute capability; None: there is none."""
    name, capability = (None, None) if gpu is None else gpu
    return MethodListing(
        gpu=name,
        compute_capability=None if capability is None else _version(capability),
        methods=tuple(method_line(method, capability) for method in METHODS.values()),
    )


def method_line(method: Method, capability: tuple[int, int] | None) -> MethodLine:
    """A method on a GPU of that compute capability; None: there is no GPU."""
    state, reason = _state(method, capability)
    vllm, architecture = method.vllm, architecture_of(capability)
    return MethodLine(
        name=method.name,
        scheme=method.scheme,
        algorithm=method.algorithm,
        needs_calibration=method.needs_calibration,
        checkpoint=method.checkpoint,
        bits_per_weight=round(method.bits_per_weight(), 4),
        kv_bits=8 * method.kv_bytes(1, _HEAD_DIM) / (2 * _HEAD_DIM),
        minimum=_version(method.minimum),
        state=state,
        reason=reason,
        vllm_kernels={} if vllm is None else dict(vllm.kernels),
        vllm_attention={} if vllm is None else dict(vllm.attention),
        vllm_flags=() if vllm is None else vllm.flags,
        vllm_note=_vllm_note(method),
        vllm_here=None if vllm is None or architecture is None else vllm.kernels.get(architecture),
        embedded_kernel=_embedded_kernel(method),
        embedded_note=EMBEDDED_KV if method.kv in KV_FORMATS else None,
        elsewhere=method.elsewhere,
        summary=method.summary,
    )


def architecture_of(capability: tuple[int, int] | None) -> str | None:
    """The name of `ARCHITECTURES` whose rules hold; None: none is stated, such as for consumers' Blackwell (12.0)."""
    if capability is None:
        return None
    major = {8: "sm_89" if capability >= (8, 9) else "sm_80", 9: "sm_90", 10: "sm_100"}.get(capability[0])
    return major if major in ARCHITECTURES else None


def _state(method: Method, capability: tuple[int, int] | None) -> tuple[str, str | None]:
    if capability is None:
        return "absent", "There is no NVIDIA GPU: the embedded engine computes with rounded weights in torch."
    if capability >= method.minimum:
        return "native", None
    lacking = f"It needs compute capability {_version(method.minimum)}, and the GPU has {_version(capability)}."
    has_other = capability >= _OLDEST and method.vllm is not None and architecture_of(capability) in method.vllm.kernels
    return ("fallback" if has_other else "absent"), f"{lacking} {method.elsewhere}".strip()


def _embedded_kernel(method: Method) -> str | None:
    return next(
        (each.name for each in KERNELS if each.served_by == "QuantLinear" and method.format in each.formats), None
    )


def _vllm_note(method: Method) -> str | None:
    if method.vllm is None:
        return method.why_not_vllm
    dtype, package = method.vllm.dtype, method.vllm.needs
    notes = [f"in {dtype} only" if dtype else None, f"needs {package}" if package else None]
    return ", ".join(filter(None, notes)) or None


def _version(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
