"""The part of transformers' continuous batching that differs between the versions we run on (5.17 to 5.23)."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import fields
from typing import Any

from qmeter_native.engines.options import EngineOptions
from qmeter_native.errors import EngineError

__all__ = ["attention_for", "batching_config", "effective_settings", "start_manager"]

_FLASH_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


def attention_for(options: EngineOptions, device: Any) -> str:
    """The attention implementation. Only an installed package counts: kernels are never fetched from a hub.

    Raises:
        EngineError: Flash attention was asked for and cannot run here.
    """
    if options.attention == "auto":
        has_flash = device.type == "cuda" and importlib.util.find_spec("flash_attn") is not None
        return "flash_attention_2" if has_flash else "sdpa"
    package = _FLASH_PACKAGES.get(options.attention)
    if package is not None and (device.type != "cuda" or importlib.util.find_spec(package) is None):
        raise EngineError(
            f"{options.attention} was asked for, and it needs a CUDA GPU and the package {package}",
            "Install the package, or use sdpa.",
        )
    return options.attention


def batching_config(options: EngineOptions, attention: str, device: Any) -> Any:
    """Transformers' ``ContinuousBatchingConfig``, with everything given that it would guess from free memory."""
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    known = {field.name for field in fields(ContinuousBatchingConfig)}
    page_size = options.page_size_for(attention)
    is_cuda = device.type == "cuda"
    settings: dict[str, Any] = {
        # 5.17 calls a page a block; both names hold tokens per layer and block.
        "page_size" if "page_size" in known else "block_size": page_size,
        "num_blocks": options.num_blocks_for(page_size),
        "max_batch_tokens": options.batch_tokens(),
        "max_requests_per_batch": min(options.max_concurrency, options.batch_tokens()),
        "allow_block_sharing": options.prefix_caching,
        "use_async_batching": options.asynchronous and is_cuda,
        "use_cuda_graph": options.cuda_graphs and is_cuda,
        "default_compile_level": options.compile_level,
        "seed": options.seed,
    }
    if "auto_switch_to_flash" in known:
        settings["auto_switch_to_flash"] = False
    return ContinuousBatchingConfig(**settings)


def start_manager(model: Any, attention: str, config: Any) -> Any:
    """A ``ContinuousBatchingManager`` with its cache allocated and its CUDA graphs warmed up, not yet running.

    Raises:
        EngineError: The cache does not fit into memory, or this version refuses the configuration.
    """
    from transformers import GenerationConfig

    # Its errors reach the client with the request; the logger would print tracebacks too.
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
    # Versions before ``auto_switch_to_flash`` keep their hands off an implementation that is named as paged.
    is_prefixed = attention == "eager" or not hasattr(config, "auto_switch_to_flash")
    generation = GenerationConfig(do_sample=False, eos_token_id=-1)
    try:
        model.set_attn_implementation(f"paged|{attention}" if is_prefixed else attention)
        manager = model.init_continuous_batching(generation_config=generation, continuous_batching_config=config)
        manager.warmup()
    except MemoryError as error:
        raise EngineError(
            f"a KV cache of {config.num_blocks} blocks does not fit into memory: {error}",
            "Give fewer blocks, fewer tokens in a batch, or a smaller model.",
        ) from error
    except Exception as error:  # transformers refuses configurations with many types
        raise EngineError(f"continuous batching cannot start: {error}") from error
    return manager


def effective_settings(manager: Any) -> dict[str, Any]:
    """What the manager really runs with, as plain JSON."""
    config = manager.continuous_batching_config
    varlen, decode = config.use_cuda_graph
    return {
        "attention": manager.model.config._attn_implementation,
        "page_size": getattr(config, "page_size", None) or config.block_size,
        "num_blocks": config.num_blocks,
        "max_batch_tokens": config.max_batch_tokens,
        "max_requests_per_batch": config.max_requests_per_batch,
        "cuda_graphs": {"varlen": varlen, "decode": decode},
        "is_asynchronous": config.use_async_batching,
        "is_compiled": config.varlen_compile_config is not None or config.decode_compile_config is not None,
        "prefix_caching": bool(manager.batch_processor.cache.use_prefix_sharing),
        "scheduler": config.scheduler_type,
    }
