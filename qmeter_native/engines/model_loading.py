"""From a `ModelSource` to a model on its device."""

from __future__ import annotations

import os
from typing import Any

from qmeter_native.engines.model_source import ModelSource, is_hub_reachable
from qmeter_native.engines.protocol import Vocabulary
from qmeter_native.errors import EngineError

__all__ = ["load_model", "vocabulary_of"]

_MEMORY_HINT = "Take a smaller model, another dtype, or a device with more memory."


def load_model(source: ModelSource, device: Any, dtype: Any, seed: int) -> Any:
    """The model, in evaluation mode.

    A shape's weights are drawn on the device itself, in ``dtype``, from the normal distribution of its published
    initialisation (standard deviation 0.02): 16 GB of an 8B model take seconds on a GPU.

    Args:
        source: What to load.
        device: ``torch.device``.
        dtype: ``torch.dtype``.
        seed: Of random weights.

    Raises:
        EngineError: The weights are broken, do not fit the configuration, or do not fit into memory.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    _check_memory(source, device, dtype)
    try:
        if source.location is None:
            torch.manual_seed(seed)
            with torch.device(device):
                model = AutoModelForCausalLM.from_config(source.config, dtype=dtype)
        else:
            model = _read_weights(source, dtype).to(device)
    except torch.OutOfMemoryError as error:
        raise EngineError(f"{source.name} does not fit on {device}: {error}", _MEMORY_HINT) from error
    except Exception as error:  # safetensors, transformers and torch raise many types
        raise EngineError(f"the weights of {source.location or source.name} cannot be loaded: {error}") from error
    return model.eval().requires_grad_(False)


def _read_weights(source: ModelSource, dtype: Any) -> Any:
    """What is on this machine; only if it is not here, for a hub id, what the hub has."""
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            source.location, config=source.config, dtype=dtype, local_files_only=True
        )
    except OSError:
        if source.kind != "hub" or not is_hub_reachable():
            raise
    return AutoModelForCausalLM.from_pretrained(source.location, config=source.config, dtype=dtype)


def vocabulary_of(config: Any) -> Vocabulary:
    """The token ids of a configuration. 256 ids are bytes: no tokenizer of the field has so few."""
    special: set[int] = set()
    for value in (config.bos_token_id, config.eos_token_id, config.pad_token_id):
        special.update(value if isinstance(value, list) else () if value is None else (value,))
    return Vocabulary(config.vocab_size, frozenset(special), is_bytes=config.vocab_size == 256)


def _check_memory(source: ModelSource, device: Any, dtype: Any) -> None:
    """Refuse a shape that cannot fit before anything is allocated."""
    import torch
    from transformers import AutoModelForCausalLM

    if source.location is not None:
        return
    with torch.device("meta"):
        num_parameters = AutoModelForCausalLM.from_config(source.config).num_parameters()
    needed = num_parameters * dtype.itemsize
    if device.type == "cuda":
        available = torch.cuda.mem_get_info(device)[0]
    else:
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise EngineError(
            f"{source.name} needs {needed / 1e9:.1f} GB for its weights in {dtype}, "
            f"and {device} has {available / 1e9:.1f} GB free",
            _MEMORY_HINT,
        )
