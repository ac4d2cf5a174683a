"""Sizes of a model, from its config.json."""

from __future__ import annotations

from typing import Any

import pytest

from qmeter_native.engines.model_shapes import shape_names, shape_of
from qmeter_native.work.model_config import read_model_config

LLAMA = shape_of("llama-3.1-8b").config


def test_llama_3_1_8b_has_its_sizes() -> None:
    config, reason = read_model_config(LLAMA)
    assert reason is None
    assert config is not None
    assert (config.num_layers, config.hidden_size, config.intermediate_size) == (32, 4096, 14336)
    assert (config.num_heads, config.num_kv_heads, config.head_dim, config.vocab_size) == (32, 8, 128, 128256)
    assert not config.is_tied
    assert not config.is_mixture
    assert config.window is None


@pytest.mark.parametrize("name", shape_names())
def test_every_shape_of_ours_is_known(name: str) -> None:
    config, reason = read_model_config(shape_of(name).config)
    assert config is not None, reason


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"num_key_value_heads": None}, "num_kv_heads", 32),
        ({"head_dim": 64}, "head_dim", 64),
        ({"model_type": "gemma"}, "head_dim", 256),
        ({"model_type": "gemma"}, "is_tied", False),
        ({"model_type": "mistral", "sliding_window": 4096}, "window", 4096),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, "window", None),
        ({"model_type": "qwen3_moe", "num_experts": 128, "num_experts_per_tok": 8}, "experts_per_token", 8),
        ({"model_type": "mixtral", "num_local_experts": 8}, "num_experts", 8),
        ({"model_type": "qwen3_moe", "num_experts": 8, "moe_intermediate_size": 768}, "intermediate_size", 768),
        ({"num_experts": 8}, "num_experts", 0),
    ],
)
def test_a_field_is_read_or_defaults(changes: dict[str, Any], field: str, value: object) -> None:
    config, reason = read_model_config({**LLAMA, **changes})
    assert config is not None, reason
    assert getattr(config, field) == value


def test_a_multi_modal_model_counts_by_its_text() -> None:
    config, _ = read_model_config({"model_type": "gemma3", "text_config": {**LLAMA, "model_type": "gemma3_text"}})
    assert config is not None
    assert config.model_type == "gemma3_text"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "the engine did not say which model it runs"),
        ({}, "the engine did not say which model it runs"),
        ({"model_type": "mamba"}, "the work model does not know the architecture 'mamba'"),
        ({"hidden_size": 1}, "the model's config.json does not name its architecture"),
        (
            {"model_type": "llama", "hidden_size": 4096, "vocab_size": 10, "intermediate_size": 3},
            "the model's config.json lacks num_hidden_layers, num_attention_heads",
        ),
    ],
)
def test_what_is_not_known_has_a_reason(config: dict[str, Any] | None, reason: str) -> None:
    assert read_model_config(config) == (None, reason)
