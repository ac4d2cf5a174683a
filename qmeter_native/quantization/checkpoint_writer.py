"""Writes a checkpoint for a model of which only the shape is known, so that an engine can serve it and be weighed.

An engine's own dummy loader leaves packed integers as they were allocated and floats near zero, and zeros draw far
less power: energy measured with them is wrong. Here weights are drawn from the model's published initialisation and
rounded as the format rounds trained ones, so that codes, scales and activations look like those of a real model. Such
a checkpoint is good for time and energy, and worthless for quality: ``qmeter.json`` beside it says so.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qmeter_native.errors import CaptureError, EngineError
from qmeter_native.quantization.weight_format import Dense, WeightFormat

__all__ = ["WEIGHTS_FILE", "WEIGHTS_SOURCE", "write_checkpoint"]

WEIGHTS_FILE: Final = "qmeter.json"
"""Beside ``config.json``: where the weights come from."""

WEIGHTS_SOURCE: Final = "random_codes"

_SHARD_BYTES: Final = 2 << 30
_STANDARD_DEVIATION: Final = 0.02
"""``initializer_range`` of nearly every published decoder."""


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One parameter of the model: its name and shape, and whether the format stores it (a decoder's linear layer)."""

    name: str
    shape: tuple[int, ...]
    is_linear: bool

    @property
    def prefix(self) -> str:
        return self.name.removesuffix(".weight")


def write_checkpoint(
    folder: Path,
    config: Any,
    weights: WeightFormat,
    *,
    dtype: Any,
    device: str = "cpu",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write ``config.json``, sharded safetensors, a tokenizer and ``qmeter.json`` to ``folder``.

    One layer at a time is in memory. Everything is written to a folder beside it, which is renamed when it is whole.

    Args:
        folder: To create; must not exist.
        config: transformers' ``PretrainedConfig`` of a causal language model.
        weights: How linear layers of the decoder are stored; embeddings, norms and the LM head stay in ``dtype``.
        dtype: ``torch.dtype`` of all else, ``float16`` or ``bfloat16``.
        device: Where weights are drawn: an 8B model takes seconds on a GPU and minutes on a CPU.
        seed: Of the weights.
        progress: Told bytes done and bytes in all.

    Returns:
        Bytes of all weights.

    Raises:
        UsageError: The format cannot hold a layer of this model.
        EngineError: The model has layers that this writer does not know (experts), or there is too little space.
        CaptureError: ``folder`` exists or cannot be written.
    """
    if folder.exists():
        raise CaptureError(f"{folder} exists already", "Choose another folder, or remove it first.")
    parameters = _parameters(config)
    shards = _shards(parameters, weights, dtype)
    total = sum(size for shard in shards for _, size in shard)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _check_space(unfinished, total)
        _write_shards(unfinished, shards, weights, dtype, device, seed, progress)
        _write_config(unfinished, config, weights, dtype)
        _write_tokenizer(unfinished, config)
        _write_source(unfinished, weights, seed)
        unfinished.rename(folder)
    except OSError as error:
        raise CaptureError(
            f"{folder} cannot be written: {error.strerror or error}", "Check space and rights."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return total


def _parameters(config: Any) -> list[_Parameter]:
    """All parameters in the order of layers, tied ones once."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    linears = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    found = [_Parameter(name, tuple(each.shape), name in linears) for name, each in model.named_parameters()]
    odd = next((each for each in found if len(each.shape) > 2), None)
    if odd is not None:
        raise EngineError(
            f"{odd.name} has {len(odd.shape)} dimensions: no checkpoint can be written for models with experts yet",
            "Choose a dense model.",
        )
    return found


def _stored(parameter: _Parameter, weights: WeightFormat, dtype: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Names of a parameter's stored tensors, each with its shape and dtype."""
    if not parameter.is_linear:
        return {parameter.name: (parameter.shape, dtype)}
    num_outputs, num_inputs = parameter.shape
    weights.check(parameter.prefix, num_outputs, num_inputs)
    return weights.tensors(parameter.prefix, num_outputs, num_inputs)


def _shards(parameters: Sequence[_Parameter], weights: WeightFormat, dtype: Any) -> list[list[tuple[_Parameter, int]]]:
    """Parameters of each file with their bytes, planned before anything is drawn: a shard's name holds their number."""
    shards: list[list[tuple[_Parameter, int]]] = [[]]
    filled = 0
    for parameter in parameters:
        size = sum(math.prod(shape) * kind.itemsize for shape, kind in _stored(parameter, weights, dtype).values())
        if filled and filled + size > _SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append((parameter, size))
        filled += size
    return shards


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise EngineError(
            f"the checkpoint needs {needed / 1e9:.1f} GB, and {folder.parent} has {free / 1e9:.1f} GB free",
            "Make room, choose another folder, or a smaller model.",
        )


def _write_shards(
    folder: Path,
    shards: Sequence[Sequence[tuple[_Parameter, int]]],
    weights: WeightFormat,
    dtype: Any,
    device: str,
    seed: int,
    progress: Callable[[int, int], None],
) -> None:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator(device).manual_seed(seed)
    total, done = sum(size for shard in shards for _, size in shard), 0
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors: dict[str, Any] = {}
        for parameter, size in shard:
            tensors.update((name, each.cpu()) for name, each in _draw(parameter, weights, dtype, generator))
            done += size
            progress(done, total)
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(tensors, file))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    _write_json(folder / "model.safetensors.index.json", index)


def _draw(parameter: _Parameter, weights: WeightFormat, dtype: Any, generator: Any) -> Iterator[tuple[str, Any]]:
    """A parameter's stored tensors: norms are ones, biases zeros, all else is normal."""
    import torch

    device = generator.device
    if len(parameter.shape) < 2:
        is_scale = parameter.name.endswith("weight")
        value = torch.ones(parameter.shape, device=device) if is_scale else torch.zeros(parameter.shape, device=device)
        yield parameter.name, value.to(dtype)
        return
    value = torch.randn(parameter.shape, generator=generator, device=device) * _STANDARD_DEVIATION
    stored = weights if parameter.is_linear else Dense(dtype)
    yield from stored.store(parameter.prefix, value).items()


def _write_config(folder: Path, config: Any, weights: WeightFormat, dtype: Any) -> None:
    from transformers import AutoModelForCausalLM

    document = config.to_dict()
    document["architectures"] = [AutoModelForCausalLM._model_mapping[type(config)].__name__]
    document["torch_dtype"] = document["dtype"] = str(dtype).removeprefix("torch.")
    quantization = weights.config()
    if quantization is not None:
        document["quantization_config"] = quantization
    _write_json(folder / "config.json", document)


def _write_tokenizer(folder: Path, config: Any) -> None:
    """One word a token id, ``t0 t1 …``: serving engines want a tokenizer even for prompts of token ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"t{number}": number for number in range(config.vocab_size)}, "t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=None if end is None else f"t{end}",
        model_max_length=getattr(config, "max_position_embeddings", 1 << 20),
    ).save_pretrained(str(folder))


def _write_source(folder: Path, weights: WeightFormat, seed: int) -> None:
    _write_json(
        folder / WEIGHTS_FILE,
        {"weights_source": WEIGHTS_SOURCE, "quantization": weights.name, "seed": seed, "writer": "qmeter-native"},
    )


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
