"""Tiny checkpoints written by the formats' own libraries: bitsandbytes, compressed-tensors, HQQ."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from safetensors.torch import save_file


def linear_names(model: Any) -> list[str]:
    """The linear layers that are quantized: all but the LM head."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head")
    ]


def save(folder: Path, model: Any, stored: Mapping[str, Any]) -> None:
    """Write ``config.json`` without a quantization, and the tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in stored.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _reference(model: Any) -> dict[str, Any]:
    return {name: tensor.float() for name, tensor in model.state_dict().items()}


def _bitsandbytes(model: Any, folder: Path, **fields: Any) -> dict[str, Any]:
    """transformers quantizes while it loads, and saves."""
    functional = pytest.importorskip("bitsandbytes.functional")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    reference = _reference(model)
    config = BitsAndBytesConfig(bnb_4bit_compute_dtype=torch.float16, **fields)
    with TemporaryDirectory() as dense:
        model.half().save_pretrained(dense)
        quantized = AutoModelForCausalLM.from_pretrained(
            dense, quantization_config=config, device_map={"": "cpu"}, dtype=torch.float16
        )
    quantized.save_pretrained(folder)
    for name in linear_names(quantized):
        weight = quantized.get_submodule(name).weight
        if "load_in_8bit" in fields:
            values = functional.int8_vectorwise_dequant(weight.data, weight.SCB)
        else:
            weight.quant_state.dtype = torch.float32
            values = functional.dequantize_4bit(weight.data, weight.quant_state)
        reference[f"{name}.weight"] = values.float()
    return reference


def _compressed_tensors(model: Any, folder: Path, preset: str) -> dict[str, Any]:
    """Scales of smallest and largest weights, as llm-compressor has them without calibration; then its compressor."""
    quantization = pytest.importorskip("compressed_tensors.quantization")
    compressors = pytest.importorskip("compressed_tensors.compressors")

    scheme = quantization.preset_name_to_scheme(preset, ["Linear"])
    config = quantization.QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"])
    quantization.apply_quantization_config(model, config)
    reference = {
        name: tensor for name, tensor in _reference(model).items() if "_scale" not in name and "_zero" not in name
    }
    for name in linear_names(model):
        module = model.get_submodule(name)
        _observe(module)
        reference[f"{name}.weight"] = quantization.fake_quantize(
            module.weight.data.clone(),
            module.weight_scale.data,
            getattr(module, "weight_zero_point", None),
            module.quantization_scheme.weights,
            global_scale=getattr(module, "weight_global_scale", None),
        )
    compressor = compressors.ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    stored = {
        name: tensor.half() if tensor.dtype == torch.float32 and not name.endswith("global_scale") else tensor
        for name, tensor in model.state_dict().items()
    }
    save(folder, model, stored)
    compressor.update_config(str(folder))
    return reference


def _observe(module: Any) -> None:
    """Set a layer's scales and zero points from its weight; scales are numbers that float16 holds."""
    from compressed_tensors.quantization.utils.helpers import calculate_qparams, generate_gparam

    arguments, weight = module.quantization_scheme.weights, module.weight.data
    n, k = weight.shape
    strategy = str(arguments.strategy)
    rows, columns = {
        "tensor": (n, k),
        "channel": (1, k),
        "block": tuple(arguments.block_structure or ()),
    }.get(strategy, (1, arguments.group_size))
    padded = torch.nn.functional.pad(weight, (0, -k % columns, 0, -n % rows))
    blocks = padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
    low, high = blocks.amin((1, 3)), blocks.amax((1, 3))
    global_scale = None
    if strategy == "tensor_group":
        global_scale = module.weight_global_scale.data = generate_gparam(low.min(), high.max())
    scale, zero = calculate_qparams(low, high, arguments, global_scale)
    module.weight_scale.data = scale.reshape(module.weight_scale.shape).half().float()
    if hasattr(module, "weight_zero_point"):
        module.weight_zero_point.data = zero.reshape(module.weight_zero_point.shape)
    for name in ("input_scale", "input_global_scale"):
        if hasattr(module, name):
            getattr(module, name).data.fill_(0.0625)


def _hqq(model: Any, folder: Path) -> dict[str, Any]:
    """Layers by hqq's own `HQQLinear`; transformers refuses to write them on a CPU."""
    hqq = pytest.importorskip("hqq.core.quantize")

    reference, stored = _reference(model), {name: tensor.half() for name, tensor in model.state_dict().items()}
    parameters = hqq.BaseQuantizeConfig(nbits=4, group_size=64, axis=1)
    for name in linear_names(model):
        linear = hqq.HQQLinear(
            model.get_submodule(name).half(), parameters, compute_dtype=torch.float16, device="cpu", del_orig=False
        )
        codes, scale, zero = (
            hqq.Quantizer.unpack[linear.meta["packing"]](linear.W_q),
            linear.meta["scale"],
            linear.meta["zero"],
        )
        values = (codes.float() - zero.float()) * scale.float()
        reference[f"{name}.weight"] = values.reshape(linear.meta["shape"])
        del stored[f"{name}.weight"]
        stored |= {f"{name}.{suffix}": torch.as_tensor(value) for suffix, value in linear.state_dict().items()}
    save(folder, model, stored)
    path = folder / "config.json"
    config = {
        "quant_method": "hqq",
        "quant_config": {"weight_quant_params": parameters["weight_quant_params"], "offload_meta": False},
        "skip_modules": ["lm_head"],
    }
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": config}))
    return reference


FORMATS: Mapping[str, Callable[[Any, Path], dict[str, Any]]] = {
    "bitsandbytes-nf4": partial(_bitsandbytes, load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "bitsandbytes-nf4-double": partial(
        _bitsandbytes, load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    ),
    "bitsandbytes-nf4-bfloat16-storage": partial(
        _bitsandbytes, load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_quant_storage=torch.bfloat16
    ),
    "bitsandbytes-fp4": partial(_bitsandbytes, load_in_4bit=True, bnb_4bit_quant_type="fp4"),
    "llm-int8": partial(_bitsandbytes, load_in_8bit=True),
    **{
        f"compressed-tensors-{preset.lower().replace('_', '-')}": partial(_compressed_tensors, preset=preset)
        for preset in (
            *("W4A16", "W4A16_ASYM", "W3A16", "W8A16", "W8A8", "W4AFP8"),
            *("FP8", "FP8_DYNAMIC", "FP8_BLOCK", "NVFP4A16", "NVFP4", "MXFP4A16"),
        )
    },
    "hqq": _hqq,
}
"""Writers by name: a dense model in float32 and a folder to the reference's state dict."""
