"""How a linear layer's weight is stored: as it is, as GPTQ's packed integers, or as FP8. One class a format.

Layouts and configurations are those that vLLM 0.26 and transformers 5 load.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from qmeter_native.errors import UsageError

if TYPE_CHECKING:
    from qmeter_native.kernels.packing.gptq import GptqConfig

__all__ = ["Dense", "Fp8", "Gptq", "WeightFormat", "format_names", "weight_format"]


class WeightFormat(Protocol):
    """What a checkpoint writer needs of a format."""

    @property
    def name(self) -> str:
        """The method's name, as ``--quantization`` spells it; ``none`` for unquantized weights."""

    def config(self) -> dict[str, Any] | None:
        """``quantization_config`` of ``config.json``; None if weights are stored as they are."""

    def check(self, name: str, num_outputs: int, num_inputs: int) -> None:
        """Refuse a layer that the format cannot hold.

        Raises:
            UsageError: Naming the layer and what does not divide.
        """

    def tensors(self, prefix: str, num_outputs: int, num_inputs: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Names of a layer's stored tensors, each with its shape and ``torch.dtype``."""

    def store(self, prefix: str, weight: Any) -> dict[str, Any]:
        """A layer's stored tensors from its weight, ``[outputs, inputs]`` in floating point."""


@dataclass(frozen=True, slots=True)
class Dense:
    """Weights in the model's own number format, ``torch.float16`` or ``torch.bfloat16``."""

    dtype: Any

    @property
    def name(self) -> str:
        """See `WeightFormat`."""
        return "none"

    def config(self) -> dict[str, Any] | None:
        """See `WeightFormat`."""
        return None

    def check(self, name: str, num_outputs: int, num_inputs: int) -> None:
        """Every layer fits."""

    def tensors(self, prefix: str, num_outputs: int, num_inputs: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """See `WeightFormat`."""
        return {f"{prefix}.weight": ((num_outputs, num_inputs), self.dtype)}

    def store(self, prefix: str, weight: Any) -> dict[str, Any]:
        """See `WeightFormat`."""
        return {f"{prefix}.weight": weight.to(self.dtype)}


@dataclass(frozen=True, slots=True)
class Gptq:
    """GPTQ, symmetric, without act-order: ``W4A16-INT g128`` as most checkpoints have it.

    ``qweight`` int32 ``[K / 8, N]`` holds eight consecutive inputs of one output a word, the first in the lowest bits;
    ``qzeros`` int32 ``[K / G, N / 8]`` holds zero - 1 (``checkpoint_format`` "gptq"), so 7 in every nibble; ``scales``
    float16 ``[K / G, N]``; ``g_idx`` int32 ``[K]``. A weight is ``scale * (code - 8)``.
    """

    bits: int = 4
    group_size: int = 128

    @property
    def name(self) -> str:
        """See `WeightFormat`."""
        return "gptq"

    def _layout(self) -> GptqConfig:
        from qmeter_native.kernels.packing.gptq import GptqConfig

        return GptqConfig(bits=self.bits, group_size=self.group_size)

    def config(self) -> dict[str, Any] | None:
        """See `WeightFormat`."""
        return self._layout().to_dict()

    def check(self, name: str, num_outputs: int, num_inputs: int) -> None:
        """See `WeightFormat`: the kernels that read GPTQ want whole groups."""
        self._layout().check_layer(name, num_outputs, num_inputs)
        if num_inputs % self.group_size:
            raise UsageError(
                f"{name} is {num_outputs} x {num_inputs}, and GPTQ needs inputs in groups of {self.group_size}",
                "Choose another model or --quantization.",
            )

    def tensors(self, prefix: str, num_outputs: int, num_inputs: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """See `WeightFormat`."""
        import torch

        num_groups = num_inputs // self.group_size
        return {
            f"{prefix}.qweight": ((num_inputs * self.bits // 32, num_outputs), torch.int32),
            f"{prefix}.qzeros": ((num_groups, num_outputs * self.bits // 32), torch.int32),
            f"{prefix}.scales": ((num_groups, num_outputs), torch.float16),
            f"{prefix}.g_idx": ((num_inputs,), torch.int32),
        }

    def store(self, prefix: str, weight: Any) -> dict[str, Any]:
        """See `WeightFormat`; rounds to nearest, each group scaled by its largest magnitude."""
        from qmeter_native.kernels.packing import gptq

        stored = gptq.pack(gptq.quantize(weight, self._layout()), self._layout())
        return {f"{prefix}.{suffix}": tensor for suffix, tensor in stored.items()}


@dataclass(frozen=True, slots=True)
class Fp8:
    """FP8 (e4m3) weights with one float32 scale a layer, activations quantized on the fly: ``W8A8-FP``."""

    @property
    def name(self) -> str:
        """See `WeightFormat`."""
        return "fp8"

    def config(self) -> dict[str, Any] | None:
        """See `WeightFormat`."""
        return {"quant_method": "fp8", "activation_scheme": "dynamic", "ignored_layers": ["lm_head"]}

    def check(self, name: str, num_outputs: int, num_inputs: int) -> None:
        """See `WeightFormat`: the tensor cores' FP8 products need multiples of 16."""
        if num_inputs % 16 or num_outputs % 16:
            raise UsageError(
                f"{name} is {num_outputs} x {num_inputs}, and FP8 needs multiples of 16",
                "Choose another model or --quantization.",
            )

    def tensors(self, prefix: str, num_outputs: int, num_inputs: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """See `WeightFormat`."""
        import torch

        return {
            f"{prefix}.weight": ((num_outputs, num_inputs), torch.float8_e4m3fn),
            f"{prefix}.weight_scale": ((), torch.float32),
        }

    def store(self, prefix: str, weight: Any) -> dict[str, Any]:
        """See `WeightFormat`; the largest magnitude becomes 448, e4m3's largest number."""
        from qmeter_native.kernels.packing import fp8

        stored = fp8.pack(fp8.quantize(weight, "tensor"), "fp8")
        return {f"{prefix}.{suffix}": tensor for suffix, tensor in stored.items()}


_QUANTIZED: Final[dict[str, Callable[[], WeightFormat]]] = {"gptq": Gptq, "fp8": Fp8}


def format_names() -> tuple[str, ...]:
    """Names that `weight_format` knows."""
    return ("none", *_QUANTIZED)


def weight_format(name: str, dtype: Any) -> WeightFormat:
    """The format called ``name``; ``dtype`` is that of unquantized weights.

    Raises:
        UsageError: No format goes by that name.
    """
    if name == "none":
        return Dense(dtype)
    if name not in _QUANTIZED:
        raise UsageError(
            f"no checkpoint can be written for --quantization {name}", f"There are {', '.join(format_names())}."
        )
    return _QUANTIZED[name]()
