"""What a capture says about a vLLM engine, and how many tokens its device computes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qmeter_native.engines.vllm.engine_info import describe_model, engine_info, weights_source
from qmeter_native.engines.vllm.padding import graph_size, padded_tokens
from tests import vllm_stubs as vllm


def test_the_configuration_is_told_under_the_keys_that_reports_read() -> None:
    info = engine_info(vllm.vllm_config(), "0.26.0")
    assert (info.name, info.version, info.model, info.weights_source) == ("vllm", "0.26.0", "a/model", "checkpoint")
    assert info.effective == {
        "quantization": "gptq_marlin",
        "dtype": "bfloat16",
        "kv_cache_dtype": "auto",
        "block_size": 16,
        "tensor_parallel": 1,
        "data_parallel": 1,
        "max_num_batched_tokens": 8192,
        "async_scheduling": True,
        "cudagraph_mode": "FULL_AND_PIECEWISE",
        "cudagraph_capture_sizes": [1, 2, 4, 8],
        "load_format": "auto",
        "model_runner": "V2",
        "hf_config": {"hidden_size": 64, "quantization_config": {"quant_method": "gptq"}},
        "quantization_config": {"quant_method": "gptq"},
    }
    json.dumps(info.effective)


def test_an_unquantized_model_is_said_to_be_one() -> None:
    config = vllm.vllm_config()
    config.model_config.quantization = None
    assert engine_info(config, "0.26.0").effective["quantization"] == "none"


def test_what_another_version_does_not_have_is_left_out() -> None:
    assert engine_info(SimpleNamespace(), "0.40.0").effective == {}
    effective: dict[str, Any] = {}
    describe_model(effective, SimpleNamespace())
    assert effective == {}


def test_linear_layers_are_counted_by_the_kernel_that_they_chose() -> None:
    class UnquantizedLinearMethod:
        pass

    class UnquantizedEmbeddingMethod:
        pass

    class CutlassFP8:
        pass

    class CompressedTensorsLinearMethod:
        pass

    layers = [
        SimpleNamespace(quant_method=vllm.GPTQMarlinLinearMethod()),
        SimpleNamespace(quant_method=UnquantizedLinearMethod()),
        SimpleNamespace(quant_method=UnquantizedEmbeddingMethod()),
        SimpleNamespace(quant_method=CompressedTensorsLinearMethod(), scheme=SimpleNamespace(fp8_linear=CutlassFP8())),
        SimpleNamespace(),
    ]
    runner = SimpleNamespace(attn_groups=[[]], get_model=lambda: SimpleNamespace(modules=lambda: layers))
    effective: dict[str, Any] = {}
    describe_model(effective, runner)
    assert effective == {"linear_kernels": {"MacheteLinearKernel": 1, "UnquantizedLinearMethod": 1, "CutlassFP8": 1}}


@pytest.mark.parametrize(
    ("files", "load_format", "expected"),
    [
        ({}, "auto", "checkpoint"),
        ({}, "dummy", "dummy"),
        ({"qmeter.json": {"weights_source": "random_codes"}, "config.json": {}}, "auto", "random_codes"),
        ({"qmeter.json": {"weights_source": "random_codes"}}, "dummy", "dummy"),
        ({"config.json": {"weights_source": "random_codes"}}, "safetensors", "random_codes"),
        ({"config.json": []}, "auto", "checkpoint"),
    ],
)
def test_the_source_of_weights_is_told(tmp_path: Path, files: dict[str, Any], load_format: str, expected: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert weights_source(str(tmp_path), load_format) == expected


@pytest.mark.parametrize(
    ("mode", "per_request", "expected"),
    [
        ("NONE", [5], 5),
        ("FULL_AND_PIECEWISE", [5], 8),
        ("PIECEWISE", [1, 2], 4),
        ("FULL", [9], 9),
        ("FULL_DECODE_ONLY", [1, 1, 1], 4),
        ("FULL_DECODE_ONLY", [2, 1], 3),
        ("SOMETHING_NEW", [5], None),
    ],
)
def test_a_batch_is_padded_to_the_next_size_of_a_graph(mode: str, per_request: list[int], expected: int | None) -> None:
    assert graph_size(sum(per_request), per_request, mode, [1, 2, 4, 8]) == expected


def test_the_model_runners_own_number_of_tokens_is_taken() -> None:
    v2 = SimpleNamespace(input_batch=SimpleNamespace(num_tokens_after_padding=16))
    v1 = SimpleNamespace(hidden_states=SimpleNamespace(shape=(24, 64)))
    for state, expected in ((v2, 16), (v1, 24), (None, 4)):
        runner = SimpleNamespace(execute_model_state=state)
        assert padded_tokens(runner, vllm.vllm_config(), vllm.cached(a=(1, 1), b=(1, 2))) == expected


def test_a_rank_of_a_data_parallel_group_cannot_derive_it() -> None:
    config = vllm.vllm_config(parallel_config=SimpleNamespace(data_parallel_size=2))
    assert padded_tokens(SimpleNamespace(), config, vllm.cached(a=(1, 1))) is None
