"""What a model takes with a method: bytes of its weights, and of keys and values for a token."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from qmeter_native.engines.model_source import ModelSource
from qmeter_native.errors import EngineError
from qmeter_native.quantization.method import KV_FORMATS, Method
from qmeter_native.quantization.model_parameters import model_parameters, num_bytes
from qmeter_native.work.model_config import read_model_config

__all__ = ["MethodMemory", "method_memory"]


@dataclass(frozen=True, slots=True)
class MethodMemory:
    """Of one model, all GPUs together.

    Attributes:
        model: As the user wrote it.
        num_parameters: All of the model's.
        num_quantized: Of them, weights that the method quantizes.
        weight_bytes: All parameters; quantized ones with scales and zero points, all others in 16 bits.
        plain_weight_bytes: All in 16 bits.
        kv_bytes_per_token: Keys and values of all layers, with their scales.
        plain_kv_bytes_per_token: In 16 bits.
        kv_formula: How that is computed, with the model's numbers.
    """

    model: str
    num_parameters: int
    num_quantized: int
    weight_bytes: int
    plain_weight_bytes: int
    kv_bytes_per_token: int
    plain_kv_bytes_per_token: int
    kv_formula: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def method_memory(method: Method, source: ModelSource) -> MethodMemory:
    """By the model's configuration alone: nothing is loaded.

    Raises:
        UsageError: A layer's sizes do not suit the method.
        EngineError: The model has layers that are no matrices, or its sizes are not known.
    """
    import torch

    sizes, reason = read_model_config(source.config.to_dict())
    if sizes is None:
        raise EngineError(f"the memory of {source.name} is not known: {reason}")
    parameters = model_parameters(source.config, method, torch.bfloat16)
    counts = [torch.Size(each.shape).numel() for each in parameters]
    form = None if method.kv is None else KV_FORMATS[method.kv]
    bits, scale_bits = (16, 0) if form is None else (form.bits, form.scale_bits)
    return MethodMemory(
        model=source.name,
        num_parameters=sum(counts),
        num_quantized=sum(count for count, each in zip(counts, parameters, strict=True) if each.layer is not None),
        weight_bytes=num_bytes(parameters),
        plain_weight_bytes=2 * sum(counts),
        kv_bytes_per_token=sizes.num_layers * method.kv_bytes(sizes.num_kv_heads, sizes.head_dim),
        plain_kv_bytes_per_token=sizes.num_layers * 4 * sizes.num_kv_heads * sizes.head_dim,
        kv_formula=f"{sizes.num_layers} layers x 2 x {sizes.num_kv_heads} heads x ({sizes.head_dim} x {bits} bits"
        + (f" + {scale_bits} bits of scale) / 8" if scale_bits else ") / 8"),
    )
