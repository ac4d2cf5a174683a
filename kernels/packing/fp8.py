"""FP8 weights: E4M3 numbers with a float32 scale for the matrix, for each output, or for blocks of 128 x 128.

``weight`` is float8_e4m3fn ``[N, K]`` everywhere; w = weight * scale, whatever the scale's name says. The scale is

| layout | tensor | channel | block |
|---|---|---|---|
| ``fp8`` (DeepSeek, Hugging Face) | ``weight_scale []`` | — | ``weight_scale_inv [N / 128, K / 128]`` |
| ``fbgemm_fp8`` | — | ``weight_scale [N, 1]`` | — |
| ``modelopt`` | ``weight_scale []`` | ``weight_scale [N]`` | ``weight_scale [N / 128, 1, K / 128, 1]`` |
| ``compressed-tensors`` | ``weight_scale [1]`` | ``weight_scale [N, 1]`` | ``weight_scale [N / 128, K / 128]`` |

(numbers of blocks rounded up). transformers stores the scale of a matrix as ``weight_scale_inv []``, which is read too.
Activations are quantized as they come (dynamic), or by a stored scale: ``input_scale``, in transformers
``activation_scale``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from qmeter_native.errors import UsageError
from qmeter_native.kernels.checks import check_float_matrix
from qmeter_native.kernels.packing.requirements import required_field, required_tensor
from qmeter_native.kernels.quantized_weight import ScaledWeight

__all__ = ["E4M3_MAX", "Fp8Config", "input_scale", "pack", "quantize", "round_to_e4m3", "unpack"]

E4M3_MAX: Final = 448.0
"""The largest float8_e4m3fn."""

_BLOCK: Final = (128, 128)
_NAN: Final = 0x7F  # of E4M3, with either sign
_SCALE_DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16, torch.float8_e8m0fnu)
_INPUT_SCALES: Final = ("input_scale", "activation_scale")


@dataclass(frozen=True, slots=True)
class Fp8Config:
    """``quantization_config`` of DeepSeek's and Hugging Face's ``fp8`` and of ``fbgemm_fp8``; ModelOpt has its own.

    Attributes:
        quant_method: "fp8" or "fbgemm_fp8".
        activation_scheme: "dynamic", or "static": a layer stores the scale of its input.
        weight_block_size: Rows and columns that share a scale; None: one scale for the matrix ("fp8") or each output.
        scale_fmt: "float", or "ue8m0": scales are powers of two.
        activation_scale_ub: FBGEMM's upper bound of a token's largest magnitude; None elsewhere.
        modules_to_not_convert: Names of modules left as they are.
    """

    quant_method: str = "fp8"
    activation_scheme: str = "dynamic"
    weight_block_size: tuple[int, int] | None = None
    scale_fmt: str = "float"
    activation_scale_ub: float | None = None
    modules_to_not_convert: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        required_field("fp8", "quant_method", self.quant_method, ("fp8", "fbgemm_fp8"))
        required_field("fp8", "activation_scheme", self.activation_scheme, ("dynamic", "static"))
        required_field("fp8", "scale_fmt", self.scale_fmt, ("float", "ue8m0"))
        if self.weight_block_size is not None:
            required_field("fp8", "weight_block_size", self.weight_block_size, (_BLOCK,))
            required_field("fp8 in blocks", "activation_scheme", self.activation_scheme, ("dynamic",))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Fp8Config:
        """Read ``quantization_config``.

        Raises:
            UsageError: A field has a value that is not supported.
        """
        required_field("fp8", "fmt", config.get("fmt", "e4m3"), ("e4m3", "float8_e4m3fn"))
        required_field("fp8", "expert_dtype", config.get("expert_dtype", "fp8"), ("fp8",))
        method, block = config.get("quant_method", ""), config.get("weight_block_size")
        return cls(
            quant_method=method,
            activation_scheme=str(config.get("activation_scheme") or "dynamic").lower(),
            weight_block_size=None if block is None else tuple(block),
            scale_fmt=config.get("scale_fmt") or "float",
            activation_scale_ub=config.get("activation_scale_ub", 1200.0) if method == "fbgemm_fp8" else None,
            modules_to_not_convert=tuple(config.get("modules_to_not_convert") or config.get("ignored_layers") or ()),
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as ``config.json`` has them."""
        skipped = list(self.modules_to_not_convert)
        if self.quant_method == "fbgemm_fp8":
            return {
                "quant_method": "fbgemm_fp8",
                "activation_scale_ub": self.activation_scale_ub,
                "modules_to_not_convert": skipped,
            }
        block = self.weight_block_size
        return {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": self.activation_scheme,
            "weight_block_size": None if block is None else list(block),
            "scale_fmt": self.scale_fmt,
            "modules_to_not_convert": skipped,
        }


