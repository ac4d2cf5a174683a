"""Tiny quantized checkpoints to load: a Llama of two layers in every format, with what its weights stand for.

Where a format's own library runs on a CPU it writes the checkpoint (`library_checkpoints`); the others are written by
our packers, whose bytes are tested against golden words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from qmeter_native.kernels.packing import awq, fp8, gptq, nvfp4, qoq
from qmeter_native.kernels.packing.awq import AwqConfig
from qmeter_native.kernels.packing.fp8 import Fp8Config
from qmeter_native.kernels.packing.gptq import GptqConfig
from qmeter_native.kernels.packing.modelopt import ModelOptConfig
from qmeter_native.kernels.packing.qoq import QoqConfig
from qmeter_native.kernels.quantized_weight import IntegerWeight, QuantizedWeight
from tests.kernels.packing import library_checkpoints

Tensors = Mapping[str, Any]


@dataclass(frozen=True)
class OwnFormat:
    """A format that our packers write: a matrix to a layer's tensors, and those to the weight that they mean."""

    config: Mapping[str, Any]
    write: Callable[[Any], dict[str, Any]]
    read: Callable[[Tensors], QuantizedWeight]


def _gptq(config: GptqConfig) -> OwnFormat:
    return OwnFormat(
        config.to_dict(),
        lambda weight: gptq.pack(gptq.quantize(weight, config), config),
        partial(gptq.unpack, config=config),
    )


def _gptq_act_order(config: GptqConfig) -> OwnFormat:
    """Inputs take part in groups in a random order, as if their importance had decided it."""
    plain = replace(config, desc_act=False)

    def write(weight: Any) -> dict[str, Any]:
        order = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(1))
        sorted_weight = gptq.quantize(weight[:, order], plain)
        place = torch.argsort(order)
        ordered = IntegerWeight(
            sorted_weight.codes[:, place],
            sorted_weight.scales,
            sorted_weight.zeros,
            sorted_weight.bits,
            sorted_weight.group_size,
            (place // sorted_weight.group_size).to(torch.int32),
        )
        return gptq.pack(ordered, config)

    return OwnFormat(config.to_dict(), write, partial(gptq.unpack, config=config))


def _awq(config: AwqConfig) -> OwnFormat:
    return OwnFormat(
        config.to_dict(),
        lambda weight: awq.pack(awq.quantize(weight, config), config),
        partial(awq.unpack, config=config),
    )


def _fp8(config: Mapping[str, Any], granularity: str, layout: str = "fp8", **further: Any) -> OwnFormat:
    """``further``: tensors that every layer has beside its weight; ``power_of_two`` of the scales."""
    power_of_two = further.pop("power_of_two", False)

    def write(weight: Any) -> dict[str, Any]:
        return fp8.pack(fp8.quantize(weight, granularity, power_of_two=power_of_two), layout, granularity) | further

    return OwnFormat(config, write, partial(fp8.unpack, block=(128, 128) if granularity == "block" else None))


def _qoq(config: QoqConfig) -> OwnFormat:
    return OwnFormat(
        config.to_dict(), lambda weight: qoq.pack(qoq.quantize(weight, config)), partial(qoq.unpack, config=config)
    )


def _modelopt(algorithm: str) -> dict[str, Any]:
    fields: Mapping[str, Any] = ModelOptConfig(algorithm, exclude_modules=("lm_head",)).to_dict()["quantization"]
    return {"quant_method": "modelopt", **fields}


OWN_FORMATS: Mapping[str, OwnFormat] = {
    "gptq": _gptq(GptqConfig(4)),
    "gptq-3bit": _gptq(GptqConfig(3)),
    "gptq-8bit": _gptq(GptqConfig(8)),
    "gptq-asymmetric": _gptq(GptqConfig(4, 32, sym=False, checkpoint_format="gptq_v2")),
    "gptq-act-order": _gptq_act_order(GptqConfig(4, 32, desc_act=True)),
    "awq": _awq(AwqConfig()),
    "fp8": _fp8(Fp8Config().to_dict(), "tensor"),
    "fp8-static": _fp8(Fp8Config(activation_scheme="static").to_dict(), "tensor", input_scale=torch.tensor(0.05)),
    "fp8-block": _fp8(Fp8Config(weight_block_size=(128, 128)).to_dict(), "block"),
    "fp8-block-ue8m0": _fp8(
        Fp8Config(weight_block_size=(128, 128), scale_fmt="ue8m0").to_dict(), "block", power_of_two=True
    ),
    "fbgemm_fp8": _fp8(Fp8Config("fbgemm_fp8", activation_scale_ub=1200.0).to_dict(), "channel", "fbgemm_fp8"),
    "modelopt-fp8": _fp8(_modelopt("FP8"), "tensor", "modelopt", input_scale=torch.tensor(0.05)),
    "modelopt-nvfp4": OwnFormat(
        _modelopt("NVFP4"),
        lambda weight: nvfp4.pack(nvfp4.quantize(weight), "modelopt") | {"input_scale": torch.tensor(0.05)},
        nvfp4.unpack,
    ),
    "qoq": _qoq(QoqConfig(-1)),
    "qoq-group": _qoq(QoqConfig(128)),
}

FORMATS = (*OWN_FORMATS, *library_checkpoints.FORMATS)
"""What `write_checkpoint` writes."""


def write_checkpoint(format_name: str, folder: Path) -> dict[str, Any]:
    """Write a checkpoint of ``FORMATS`` to ``folder``: ``config.json`` and ``model.safetensors``.

    The decoder's linear layers are quantized, the LM head is not; everything else is float16. A test is skipped where
    the format's library is not installed.

    Returns:
        float32 state dict of the same model without quantization: linear weights are what the stored ones stand for.
    """
    if format_name in library_checkpoints.FORMATS:
        return library_checkpoints.FORMATS[format_name](dense_model(), folder)
    own = OWN_FORMATS[format_name]
    model = dense_model()
    reference = {name: tensor.float() for name, tensor in model.state_dict().items()}
    stored = {name: tensor.half() for name, tensor in model.state_dict().items()}
    for name in library_checkpoints.linear_names(model):
        tensors = own.write(stored.pop(f"{name}.weight").float())
        reference[f"{name}.weight"] = own.read(tensors).dequantize()
        stored |= {f"{name}.{suffix}": tensor.clone() for suffix, tensor in tensors.items()}
    library_checkpoints.save(folder, model, stored)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": dict(own.config)}))
    return reference


def dense_model() -> Any:
    """A Llama of two layers with biases, 128 wide, 4 heads over 2 of keys; float32, of numbers that float16 holds."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=128,
        max_position_embeddings=256,
        attention_bias=True,
        tie_word_embeddings=False,
        dtype=torch.float16,
    )
    generator = torch.Generator().manual_seed(0)
    model = LlamaForCausalLM(config).float()
    for name, parameter in model.named_parameters():
        mean = 1.0 if "norm" in name else 0.0
        values = torch.randn(parameter.shape, generator=generator) * 0.05 + mean
        parameter.data = values.half().float()
    return model
