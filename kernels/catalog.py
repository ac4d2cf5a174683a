"""What there is: number formats of matrix products, the kernels that multiply them, and which of them run here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from qmeter_native.errors import UsageError
from qmeter_native.work.gemm_work import InputScales, Work, product_work
from qmeter_native.work.scheme import WeightLayout

__all__ = ["FORMATS", "KERNELS", "KernelEntry", "KernelFormat", "format_named", "why_no_kernel", "why_not_here"]

_ROW: Final = InputScales()
_TENSOR: Final = InputScales(scale_bits=0)
"""One scale for all activations: too little to count."""
_16_BIT: Final = ("float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class KernelFormat:
    """A format of weights and activations.

    Attributes:
        label: As printed, such as ``W4A16-INT g128``.
        layout: What the weights take, scales included.
        activations: Types of what is multiplied with them, the default first.
        ceiling: The rate that bounds it, named as a `Ceiling` of the device profile; ``fp16`` for both 16-bit types.
        checkpoints: Where such weights are found.
        input_scales: Scales of quantized activations; None for 16-bit ones.
    """

    label: str
    layout: WeightLayout
    activations: tuple[str, ...]
    ceiling: str
    checkpoints: str
    input_scales: InputScales | None = None

    def work(self, m: int, n: int, k: int) -> Work:
        """Operations and least bytes of one product with 16-bit outputs."""
        input_bits = 16 if self.activations == _16_BIT else 8
        return product_work(self.layout, m, n, k, input_bits, input_scales=self.input_scales)


def _weight_only(label: str, layout: WeightLayout, checkpoints: str) -> KernelFormat:
    return KernelFormat(label, layout, _16_BIT, "fp16", checkpoints)


def _int8(label: str, layout: WeightLayout, checkpoints: str, scales: InputScales = _ROW) -> KernelFormat:
    return KernelFormat(label, layout, ("int8",), "int8", checkpoints, scales)


def _fp8(label: str, layout: WeightLayout, checkpoints: str, scales: InputScales = _ROW) -> KernelFormat:
    return KernelFormat(label, layout, ("float8_e4m3fn",), "fp8", checkpoints, scales)


FORMATS: Final = (
    _weight_only("W4A16-INT g128", WeightLayout(4, 16, block=(1, 128)), "GPTQ, compressed-tensors"),
    _weight_only("W4A16-INT g128 zp", WeightLayout(4, 16, 4, (1, 128)), "AWQ, GPTQ, compressed-tensors"),
    _weight_only("W4A16-INT g128 act-order", WeightLayout(4, 16, block=(1, 128), row_bits=32), "GPTQ with desc_act"),
    _weight_only("W4A16-INT g64 HQQ", WeightLayout(4, 16, 16, (1, 64)), "HQQ"),
    _weight_only("W8A16-INT g128", WeightLayout(8, 16, block=(1, 128)), "GPTQ, compressed-tensors"),
    _weight_only("W3A16-INT g128", WeightLayout(3, 16, block=(1, 128)), "GPTQ, HQQ"),
    _weight_only("W2A16-INT g128", WeightLayout(2, 16, block=(1, 128)), "GPTQ, HQQ"),
    _weight_only("W4A16-NF4 g64", WeightLayout(4, 32, block=(1, 64)), "bitsandbytes"),
    _weight_only("W4A16-FP4 g64", WeightLayout(4, 32, block=(1, 64)), "bitsandbytes"),
    _weight_only("W4A16-MXFP4 g32", WeightLayout(4, 8, block=(1, 32)), "MXFP4 of gpt-oss, compressed-tensors"),
    _weight_only("W4A16-NVFP4 g16", WeightLayout(4, 8, block=(1, 16), tensor_bits=32), "ModelOpt, compressed-tensors"),
    _weight_only("W8A16-INT", WeightLayout(8, 32, block=(1, 0)), "LLM.int8(), compressed-tensors"),
    _weight_only("W8A16-FP", WeightLayout(8, 32, block=(1, 0)), "FP8 checkpoints"),
    _int8("W8A8-INT", WeightLayout(8, 32, block=(1, 0)), "compressed-tensors int-quantized"),
    _int8(
        "W8A8-INT asymmetric",
        WeightLayout(8, 32, block=(1, 0)),
        "compressed-tensors int-quantized",
        InputScales(zero_bits=32),
    ),
    _fp8("W8A8-FP tensor", WeightLayout(8, 32), "FP8 checkpoints, ModelOpt", _TENSOR),
    _fp8("W8A8-FP", WeightLayout(8, 32, block=(1, 0)), "compressed-tensors, FBGEMM"),
    _fp8("W8A8-FP b128", WeightLayout(8, 32, block=(128, 128)), "DeepSeek, FP8_BLOCK", InputScales(128)),
    _int8("W4A8-INT", WeightLayout(4, 16, 4, (1, 0)), "QoQ by channel"),
    _int8("W4A8-INT g128", WeightLayout(4, 8, 4, (1, 128), channel_bits=16), "QoQ by group"),
    _fp8("W4A8-FP g128", WeightLayout(4, 16, block=(1, 128)), "made from GPTQ's and compressed-tensors'"),
)


@dataclass(frozen=True, slots=True)
class KernelEntry:
    """A function of this package.

    Attributes:
        name: Of the function.
        module: That has it.
        formats: Labels of `FORMATS`, or of caches and activations in their own words.
        activations: Types that it reads.
        minimum: Oldest compute capability.
        served_by: Who calls it.
    """

    name: str
    module: str
    formats: tuple[str, ...]
    activations: tuple[str, ...]
    minimum: tuple[int, int]
    served_by: str


_PACKAGE: Final = "qmeter_native.kernels"
_OF_16_BIT: Final = tuple(form.label for form in FORMATS if form.activations == _16_BIT)
_W8A8: Final = tuple(form.label for form in FORMATS if form.label.startswith("W8A8"))
_LINEAR: Final = "QuantLinear"
_CACHES: Final = ("KV16", "KV8-FP", "KV8-INT", "KV4-INT")

KERNELS: Final = (
    KernelEntry("weight_only_linear", f"{_PACKAGE}.weight_only", _OF_16_BIT, _16_BIT, (8, 0), _LINEAR),
    KernelEntry("weight_only_gemm", f"{_PACKAGE}.weight_only", _OF_16_BIT, _16_BIT, (8, 0), "weight_only_linear"),
    KernelEntry("scaled_gemm", f"{_PACKAGE}.scaled", _W8A8, ("int8", "float8_e4m3fn"), (8, 0), _LINEAR),
    KernelEntry(
        "w4a8_gemm",
        f"{_PACKAGE}.w4a8",
        ("W4A8-INT", "W4A8-INT g128", "W4A8-FP g128"),
        ("int8", "float8_e4m3fn"),
        (8, 0),
        _LINEAR,
    ),
    KernelEntry("quantize_token", f"{_PACKAGE}.activation.quantize", ("a scale a token",), _16_BIT, (8, 0), _LINEAR),
    KernelEntry(
        "quantize_group", f"{_PACKAGE}.activation.quantize", ("a scale for 128 inputs",), _16_BIT, (8, 0), _LINEAR
    ),
    KernelEntry(
        "silu_and_mul_quantize",
        f"{_PACKAGE}.activation.quantize",
        ("a scale a token", "a scale for 128 inputs"),
        _16_BIT,
        (8, 0),
        "its caller",
    ),
    KernelEntry(
        "rms_norm_quantize", f"{_PACKAGE}.activation.rms_norm", ("a scale a token",), _16_BIT, (8, 0), "its caller"
    ),
    KernelEntry("paged_attention", f"{_PACKAGE}.paged_attention.decode", _CACHES, _16_BIT, (8, 0), "its caller"),
    KernelEntry("write_kv", f"{_PACKAGE}.paged_attention.write", _CACHES, _16_BIT, (8, 0), "its caller"),
)

_FP8_MINIMUM: Final = (8, 9)
"""Tensor cores multiply E4M3 from Ada on."""


def format_named(label: str) -> KernelFormat:
    """The format of a label.

    Raises:
        UsageError: There is none; the message lists them.
    """
    found = next((form for form in FORMATS if form.label.lower() == label.lower()), None)
    if found is None:
        raise UsageError(f"there is no format {label!r}", f"Choose of: {', '.join(form.label for form in FORMATS)}.")
    return found


def why_not_here(entry: KernelEntry, capability: tuple[int, int] | None, activation: str | None = None) -> str | None:
    """Why a kernel does not run on this machine; None if it does.

    Args:
        entry: The kernel.
        capability: Of the GPU; None if there is none.
        activation: A type of ``entry.activations`` that is asked for; None: any of them.
    """
    missing = next((name for name in ("torch", "triton") if find_spec(name) is None), None)
    if missing is not None:
        return f"{missing} is not installed: pip install 'qmeter-native[kernels]'"
    if find_spec(entry.module) is None:
        return "this version does not have it"
    if capability is None:
        return "there is no GPU"
    minimum = max(entry.minimum, _FP8_MINIMUM) if activation == "float8_e4m3fn" else entry.minimum
    if capability < minimum:
        return f"it needs compute capability {minimum[0]}.{minimum[1]}, and the GPU has {capability[0]}.{capability[1]}"
    return None


def why_no_kernel(label: str, capability: tuple[int, int]) -> str | None:
    """Why no kernel of this package multiplies weights of a format on a GPU; None if one does.

    Args:
        label: Of `FORMATS`.
        capability: Of the GPU.
    """
    activation = format_named(label).activations[0]
    reasons = [why_not_here(entry, capability, activation) for entry in KERNELS if label in entry.formats]
    return None if None in reasons else next(iter(reasons), "no kernel is here")
