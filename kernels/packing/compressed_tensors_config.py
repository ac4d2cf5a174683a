"""``quantization_config`` of compressed-tensors: which layers are quantized, how, and in which of its formats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing.requirements import required_field

__all__ = ["CompressedTensorsConfig", "LayerScheme", "TensorScheme"]

_METHOD: Final = "compressed-tensors"
_STRATEGIES: Final[dict[str, tuple[str, ...]]] = {
    "pack-quantized": ("channel", "group"),
    "int-quantized": ("tensor", "channel", "group"),
    "float-quantized": ("tensor", "channel", "block"),
    "nvfp4-pack-quantized": ("tensor_group",),
    "mxfp4-pack-quantized": ("group",),
}
"""The formats that are supported, each with its weights' strategies."""
_BITS: Final[dict[str, tuple[str, tuple[int, ...]]]] = {
    "pack-quantized": ("int", (2, 3, 4, 5, 6, 7, 8)),
    "int-quantized": ("int", (2, 3, 4, 5, 6, 7, 8)),
    "float-quantized": ("float", (8,)),
    "nvfp4-pack-quantized": ("float", (4,)),
    "mxfp4-pack-quantized": ("float", (4,)),
}
_FP4_GROUP: Final = {"nvfp4-pack-quantized": 16, "mxfp4-pack-quantized": 32}