def round_to_e4m3(values: Any) -> Any:
    """The nearest float8_e4m3fn, ties to even; beyond 448 the largest, where torch's own cast gives NaN."""
    return values.float().clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def quantize(weight: Any, granularity: str = "channel", *, power_of_two: bool = False) -> ScaledWeight:
    """Round a matrix to E4M3; the scale is the largest magnitude over 448.

    Args:
        weight: Floating point ``[N, K]``, of any size: blocks at the edges may be smaller.
        granularity: What shares a scale: "tensor", "channel" (an output) or "block" (128 x 128).
        power_of_two: Round scales up to a power of two, as DeepSeek's "ue8m0".
    """
    check_float_matrix("weight", weight)
    required_field("fp8", "granularity", granularity, ("tensor", "channel", "block"))
    n, k = weight.shape
    rows, columns = {"tensor": (n, k), "channel": (1, k), "block": _BLOCK}[granularity]
    padded = torch.nn.functional.pad(weight.float(), (0, -k % columns, 0, -n % rows))
    blocks = padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    scales = blocks.abs().amax((1, 3)) / E4M3_MAX
    scales = torch.where(scales > 0, scales, 1.0)
    if power_of_two:
        scales = torch.exp2(torch.log2(scales).ceil().clamp_min(-127))
    values = round_to_e4m3(blocks / scales[:, None, :, None]).reshape(padded.shape)[:n, :k]
    return ScaledWeight(values.contiguous(), scales, (rows, columns))


def pack(weight: ScaledWeight, layout: str = "fp8", granularity: str | None = None) -> dict[str, Any]:
    """The tensors of a layer, as the table above has them.

    Args:
        weight: With float8_e4m3fn values.
        layout: "fp8", "fbgemm_fp8", "modelopt" or "compressed-tensors".
        granularity: "tensor", "channel" or "block"; None: as the weight's scales have it, which a matrix of one output
            or of 128 x 128 leaves open.

    Raises:
        UsageError: Other values, or scales that the layout has no place for.
    """
    required_field("fp8", "type of the values", weight.values.dtype, (torch.float8_e4m3fn,))
    (n, k), (rows, columns) = weight.shape, weight.scales.shape
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "fp8": {"tensor": (), "block": (rows, columns)},
        "fbgemm_fp8": {"channel": (rows, 1)},
        "modelopt": {"tensor": (), "channel": (rows,), "block": (rows, 1, columns, 1)},
        "compressed-tensors": {"tensor": (1,), "channel": (rows, 1), "block": (rows, columns)},
    }
    required_field("fp8", "layout", layout, shapes)
    blocks = {"tensor": (n, k), "channel": (1, k), "block": _BLOCK}
    fitting = [kind for kind in shapes[layout] if blocks[kind] == weight.block and granularity in (None, kind)]
    if not fitting:
        raise UsageError(
            f"the weight has scales of {weight.block[0]} x {weight.block[1]} values",
            f"{layout} stores them by {granularity or ' or '.join(shapes[layout])}; blocks are 128 x 128.",
        )
    name = "weight_scale_inv" if layout == "fp8" and fitting[0] == "block" else "weight_scale"
    return {"weight": weight.values, name: weight.scales.float().reshape(shapes[layout][fitting[0]])}


def unpack(tensors: Mapping[str, Any], block: tuple[int, int] | None = None) -> ScaledWeight:
    """Read a layer of any of the layouts.

    Args:
        tensors: With ``weight`` and either ``weight_scale`` or ``weight_scale_inv``.
        block: Rows and columns that share a scale; None: a scale for the matrix or for each output, told by its shape.

    Returns:
        Scales float32, whichever type they were stored in.

    Raises:
        UsageError: A tensor is missing, of another type or shape, or ``weight`` holds NaN.
    """
    values = required_tensor(tensors, "weight", [torch.float8_e4m3fn], None, None)
    if bool((values.view(torch.uint8) & _NAN == _NAN).any()):
        raise UsageError("weight holds NaN", "It was written by a cast that does not saturate: quantize it anew.")
    n, k = values.shape
    name = "weight_scale_inv" if "weight_scale_inv" in tensors else "weight_scale"
    if name not in tensors:
        raise UsageError("the layer has no tensor weight_scale or weight_scale_inv", f"It has {', '.join(tensors)}.")
    shape = tuple(tensors[name].shape)
    expected: tuple[int, ...]
    if block is not None:
        sizes = -(-n // block[0]), -(-k // block[1])
        expected = (sizes[0], 1, sizes[1], 1) if len(shape) == 4 else sizes
    elif tensors[name].numel() == 1:
        block, sizes, expected = (n, k), (1, 1), shape
    else:
        block, sizes, expected = (1, k), (n, 1), (n, 1)[: max(len(shape), 1)]
    scales = required_tensor(tensors, name, _SCALE_DTYPES, *expected)
    return ScaledWeight(values, scales.float().reshape(sizes), block)


def input_scale(tensors: Mapping[str, Any]) -> Any | None:
    """The stored scale of a layer's input, float32 ``[]``; None where activations are quantized as they come."""
    for name in _INPUT_SCALES:
        if name in tensors:
            shape = (1,) if tensors[name].ndim else ()
            return required_tensor(tensors, name, _SCALE_DTYPES, *shape).float().reshape(())
    return None
