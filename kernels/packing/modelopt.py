"""What NVIDIA's ModelOpt writes about a checkpoint: which algorithm its layers, and which its KV cache, are stored in.

It stands in ``hf_quant_config.json`` under ``quantization``, in newer checkpoints also in ``config.json`` as
``quantization_config`` with other names. The tensors are those of `nvfp4` and `fp8`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from qmeter_native.errors import UsageError
from qmeter_native.kernels.packing.requirements import required_field

__all__ = ["ModelOptConfig"]

_NVFP4_GROUP: Final = 16


@dataclass(frozen=True, slots=True)
class ModelOptConfig:
    """ModelOpt's configuration.

    Attributes:
        quant_algo: "FP8" (tensor), "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO" (128 x 128 blocks, weights only), "NVFP4"
            or "W4A16_NVFP4".
        kv_cache_quant_algo: "FP8", or None.
        exclude_modules: Names or patterns with ``*`` of modules left as they are.
    """

    quant_algo: str
    kv_cache_quant_algo: str | None = None
    exclude_modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        algorithms = ("FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO", "NVFP4", "W4A16_NVFP4")
        required_field("modelopt", "quant_algo", self.quant_algo, algorithms)
        required_field("modelopt", "kv_cache_quant_algo", self.kv_cache_quant_algo, ("FP8", None))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ModelOptConfig:
        """Read ``hf_quant_config.json``, or ``quantization_config`` of ``config.json``.

        Raises:
            UsageError: A field is missing or has a value that is not supported.
        """
        fields = config.get("quantization", config)
        if not fields.get("quant_algo"):
            raise UsageError("modelopt: quant_algo is missing", "It names the algorithm, such as NVFP4.")
        algorithm = str(fields["quant_algo"]).upper()
        if "NVFP4" in algorithm:
            required_field("modelopt", "group_size", fields.get("group_size") or _NVFP4_GROUP, (_NVFP4_GROUP,))
        scheme = fields.get("kv_cache_scheme")
        if scheme is not None:
            required_field("modelopt", "kv_cache_scheme.type", scheme.get("type"), ("float",))
            required_field("modelopt", "kv_cache_scheme.num_bits", scheme.get("num_bits"), (8,))
        cache = fields.get("kv_cache_quant_algo") or ("FP8" if scheme else None)
        excluded = fields.get("exclude_modules") or fields.get("ignore") or ()
        return cls(algorithm, cache.upper() if cache else None, tuple(excluded))

    def to_dict(self) -> dict[str, Any]:
        """``hf_quant_config.json``."""
        fields: dict[str, Any] = {
            "quant_algo": self.quant_algo,
            "kv_cache_quant_algo": self.kv_cache_quant_algo,
            "exclude_modules": list(self.exclude_modules),
        }
        if "NVFP4" in self.quant_algo:
            fields["group_size"] = _NVFP4_GROUP
        return {"producer": {"name": "modelopt"}, "quantization": fields}