@dataclass(frozen=True, slots=True)
class TensorScheme:
    """How one tensor of a layer is quantized: its weights, its inputs, or a KV cache.

    Attributes:
        num_bits: Of a code.
        type: "int" or "float".
        symmetric: No zero points.
        strategy: What shares a scale: "tensor", "channel" (an output), "group" (of inputs), "tensor_group" (the same
            under one scale of the tensor), "block", "token", "attn_head".
        group_size: Inputs of a group; None but for groups.
        block: Outputs and inputs of a block; None but for blocks.
        dynamic: Scales are found at run time; "local": but for that of the tensor.
        by_activation: Groups are in act-order, ``weight_g_idx`` (``actorder`` "group").
    """

    num_bits: int = 8
    type: str = "int"
    symmetric: bool = True
    strategy: str = "tensor"
    group_size: int | None = None
    block: tuple[int, int] | None = None
    dynamic: bool | str = False
    by_activation: bool = False

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> TensorScheme:
        """Read ``weights``, ``input_activations`` or ``kv_cache_scheme``; a missing strategy follows from the group."""
        group_size = config.get("group_size")
        strategy = config.get("strategy")
        if strategy is None:
            strategy = {None: "tensor", -1: "channel"}.get(group_size, "group")
        actorder = config.get("actorder")
        required_field(_METHOD, "actorder", actorder, (None, False, True, "group", "dynamic", "weight", "static"))
        block = config.get("block_structure")
        if strategy in ("group", "tensor_group") and (group_size is None or group_size < 1):
            raise UsageError(f"{_METHOD}: group_size is {group_size}", f"Strategy {strategy} needs a positive one.")
        if (strategy == "block") != (block is not None):
            raise UsageError(f"{_METHOD}: block_structure is {block}", "Strategy block needs it, and no other has it.")
        return cls(
            num_bits=config.get("num_bits", 8),
            type=config.get("type", "int"),
            symmetric=config.get("symmetric", True),
            strategy=strategy,
            group_size=group_size if strategy in ("group", "tensor_group") else None,
            block=None if block is None else (block[0], block[1]),
            dynamic=config.get("dynamic", False),
            by_activation=actorder in (True, "group", "dynamic"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as ``config.json`` has them."""
        fields: dict[str, Any] = {
            "num_bits": self.num_bits,
            "type": self.type,
            "symmetric": self.symmetric,
            "strategy": self.strategy,
            "group_size": self.group_size,
            "dynamic": self.dynamic,
        }
        if self.block is not None:
            fields["block_structure"] = list(self.block)
        if self.by_activation:
            fields["actorder"] = "group"
        return fields


@dataclass(frozen=True, slots=True)
class LayerScheme:
    """One entry of ``config_groups``: a format and the layers that have it.

    Attributes:
        format: "pack-quantized", "int-quantized", "float-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized".
        weights: How weights are quantized.
        input_activations: How the layers' inputs are; None: not at all.
        targets: Names of layers, names of classes, or ``re:`` and a pattern that fits from a name's start.
        padded: A word of ``pack-quantized`` holds whole codes only, as before compressed-tensors 0.18, where the
            tensors' sizes leave it open.
    """

    format: str
    weights: TensorScheme
    input_activations: TensorScheme | None = None
    targets: tuple[str, ...] = ("Linear",)
    padded: bool = False

    def __post_init__(self) -> None:
        required_field(_METHOD, "format", self.format, tuple(_STRATEGIES))
        kind, bits = _BITS[self.format]
        where = f"{_METHOD} {self.format}"
        required_field(where, "weights.type", self.weights.type, (kind,))
        required_field(where, "weights.num_bits", self.weights.num_bits, bits)
        required_field(where, "weights.strategy", self.weights.strategy, _STRATEGIES[self.format])
        required_field(where, "weights.dynamic", self.weights.dynamic, (False,))
        if kind == "float":
            required_field(where, "weights.symmetric", self.weights.symmetric, (True,))
        elif self.weights.strategy == "tensor":
            required_field(where + " by tensor", "weights.symmetric", self.weights.symmetric, (True,))
            required_field(where + " by tensor", "weights.num_bits", self.weights.num_bits, (8,))
        if self.weights.block is not None:
            required_field(where, "weights.block_structure", self.weights.block, ((128, 128),))
        if self.format in _FP4_GROUP:
            required_field(where, "weights.group_size", self.weights.group_size, (_FP4_GROUP[self.format],))

    @classmethod
    def from_dict(cls, group: Mapping[str, Any], model_format: str, padded: bool) -> LayerScheme:
        """Read an entry of ``config_groups``; its own ``format`` goes before the model's."""
        required_field(_METHOD, "output_activations", group.get("output_activations"), (None,))
        weights = TensorScheme.from_dict(group["weights"])
        layout = group.get("format") or model_format
        if layout == "naive-quantized":
            layout = f"{weights.type}-quantized"  # the same tensors
        inputs = group.get("input_activations")
        return cls(
            format=layout,
            weights=weights,
            input_activations=None if inputs is None else TensorScheme.from_dict(inputs),
            targets=tuple(group.get("targets") or ()),
            padded=padded,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as ``config.json`` has them."""
        return {
            "targets": list(self.targets),
            "weights": self.weights.to_dict(),
            "input_activations": None if self.input_activations is None else self.input_activations.to_dict(),
            "output_activations": None,
            "format": self.format,
        }

    def check_layer(self, name: str, num_outputs: int, num_inputs: int) -> None:
        """Refuse a layer that the scheme cannot hold.

        Raises:
            UsageError: Naming the layer and what does not divide.
        """
        group_size = self.weights.group_size
        if group_size is not None and num_inputs % group_size:
            raise UsageError(
                f"{name} is {num_outputs} x {num_inputs}, and its inputs are no whole groups of {group_size}",
                "Choose another group_size, or leave the layer unquantized.",
            )


@dataclass(frozen=True, slots=True)
class CompressedTensorsConfig:
    """``quantization_config`` of a compressed-tensors checkpoint.

    Attributes:
        schemes: How its layers are quantized.
        ignore: Layers that are not, though a scheme targets them; spelt as targets are.
        kv_cache: How the KV cache is quantized; None: not at all.
        version: Of compressed-tensors, which wrote the checkpoint; None: not known.
    """

    schemes: tuple[LayerScheme, ...]
    ignore: tuple[str, ...] = ()
    kv_cache: TensorScheme | None = None
    version: str | None = None

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> CompressedTensorsConfig:
        """Read ``quantization_config``.

        Raises:
            UsageError: A field has a value that is not supported, sparsity and transforms among them.
        """
        required_field(_METHOD, "quant_method", config.get("quant_method", _METHOD), (_METHOD,))
        required_field(_METHOD, "quantization_status", config.get("quantization_status", "compressed"), ("compressed",))
        for name in ("sparsity_config", "transform_config"):
            if config.get(name):
                raise UsageError(f"{_METHOD}: {name} is given", "Sparse and transformed weights are not supported.")
        version = config.get("version")
        groups = config.get("config_groups") or {}
        for name, group in groups.items():
            if not isinstance(group, Mapping):
                raise UsageError(f"{_METHOD}: config_groups.{name} is {group!r}", "It must have its fields spelt out.")
        kv_cache = config.get("kv_cache_scheme")
        model_format, padded = config.get("format") or "dense", _is_padded(version)
        quantized = [group for group in groups.values() if group.get("weights")]
        return cls(
            schemes=tuple(LayerScheme.from_dict(group, model_format, padded) for group in quantized),
            ignore=tuple(config.get("ignore") or ()),
            kv_cache=None if kv_cache is None else TensorScheme.from_dict(kv_cache),
            version=version,
        )

    def to_dict(self) -> dict[str, Any]:
        """``quantization_config`` as vLLM 0.26 and transformers 5 read it."""
        formats = {scheme.format for scheme in self.schemes}
        config: dict[str, Any] = {
            "quant_method": _METHOD,
            "format": formats.pop() if len(formats) == 1 else "mixed-precision",
            "quantization_status": "compressed",
            "config_groups": {f"group_{index}": scheme.to_dict() for index, scheme in enumerate(self.schemes)},
            "ignore": list(self.ignore),
            "kv_cache_scheme": None if self.kv_cache is None else self.kv_cache.to_dict(),
        }
        if self.version is not None:
            config["version"] = self.version
        return config

    def of_layer(self, name: str, class_name: str = "Linear") -> LayerScheme | None:
        """The scheme of a layer, by its name before patterns before its class; None: it is not quantized."""
        if any(_specificity(pattern, name, class_name) for pattern in self.ignore):
            return None
        ranked = [
            (max((_specificity(target, name, class_name) for target in scheme.targets), default=0), -index)
            for index, scheme in enumerate(self.schemes)
        ]
        best, index = max(ranked, default=(0, 0))
        return self.schemes[-index] if best else None


def _specificity(target: str, name: str, class_name: str) -> int:
    """How closely a target fits a layer: 3 by its name, 2 by a pattern, 1 by its class, 0 not."""
    if target.startswith("re:"):
        return 2 * bool(re.match(target[3:], name))
    return 3 if target == name else int(target == class_name)


def _is_padded(version: str | None) -> bool:
    """Whether a version of compressed-tensors leaves the rest of a word empty: before 0.18."""
    numbers = re.match(r"(\d+)\.(\d+)", version or "")
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < (0, 18)
