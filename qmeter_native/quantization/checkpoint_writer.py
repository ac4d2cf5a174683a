"""Writes a checkpoint for a model of which only the shape is known, so that an engine can serve it and be weighed.

An engine's own dummy loader leaves packed integers as they were allocated and floats near zero, and zeros draw far
less power: energy measured with them is wrong. Here weights are drawn from the model's published initialisation and
rounded as the format rounds trained ones, so that codes, scales and activations look like those of a real model. Such
a checkpoint is good for time and energy, and worthless for quality: ``qmeter.json`` beside it says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from qmeter_native.quantization.checkpoint_documents import write_config, write_source
from qmeter_native.quantization.checkpoint_tokenizer import word_tokenizer
from qmeter_native.quantization.method import Method
from qmeter_native.quantization.model_parameters import Parameter, format_of, model_parameters, num_bytes
from qmeter_native.quantization.shard_writer import ShardWriter
from qmeter_native.quantization.unfinished_folder import unfinished_folder

__all__ = ["WEIGHTS_SOURCE", "write_checkpoint"]

WEIGHTS_SOURCE: Final = "random_codes"

_STANDARD_DEVIATION: Final = 0.02
"""``initializer_range`` of nearly every published decoder."""


def write_checkpoint(
    folder: Path,
    config: Any,
    method: Method,
    *,
    dtype: Any,
    device: str = "cpu",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write ``config.json``, sharded safetensors, a tokenizer and ``qmeter.json`` to ``folder``.

    One file and one layer at a time are in memory. The folder appears when it is whole.

    Args:
        folder: To create; must not exist.
        config: transformers' ``PretrainedConfig`` of a causal language model.
        method: How linear layers of the decoder are stored, rounded to nearest; embeddings, norms and the LM head stay
            in ``dtype``.
        dtype: ``torch.dtype`` of all else, ``float16`` or ``bfloat16``.
        device: Where weights are drawn: an 8B model takes seconds on a GPU and minutes on a CPU.
        seed: Of the weights.
        progress: Told bytes done and bytes in all, about.

    Returns:
        Bytes of all weights.

    Raises:
        UsageError: The format cannot hold a layer of this model, or ``folder`` exists.
        EngineError: The model has layers that this writer does not know (experts), there is too little space, or the
            folder cannot be written.
    """
    import torch

    parameters = model_parameters(config, method, dtype)
    generator = torch.Generator(device).manual_seed(seed)
    total, done = num_bytes(parameters), 0
    with unfinished_folder(folder, total) as hidden:
        shards = ShardWriter(hidden)
        for parameter in parameters:
            shards.add(parameter.stored(_draw(parameter, dtype, generator)))
            done += parameter.num_bytes
            progress(done, total)
        written = shards.finish()
        layout = format_of(method)
        write_config(hidden, _document(config, dtype), None if layout is None else layout.stored_config)
        word_tokenizer(config).save_pretrained(str(hidden))
        write_source(hidden, WEIGHTS_SOURCE, method.name, seed=seed)
    return written


def _draw(parameter: Parameter, dtype: Any, generator: Any) -> Any:
    """A parameter's value: norms are ones, biases zeros, all else is normal."""
    import torch

    device = generator.device
    if len(parameter.shape) < 2:
        fill = torch.ones if parameter.name.endswith("weight") else torch.zeros
        return fill(parameter.shape, dtype=dtype, device=device)
    return torch.randn(parameter.shape, generator=generator, device=device, dtype=dtype).mul_(_STANDARD_DEVIATION)


def _document(config: Any, dtype: Any) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    document = dict(config.to_dict())
    document["architectures"] = [AutoModelForCausalLM._model_mapping[type(config)].__name__]
    document["torch_dtype"] = document["dtype"] = str(dtype).removeprefix("torch.")
    return document
