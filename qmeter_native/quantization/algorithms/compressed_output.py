"""From what llm-compressor wrote to a checkpoint in the layout of a method."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from qmeter_native.errors import EngineError
from qmeter_native.kernels.packing.awq import AwqConfig
from qmeter_native.kernels.packing.compressed_tensors import unpack
from qmeter_native.kernels.packing.compressed_tensors_config import CompressedTensorsConfig, LayerScheme
from qmeter_native.kernels.packing.conversion import IntegerFormat, convert
from qmeter_native.kernels.packing.gptq import GptqConfig, pack
from qmeter_native.kernels.quantized_weight import IntegerWeight
from qmeter_native.quantization.algorithms.activation_order import in_first_order
from qmeter_native.quantization.algorithms.algorithm import QuantizationJob
from qmeter_native.quantization.checkpoint_documents import write_config
from qmeter_native.quantization.checkpoint_files import CheckpointFiles
from qmeter_native.quantization.checkpoint_reader import quantization_of
from qmeter_native.quantization.model_parameters import Parameter, format_of
from qmeter_native.quantization.shard_writer import ShardWriter

__all__ = ["rewrite"]


def rewrite(job: QuantizationJob, compressed: Path, folder: Path, orders: Mapping[str, Any]) -> None:
    """Write llm-compressor's checkpoint as the job's method has it, layer by layer, and remove the former.

    Args:
        job: What was quantized.
        compressed: llm-compressor's checkpoint.
        folder: Where to write.
        orders: Of each layer's inputs, by its name, where they are in act-order.

    Raises:
        EngineError: A layer is missing.
    """
    document = json.loads((job.checkpoint / "config.json").read_text(encoding="utf-8"))
    dtype = getattr(torch, str(document.get("dtype") or document.get("torch_dtype") or "bfloat16"))
    found = CompressedTensorsConfig.from_dict(quantization_of(compressed) or {})
    target = _integer_format(job)
    shards = ShardWriter(folder)
    with CheckpointFiles(compressed) as files:
        for parameter in job.parameters:
            if parameter.layer is None:
                continue
            tensors = _layer(files, parameter)
            if target is None:
                stored = {name: _as(dtype, tensor) for name, tensor in tensors.items()}
            else:
                scheme = found.of_layer(parameter.prefix)
                assert scheme is not None, parameter.prefix
                stored = _converted(tensors, scheme, target, orders.get(parameter.prefix))
            shards.add({f"{parameter.prefix}.{name}": tensor for name, tensor in stored.items()})
        for name in sorted(files.unread):
            shards.add({name: _as(dtype, files.read(name, "cpu"))})
    shards.finish()
    layout = format_of(job.method)
    write_config(folder, document, None if layout is None else layout.stored_config)
    shutil.rmtree(compressed)


def _integer_format(job: QuantizationJob) -> IntegerFormat | None:
    """The layout to convert to; None: compressed-tensors stays as it is."""
    readers: dict[str, Callable[[Any], IntegerFormat]] = {"gptq": GptqConfig.from_dict, "awq": AwqConfig.from_dict}
    reader = readers.get(job.method.config["quant_method"])
    return None if reader is None else reader(job.method.config)


def _converted(
    tensors: dict[str, Any], scheme: LayerScheme, target: IntegerFormat, order: Any | None
) -> dict[str, Any]:
    """A layer's tensors in another layout; scales are float16, which is what GPTQ and AWQ store."""
    tensors = {**tensors, "weight_scale": tensors["weight_scale"].half()}
    if order is None:
        return convert(tensors, scheme, target)
    assert isinstance(target, GptqConfig)
    weight = unpack(tensors, scheme)
    assert isinstance(weight, IntegerWeight)
    return pack(in_first_order(weight, order), target)


def _layer(files: CheckpointFiles, parameter: Parameter) -> dict[str, Any]:
    """A layer's tensors by their names within it, its bias left for later."""
    start = f"{parameter.prefix}."
    names = [name for name in files.names if name.startswith(start) and name != f"{start}bias"]
    if not names:
        raise EngineError(f"llm-compressor wrote no layer {parameter.prefix}", "Report this: the model is not known.")
    return {name.removeprefix(start): files.read(name, "cpu") for name in sorted(names)}


def _as(dtype: Any, tensor: Any) -> Any:
    """Plain numbers in the model's own type; codes as they are."""
    return tensor.to(dtype) if tensor.dtype in (torch.float32, torch.float16, torch.bfloat16) else tensor
