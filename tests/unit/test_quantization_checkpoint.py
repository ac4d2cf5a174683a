from __future__ import annotations

import json
from pathlib import Path

import pytest

from qmeter_native.engines.model_source import resolve_model
from qmeter_native.errors import CaptureError, ModelNotFoundError, UsageError
from qmeter_native.quantization.checkpoint_cache import cache_folder, shape_checkpoint
from qmeter_native.quantization.checkpoint_process import write_in_a_process
from qmeter_native.quantization.checkpoint_writer import write_checkpoint
from qmeter_native.quantization.weight_format import Fp8, Gptq, format_names, weight_format

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")


def _all_tensors(folder: Path) -> dict[str, object]:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    tensors: dict[str, object] = {}
    for file in sorted(set(index["weight_map"].values())):
        tensors.update(safetensors_torch.load_file(folder / file))
    assert set(tensors) == set(index["weight_map"])
    return tensors


def test_gptq_packs_eight_inputs_of_one_output_a_word_lowest_bits_first():
    # Codes 0 … 7 of eight consecutive inputs are the golden word 0x76543210.
    weight = (torch.arange(128) % 8 - 8).float().reshape(1, 128).repeat(8, 1)
    weight[:, -1] = -7.5  # the largest magnitude: a scale of exactly 1
    weight = weight.clamp_min(-7.5)
    stored = Gptq().store("layer", weight)
    assert stored["layer.scales"][0, 0] == 1
    assert stored["layer.qweight"][1, 0].item() & 0xFFFFFFFF == 0x76543210
    assert stored["layer.qzeros"].unique().tolist() == [0x77777777]
    assert stored["layer.g_idx"].unique().tolist() == [0]


def test_a_gptq_weight_comes_back_within_half_a_step():
    weight = torch.randn(64, 256) * 0.02
    stored = Gptq().store("layer", weight)
    words = stored["layer.qweight"]  # [K / 8, N]
    codes = torch.stack([(words >> (4 * position)) & 15 for position in range(8)], 1).reshape(256, 64)
    scales = stored["layer.scales"].float().repeat_interleave(128, 0)
    back = ((codes - 8) * scales).t()
    # half a step, and the largest positive code 7 is half a step short of the largest magnitude
    assert ((back - weight).abs() <= scales.t() * 0.51).all()
    assert codes.unique().numel() == 16


def test_an_fp8_weight_comes_back_within_the_precision_of_e4m3():
    weight = torch.randn(64, 32) * 0.02
    stored = Fp8().store("layer", weight)
    back = stored["layer.weight"].float() * stored["layer.weight_scale"]
    assert stored["layer.weight_scale"].shape == ()
    assert ((back - weight).abs() <= weight.abs() / 16 + stored["layer.weight_scale"] * 2**-9).all()


@pytest.mark.parametrize("name", format_names())
def test_what_is_stored_has_the_shapes_and_dtypes_that_were_announced(name: str):
    weights = weight_format(name, torch.bfloat16)
    stored = weights.store("a.b", torch.randn(16, 256))
    announced = weights.tensors("a.b", 16, 256)
    assert {key: (tuple(each.shape), each.dtype) for key, each in stored.items()} == announced


@pytest.mark.parametrize("name", format_names())
def test_a_checkpoint_of_a_shape_is_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QMETER_CACHE", str(tmp_path))
    seen: list[tuple[int, int]] = []
    folder = shape_checkpoint("shape:tiny", name, progress=lambda done, total: seen.append((done, total)))
    assert folder.is_relative_to(cache_folder())
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config.get("quantization_config", {}).get("quant_method", "none") == name
    assert json.loads((folder / "qmeter.json").read_text())["weights_source"] == "random_codes"
    tensors = _all_tensors(folder)
    assert tensors["lm_head.weight"].dtype == torch.bfloat16
    assert seen[-1][0] == seen[-1][1] == sum(each.numel() * each.element_size() for each in tensors.values())
    assert (folder / "tokenizer.json").is_file()
    assert not list(tmp_path.rglob("*.unfinished"))


def test_an_unquantized_checkpoint_loads_in_transformers(tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = resolve_model("shape:tiny").config
    write_checkpoint(tmp_path / "m", config, weight_format("none", torch.float16), dtype=torch.float16)
    model, report = AutoModelForCausalLM.from_pretrained(str(tmp_path / "m"), output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert abs(model.model.layers[0].mlp.up_proj.weight.float().std().item() - 0.02) < 0.001
    assert AutoTokenizer.from_pretrained(str(tmp_path / "m")).decode([3, 5]) == "t3 t5"


def test_the_same_seed_gives_the_same_weights(tmp_path: Path):
    config = resolve_model("shape:tiny").config
    for name in ("a", "b"):
        write_checkpoint(tmp_path / name, config, Gptq(), dtype=torch.float16, seed=3)
    one, other = _all_tensors(tmp_path / "a"), _all_tensors(tmp_path / "b")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_of_another_process_is_the_same_and_its_errors_are_raised_here(tmp_path: Path):
    config = resolve_model("shape:tiny").config
    options = {"dtype": torch.float16, "device": "cpu", "seed": 3}
    seen: list[tuple[int, int]] = []
    write_in_a_process(tmp_path / "a", config, Gptq(), progress=lambda *each: seen.append(each), **options)
    write_checkpoint(tmp_path / "b", config, Gptq(), **options)
    one, other = _all_tensors(tmp_path / "a"), _all_tensors(tmp_path / "b")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert seen[-1][0] == seen[-1][1]
    with pytest.raises(CaptureError, match="exists already") as caught:
        write_in_a_process(tmp_path / "a", config, Gptq(), progress=lambda *_: None, **options)
    assert caught.value.hint == "Choose another folder, or remove it first."


def test_a_second_call_takes_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QMETER_CACHE", str(tmp_path))
    first = shape_checkpoint("shape:tiny")
    before = (first / "config.json").stat().st_mtime_ns
    assert shape_checkpoint("shape:tiny") == first
    assert (first / "config.json").stat().st_mtime_ns == before


def test_bad_requests_are_refused_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QMETER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match="awq"):
        shape_checkpoint("shape:tiny", "awq")
    with pytest.raises(UsageError, match="float64"):
        shape_checkpoint("shape:tiny", dtype="float64")
    with pytest.raises(ModelNotFoundError):
        shape_checkpoint("shape:no-such-model")
    config = resolve_model("shape:tiny").config
    config.hidden_size, config.head_dim = 96, 24
    with pytest.raises(UsageError, match=r"self_attn.q_proj.*groups of 128"):
        write_checkpoint(tmp_path / "m", config, Gptq(), dtype=torch.float16)
    (tmp_path / "there").mkdir()
    with pytest.raises(CaptureError, match="exists already"):
        write_checkpoint(tmp_path / "there", config, Gptq(), dtype=torch.float16)
    assert [each.name for each in tmp_path.iterdir()] == ["there"]


def test_a_disk_without_room_is_named_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 0))
    config = resolve_model("shape:tiny").config
    with pytest.raises(Exception, match="GB free"):
        write_checkpoint(tmp_path / "m", config, Gptq(), dtype=torch.float16)
    assert not list(tmp_path.iterdir())
