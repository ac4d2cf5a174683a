"""What vLLM was asked to run and what it really runs, from its own configuration and model."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from qmeter_native.model.manifest import EngineInfo

__all__ = ["describe_model", "engine_info", "weights_source"]

_FIELDS: Final = {
    "quantization": "model_config.quantization",
    "dtype": "model_config.dtype",
    "max_model_len": "model_config.max_model_len",
    "enforce_eager": "model_config.enforce_eager",
    "kv_cache_dtype": "cache_config.cache_dtype",
    "block_size": "cache_config.block_size",
    "num_gpu_blocks": "cache_config.num_gpu_blocks",
    "prefix_caching": "cache_config.enable_prefix_caching",
    "tensor_parallel": "parallel_config.tensor_parallel_size",
    "pipeline_parallel": "parallel_config.pipeline_parallel_size",
    "data_parallel": "parallel_config.data_parallel_size",
    "max_num_batched_tokens": "scheduler_config.max_num_batched_tokens",
    "max_num_seqs": "scheduler_config.max_num_seqs",
    "async_scheduling": "scheduler_config.async_scheduling",
    "chunked_prefill": "scheduler_config.enable_chunked_prefill",
    "cudagraph_mode": "compilation_config.cudagraph_mode.name",
    "cudagraph_capture_sizes": "compilation_config.cudagraph_capture_sizes",
    "num_speculative_tokens": "speculative_config.num_speculative_tokens",
    "load_format": "load_config.load_format",
}
"""Keys of EngineInfo.effective, and where ``VllmConfig`` holds them."""

_KERNELS: Final = ("kernel", "fp8_linear", "w8a8_block_fp8_linear")
"""Attributes in which vLLM's linear methods and schemes keep the kernel that they chose."""


def engine_info(config: Any, version: str) -> EngineInfo:
    """What a ``VllmConfig`` says; what this version of vLLM does not have is left out."""
    values = {key: _plain(_found(config, path)) for key, path in _FIELDS.items()}
    effective = {key: value for key, value in values.items() if value is not None}
    if _found(config, "model_config") is not None:
        effective.setdefault("quantization", "none")  # vLLM says None, which would read as not known
    if isinstance(effective.get("dtype"), str):
        effective["dtype"] = effective["dtype"].removeprefix("torch.")
    is_v2 = _found(config, "use_v2_model_runner")
    if is_v2 is not None:
        effective["model_runner"] = "V2" if is_v2 else "V1"
    hf_config = _hf_config(config)
    if hf_config is not None:
        effective["hf_config"] = hf_config
        if hf_config.get("quantization_config"):
            effective["quantization_config"] = hf_config["quantization_config"]
    model = str(_found(config, "model_config.model") or "")
    source = weights_source(model, str(effective.get("load_format", "")))
    return EngineInfo("vllm", version, model, effective=effective, weights_source=source)


def weights_source(model: str, load_format: str) -> str:
    """Where the weights come from, as `EngineInfo.weights_source` says it.

    ``qmeter.json`` beside the checkpoint is written by `qmeter_native.quantization`.

    Args:
        model: A directory, or a name on a hub.
        load_format: vLLM's.
    """
    if load_format == "dummy":
        return "dummy"
    for name in ("qmeter.json", "config.json"):
        with suppress(OSError, ValueError, AttributeError):
            said = json.loads((Path(model) / name).read_text()).get("weights_source")
            if said:
                return str(said)
    return "checkpoint"


def describe_model(effective: dict[str, Any], model_runner: Any) -> None:
    """Add what only the loaded model knows: attention backends, and the kernels of its linear layers with their count.

    Nothing is added of what is not there: before the model is loaded, or in another version of vLLM.
    """
    with suppress(Exception):
        groups = [group for groups in model_runner.attn_groups for group in groups]
        if backends := sorted({group.backend.get_name() for group in groups}):
            effective["attention_backends"] = backends
    with suppress(Exception):
        kernels = Counter(filter(None, map(_linear_kernel, model_runner.get_model().modules())))
        if kernels:
            effective["linear_kernels"] = dict(kernels)


def _linear_kernel(module: Any) -> str | None:
    """Name of the kernel class of a linear layer, of its method if that has none; None for other modules."""
    method = getattr(module, "quant_method", None)
    if method is None or "Linear" not in type(method).__name__:
        return None
    for holder in (getattr(module, "scheme", None), method):
        for name in _KERNELS:
            kernel = getattr(holder, name, None)
            if kernel is not None:
                return type(kernel).__name__
    return type(method).__name__


def _hf_config(config: Any) -> dict[str, Any] | None:
    with suppress(Exception):
        found: dict[str, Any] = json.loads(json.dumps(config.model_config.hf_config.to_dict(), default=str))
        return found
    return None


def _found(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name, None)
    return root


def _plain(value: Any) -> Any:
    """As JSON holds it."""
    return value if value is None else json.loads(json.dumps(value, default=str))
