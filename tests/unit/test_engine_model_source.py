"""What --model may name, and what is said when it names nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from qmeter_native.engines.model_loading import load_model, vocabulary_of
from qmeter_native.engines.model_shapes import near_names, shape_names, shape_of
from qmeter_native.engines.model_source import BUILTIN_MODEL, resolve_model
from qmeter_native.errors import EngineError, ModelNotFoundError

PUBLISHED_PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "codellama-34b": 33_743_970_304,
    "llama-3.1-8b": 8_030_261_248,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_a_shape_has_as_many_parameters_as_the_published_model(name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(resolve_model(f"shape:{name}").config)
    assert model.num_parameters() == PUBLISHED_PARAMETERS[name]


def test_every_shape_names_its_source() -> None:
    assert all(shape_of(name).source for name in shape_names())


def test_random_weights_are_drawn_from_the_seed_at_a_sane_scale() -> None:
    import torch

    source = resolve_model("shape:tiny")
    first, again, other = (load_model(source, torch.device("cpu"), torch.bfloat16, seed).model for seed in (1, 1, 2))
    weight = first.lm_head.weight
    assert weight.dtype is torch.bfloat16
    assert torch.equal(weight, again.lm_head.weight)
    assert not torch.equal(weight, other.lm_head.weight)
    assert 0.015 < float(weight.float().std()) < 0.025


def test_the_built_in_model_has_a_byte_for_a_token() -> None:
    vocabulary = vocabulary_of(resolve_model(BUILTIN_MODEL).config)
    assert vocabulary.is_bytes
    assert vocabulary.special_ids == {0}


def test_an_unknown_shape_suggests_near_names() -> None:
    with pytest.raises(ModelNotFoundError, match=r"shape:llama-3\.1-8b"):
        resolve_model("shape:llama-3-8b")


def test_a_published_name_that_is_not_here_suggests_its_shape() -> None:
    with pytest.raises(ModelNotFoundError, match="shape:qwen3-8b"):
        resolve_model("Qwen/Qwen3-8B")


@pytest.mark.parametrize("name", ["builtin:gpt", "no model", "./nowhere", "/nowhere", "some/where/else"])
def test_a_name_of_nothing_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        resolve_model(name)


def test_near_names_ignore_owner_and_case() -> None:
    assert near_names("meta-llama/Llama-3.1-8B")[0] == "llama-3.1-8b"


def test_a_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(ModelNotFoundError, match="is a file"):
        resolve_model(str(path))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('{"model_type": "llama",', "line 1"),
        ('{"model_type": "no_such_type"}', "no_such_type"),
        ('{"hidden_size": 3}', "model_type"),
        ('{"model_type": "llama", "hidden_size": 100, "num_attention_heads": 3}', "100"),
    ],
)
def test_a_broken_config_is_named_with_its_cause(tmp_path: Path, text: str, cause: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(EngineError, match=r"config\.json") as caught:
        resolve_model(str(tmp_path))
    assert cause in caught.value.what


def test_a_directory_without_config_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"has no config\.json"):
        resolve_model(str(tmp_path))


def test_truncated_weights_are_an_error_that_names_the_directory(tmp_path: Path) -> None:
    import torch

    config = shape_of("tiny").config
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(EngineError, match=tmp_path.name):
        load_model(resolve_model(str(tmp_path)), torch.device("cpu"), torch.float32, 0)
