"""From a `ModelSource` to a model on its device."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qmeter_native.engines.model_source import ModelSource, is_hub_reachable
from qmeter_native.engines.protocol import Vocabulary
from qmeter_native.errors import EngineError, QmeterError, UsageError

__all__ = ["LoadedModel", "load_model", "vocabulary_of"]

_MEMORY_HINT = "Take a smaller model, another dtype, or a device with more memory."
_CHECKPOINT_FILES: Final = ["*.json", "*.safetensors"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on its device, in evaluation mode.

    Attributes:
        model: transformers' model.
        quantization: The method by which it was quantized on the fly, or ``quant_method`` of its checkpoint; None: not.
        quantization_config: As a checkpoint that is computed with as this model is has it in its ``config.json``; None:
            not quantized.
    """

    model: Any
    quantization: str | None = None
    quantization_config: dict[str, Any] | None = None


def load_model(source: ModelSource, device: Any, dtype: Any, seed: int, quantization: str = "none") -> LoadedModel:
    """The model of ``source``. A quantized checkpoint is read as it is; any other may be quantized on the fly.

    A shape's weights are drawn on the device itself, in ``dtype``, from the normal distribution of its published
    initialisation (standard deviation 0.02): 16 GB of an 8B model take seconds on a GPU. To be quantized, they are
    drawn layer by layer, so that only the quantized model has to fit.

    Args:
        source: What to load.
        device: ``torch.device``.
        dtype: ``torch.dtype`` of what is not quantized.
        seed: Of random weights.
        quantization: ``none``, or a name of `qmeter_native.quantization.methods`.

    Raises:
        UsageError: The method is unknown, does not suit the model, or the model is quantized already.
        EngineError: The weights are broken, do not fit the configuration, or do not fit into memory.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    _check_memory(source, device, dtype, quantization)
    try:
        loaded = _load(source, device, dtype, seed, quantization)
    except torch.OutOfMemoryError as error:
        raise EngineError(f"{source.name} does not fit on {device}: {error}", _MEMORY_HINT) from error
    except QmeterError:
        raise
    except Exception as error:  # safetensors, transformers and torch raise many types
        raise EngineError(f"the weights of {source.location or source.name} cannot be loaded: {error}") from error
    loaded.model.eval().requires_grad_(False)
    return loaded


def _load(source: ModelSource, device: Any, dtype: Any, seed: int, quantization: str) -> LoadedModel:
    if source.location is None:
        return _draw(source, device, dtype, seed, quantization)
    folder = _quantized_folder(source)
    if folder is not None:
        return _read_quantized(source, folder, device, dtype, quantization)
    model = _read_weights(source, dtype)
    return LoadedModel(model.to(device)) if quantization == "none" else _quantized(model, device, quantization)


def _draw(source: ModelSource, device: Any, dtype: Any, seed: int, quantization: str) -> LoadedModel:
    import torch
    from transformers import AutoModelForCausalLM

    from qmeter_native.quantization.empty_model import empty_model

    torch.manual_seed(seed)
    if quantization != "none":
        return _quantized(empty_model(source.config, dtype), device, quantization)
    with torch.device(device):
        return LoadedModel(AutoModelForCausalLM.from_config(source.config, dtype=dtype))


def _quantized(model: Any, device: Any, quantization: str) -> LoadedModel:
    """Layers go to the device one by one and quantized, then the rest."""
    from qmeter_native.quantization.empty_model import materialize
    from qmeter_native.quantization.quantize_model import quantize_model, rounded_config

    quantize_model(model, quantization, device=device)
    materialize(model, device)
    config = rounded_config(quantization)  # empty: of the cache alone, and the engine's has 16 bits
    return LoadedModel(model.to(device), quantization, config) if config else LoadedModel(model.to(device))


def _read_quantized(source: ModelSource, folder: Path, device: Any, dtype: Any, quantization: str) -> LoadedModel:
    from qmeter_native.quantization.checkpoint_formats.families import checkpoint_format
    from qmeter_native.quantization.checkpoint_reader import quantization_of, read_checkpoint

    config = quantization_of(folder) or {}
    if quantization != "none":
        raise UsageError(f"{source.name} is quantized already ({config['quant_method']})", "Leave --quantization out.")
    model = read_checkpoint(folder, source.config, device=device, dtype=dtype)
    return LoadedModel(model, str(config["quant_method"]), dict(checkpoint_format(config).config))


def _quantized_folder(source: ModelSource) -> Path | None:
    """The folder of a quantized checkpoint, downloaded if need be; None if the checkpoint is not quantized."""
    from qmeter_native.quantization.checkpoint_reader import quantization_of

    assert source.location is not None
    if source.kind != "hub":
        folder = Path(source.location)
        return folder if quantization_of(folder) else None
    if not getattr(source.config, "quantization_config", None):
        return None
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source.location, allow_patterns=_CHECKPOINT_FILES, local_files_only=True))
    except OSError:
        if not is_hub_reachable():
            raise
    return Path(snapshot_download(source.location, allow_patterns=_CHECKPOINT_FILES))


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


def _check_memory(source: ModelSource, device: Any, dtype: Any, quantization: str) -> None:
    """Refuse a shape that cannot fit before anything is allocated."""
    import torch

    if source.location is not None:
        return
    needed = _weight_bytes(source, dtype, quantization)
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


def _weight_bytes(source: ModelSource, dtype: Any, quantization: str) -> int:
    from qmeter_native.quantization.empty_model import empty_model
    from qmeter_native.quantization.methods import method_named
    from qmeter_native.quantization.quantize_model import linear_layers

    model = empty_model(source.config, dtype)
    num_bytes = int(model.num_parameters()) * int(dtype.itemsize)
    if quantization != "none":
        layout = method_named(quantization).layout
        for layer in linear_layers(model).values():
            saved = layer.weight.numel() * dtype.itemsize - layout.num_bytes(layer.out_features, layer.in_features)
            num_bytes -= int(saved)
    return num_bytes
