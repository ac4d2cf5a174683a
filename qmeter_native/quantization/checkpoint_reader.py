"""Loads quantized checkpoints into transformers' models, by their configuration and tensor by tensor.

Transformers' own quantizers have no part: they would run other kernels than ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from qmeter_native.errors import EngineError, UsageError
from qmeter_native.quantization.checkpoint_files import CheckpointFiles
from qmeter_native.quantization.checkpoint_formats.families import checkpoint_format
from qmeter_native.quantization.checkpoint_formats.layer_format import CheckpointFormat, LayerFormat
from qmeter_native.quantization.empty_model import empty_model, materialize

__all__ = ["quantization_of", "read_checkpoint"]

_NOT_WEIGHTS: Final = ("rotary_emb.inv_freq", ".k_scale", ".v_scale", ".kv_scale", ".q_scale", ".prob_scale")
"""Ends of tensors that are left alone: what a model computes itself, and scales of quantized KV caches, which the
embedded engine has not."""


def quantization_of(folder: Path) -> dict[str, Any] | None:
    """``quantization_config`` of a checkpoint's ``config.json``, or what older and other writers have for it.

    Those are ``compression_config`` there, ``quantize_config.json`` (GPTQ, AWQ), and ModelOpt's
    ``hf_quant_config.json``, whose field ``quantization`` becomes the configuration with ``quant_method`` "modelopt".

    Returns:
        None if the checkpoint is not quantized.

    Raises:
        EngineError: A file cannot be read.
    """
    config = _read_json(folder / "config.json")
    found = config.get("quantization_config") or config.get("compression_config")
    if found:
        return dict(found)
    modelopt, older = folder / "hf_quant_config.json", folder / "quantize_config.json"
    if modelopt.is_file():
        return {"quant_method": "modelopt", **(_read_json(modelopt).get("quantization") or {})}
    if older.is_file():
        return {"quant_method": "gptq", **_read_json(older)}
    return None


def read_checkpoint(folder: Path, config: Any, *, device: Any, dtype: Any) -> Any:
    """The model of a quantized checkpoint, its linear layers `QuantLinear`.

    The model begins without memory; layers are read one after the other, so that never more than the quantized model
    and one layer are in memory.

    Args:
        folder: With ``config.json`` and safetensors.
        config: transformers' ``PretrainedConfig`` of it.
        device: ``torch.device`` of the model.
        dtype: ``torch.dtype`` of all that is not quantized, and of biases.

    Raises:
        EngineError: The configuration is not one that we read; or files, configuration and tensors disagree: the
            message names file and tensor, what was expected and what was found.
    """
    quantization = quantization_of(folder)
    if quantization is None:
        raise EngineError(f"{folder} is not quantized: its config.json has no quantization_config")
    try:
        layout = checkpoint_format(quantization)
    except UsageError as error:
        raise EngineError(f"{folder / 'config.json'}: {error.what}", error.hint) from error
    model = empty_model(config, dtype)
    with CheckpointFiles(folder) as files:
        for name, layer in _quantized_layers(model, layout).items():
            model.set_submodule(name, _read_layer(files, model, name, layer, device, dtype))
        _read_plain(files, model, device, dtype)
        _check_all_used(files, model)
    materialize(model, device)  # buffers, such as rotary frequencies
    return model


def _quantized_layers(model: Any, layout: CheckpointFormat) -> dict[str, LayerFormat]:
    """Formats of the linear layers that are quantized; one whose weight is the embedding's never is."""
    from torch.nn import Linear

    tied = model.get_output_embeddings() if model.config.tie_word_embeddings else None
    linears = {
        name: module for name, module in model.named_modules() if isinstance(module, Linear) and module is not tied
    }
    formats = {name: layout.layer(name) for name in linears}
    return {name: found for name, found in formats.items() if found is not None}


