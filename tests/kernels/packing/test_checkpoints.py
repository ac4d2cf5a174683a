"""Checkpoints of every format are written, and our packers read what the formats' libraries wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from safetensors.torch import load_file

from qmeter_native.kernels.packing import bitsandbytes, compressed_tensors, hqq, llm_int8
from qmeter_native.kernels.packing.compressed_tensors_config import CompressedTensorsConfig
from tests.kernels.packing.checkpoints import FORMATS, OWN_FORMATS, dense_model, write_checkpoint


def reader(format_name: str, config: Mapping[str, Any], layer: str) -> Callable[[Mapping[str, Any]], Any]:
    """What reads a layer's tensors."""
    if format_name in OWN_FORMATS:
        return OWN_FORMATS[format_name].read
    if format_name.startswith("bitsandbytes"):
        return bitsandbytes.unpack
    if format_name == "llm-int8":
        return llm_int8.unpack
    if format_name == "hqq":
        return partial(hqq.unpack, config=hqq.HqqConfig.from_dict(config))
    return partial(compressed_tensors.unpack, scheme=CompressedTensorsConfig.from_dict(config).of_layer(layer))


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_linear_layer_reads_as_its_reference(format_name: str, tmp_path: Path) -> None:
    reference = write_checkpoint(format_name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    stored = load_file(tmp_path / "model.safetensors")
    for layer in (name.removesuffix(".weight") for name in reference if name.endswith("_proj.weight")):
        tensors = {
            name.removeprefix(f"{layer}."): value for name, value in stored.items() if name.startswith(f"{layer}.")
        }
        weight = reader(format_name, config, layer)(tensors).dequantize()
        expected = reference[f"{layer}.weight"]
        assert weight.shape == expected.shape
        torch.testing.assert_close(weight, expected, rtol=2e-6, atol=0)  # a few roundings of float32


def test_the_reference_is_a_whole_state_dict_near_the_dense_model(tmp_path: Path) -> None:
    reference, dense = write_checkpoint("gptq", tmp_path), dense_model()
    for name, tensor in dense.state_dict().items():
        assert (reference[name] - tensor).abs().max() <= 0.1 * tensor.abs().max()
    dense.load_state_dict(reference)