def _read_layer(files: CheckpointFiles, model: Any, name: str, layer: LayerFormat, device: Any, dtype: Any) -> Any:
    missing = sorted(each for each in layer.required if f"{name}.{each}" not in files)
    if missing:
        there = sorted(each.removeprefix(f"{name}.") for each in files.names if each.startswith(f"{name}."))
        raise EngineError(
            f"{_place(files, name)}: layer {name} has no {', '.join(missing)}; it has {', '.join(there) or 'nothing'}",
            "The checkpoint's quantization_config and its tensors do not belong together.",
        )
    names = [each for each in sorted(layer.required | layer.optional) if f"{name}.{each}" in files]
    linear = model.get_submodule(name)
    try:
        tensors = {each: files.read(f"{name}.{each}", device) for each in names}
        bias = _bias(files, name, linear, device, dtype)
        built = layer.linear(layer.unpack(tensors), bias, dtype, **layer.input_scales(tensors))
    except UsageError as error:
        raise EngineError(f"{_place(files, name)}: layer {name}: {error.what}", error.hint) from error
    _check_shape(files, name, (built.out_features, built.in_features), (linear.out_features, linear.in_features))
    return built


def _bias(files: CheckpointFiles, name: str, linear: Any, device: Any, dtype: Any) -> Any | None:
    """The layer's bias. AutoGPTQ wrote zeros for layers that have none."""
    if f"{name}.bias" in files:
        bias = files.read(f"{name}.bias", device).to(dtype)
        _check_shape(files, f"{name}.bias", tuple(bias.shape), (linear.out_features,))
        return bias if linear.bias is not None or bool(bias.any()) else None
    if linear.bias is not None:
        raise EngineError(f"{_place(files, name)}: layer {name} has no bias, and the model has one")
    return None


def _read_plain(files: CheckpointFiles, model: Any, device: Any, dtype: Any) -> None:
    """All parameters that are still without memory."""
    from torch.nn import Parameter

    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    for name, parameter in list(model.named_parameters()):
        if not parameter.is_meta:
            continue
        if name not in files:
            if name in tied:
                continue
            raise EngineError(f"{_place(files, name)}: tensor {name} is missing", _hint_of(files, name))
        _check_shape(files, name, files.shape(name), tuple(parameter.shape))
        value = files.read(name, device)
        _check_is_float(files, name, value)
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, Parameter(value.to(dtype), requires_grad=False))


def _check_is_float(files: CheckpointFiles, name: str, value: Any) -> None:
    """A plain weight in 8 bits is a quantized one that the configuration does not tell of."""
    if not value.is_floating_point() or value.element_size() == 1:
        kind = str(value.dtype).removeprefix("torch.")
        raise EngineError(
            f"{files.file_of(name)}: tensor {name} is {kind}, and the configuration says that it is not quantized",
            "The checkpoint's quantization_config and its tensors do not belong together.",
        )


def _check_shape(files: CheckpointFiles, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise EngineError(
            f"{_place(files, name)}: {name} is {_sizes(found)}, and the model's configuration says {_sizes(expected)}",
            "config.json and weights do not belong together.",
        )


def _check_all_used(files: CheckpointFiles, model: Any) -> None:
    tied = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    unused = sorted(name for name in files.unread - tied if not name.endswith(_NOT_WEIGHTS))
    if unused:
        raise EngineError(
            f"{files.file_of(unused[0])}: {len(unused)} tensors belong to nothing in the model, such as {unused[0]}",
            _hint_of(files, unused[0].rpartition(".")[0]),
        )


def _hint_of(files: CheckpointFiles, name: str) -> str:
    """What may be wrong around a tensor that is missing or left over."""
    layer = name.removesuffix(".weight")
    there = sorted(each.removeprefix(f"{layer}.") for each in files.names if each.startswith(f"{layer}."))
    has = f"The checkpoint has {', '.join(there)} of {layer}. " if there else ""
    return f"{has}Mixtures of experts are not read; else config.json and weights do not belong together."


def _place(files: CheckpointFiles, name: str) -> Path:
    """The file of a layer's tensors, or where it has none, the one that names all."""
    return next(
        (files.file_of(each) for each in sorted(files.names) if each == name or each.startswith(f"{name}.")),
        files.root,
    )


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a scalar"


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise EngineError(f"{path} holds no JSON object")
    return document
