from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qmeter_native.engines.model_source import resolve_model
from qmeter_native.errors import ModelNotFoundError, UsageError
from qmeter_native.quantization.checkpoint_cache import cache_folder, shape_checkpoint
from qmeter_native.quantization.checkpoint_process import write_in_a_process
from qmeter_native.quantization.checkpoint_writer import write_checkpoint
from qmeter_native.quantization.method import UNQUANTIZED
from qmeter_native.quantization.methods import method_named, weight_method_names
from qmeter_native.quantization.model_parameters import format_of

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")


def _all_tensors(folder: Path) -> dict[str, object]:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    tensors: dict[str, object] = {}
    for file in sorted(set(index["weight_map"].values())):
        tensors.update(safetensors_torch.load_file(folder / file))
    assert set(tensors) == set(index["weight_map"])
    return tensors


def _stored(method: str, weight: object) -> dict[str, object]:
    layer = format_of(method_named(method)).layer("layer")
    return layer.store(weight)


def test_gptq_packs_eight_inputs_of_one_output_a_word_lowest_bits_first():
    # Codes 0 … 7 of eight consecutive inputs are the golden word 0x76543210.
    weight = (torch.arange(128) % 8 - 8).float().reshape(1, 128).repeat(8, 1)
    weight[:, -1] = -7.5  # the largest magnitude: a scale of exactly 1
    stored = _stored("gptq", weight.clamp_min(-7.5))
    assert stored["scales"][0, 0] == 1
    assert stored["qweight"][1, 0].item() & 0xFFFFFFFF == 0x76543210
    assert stored["qzeros"].unique().tolist() == [0x77777777]
    assert stored["g_idx"].unique().tolist() == [0]


def test_an_fp8_weight_comes_back_within_the_precision_of_e4m3():
    weight = torch.randn(64, 32) * 0.02
    stored = _stored("fp8", weight)
    back = stored["weight"].float() * stored["weight_scale"]
    assert stored["weight_scale"].shape == ()
    assert ((back - weight).abs() <= weight.abs() / 16 + stored["weight_scale"] * 2**-9).all()


@pytest.mark.parametrize("name", weight_method_names())
def test_what_is_stored_has_the_size_that_the_method_announces(name: str):
    method, (n, k) = method_named(name), (4096, 1024)
    stored = _stored(name, (torch.randn(n, k) * 0.02).bfloat16())
    size = sum(each.nbytes for each in stored.values())
    unread = sum(stored[each].nbytes for each in ("qzeros", "g_idx") if each in stored and "sym" in method.config)
    assert size - unread == pytest.approx(method.layout.num_bytes(n, k), rel=0.01)


@pytest.mark.parametrize("name", weight_method_names())
def test_random_codes_use_most_of_what_their_bits_can_say(name: str):
    layer = format_of(method_named(name)).layer("layer")
    weight = layer.unpack(layer.store((torch.randn(256, 512) * 0.02).bfloat16()))
    codes = weight.codes if hasattr(weight, "codes") else weight.values.view(torch.uint8)
    shares = torch.bincount(codes.flatten().int()).float() / codes.numel()
    entropy = -(shares * shares.log2()).nansum().item()
    bits = method_named(name).layout.bits
    assert 0.7 * bits < entropy <= bits  # zeros have none; a bell over 16 codes has 3.3 bits of 4


@pytest.mark.parametrize("name", weight_method_names())
def test_a_checkpoint_of_a_shape_is_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QMETER_CACHE", str(tmp_path))
    seen: list[tuple[int, int]] = []
    folder = shape_checkpoint("shape:tiny", name, progress=lambda done, total: seen.append((done, total)))
    assert folder.is_relative_to(cache_folder())
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    expected = method_named(name).config
    assert config.get("quantization_config", {}).get("quant_method") == expected.get("quant_method")
    assert json.loads((folder / "qmeter.json").read_text())["weights_source"] == "random_codes"
    tensors = _all_tensors(folder)
    assert tensors["lm_head.weight"].dtype == torch.bfloat16
    assert seen[-1][0] == seen[-1][1]
    assert not any(each.isnan().any() for each in tensors.values() if each.dtype in (torch.bfloat16, torch.float16))
    assert (folder / "tokenizer.json").is_file()
    assert not list(tmp_path.rglob("*.unfinished"))


def test_an_unquantized_checkpoint_loads_in_transformers(tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = resolve_model("shape:tiny").config
    write_checkpoint(tmp_path / "m", config, UNQUANTIZED, dtype=torch.float16)
    model, report = AutoModelForCausalLM.from_pretrained(str(tmp_path / "m"), output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert abs(model.model.layers[0].mlp.up_proj.weight.float().std().item() - 0.02) < 0.001
    assert AutoTokenizer.from_pretrained(str(tmp_path / "m")).decode([3, 5]) == "t3 t5"


def test_the_same_seed_gives_the_same_weights(tmp_path: Path):
    config = resolve_model("shape:tiny").config
    for name in ("a", "b"):
        write_checkpoint(tmp_path / name, config, method_named("gptq"), dtype=torch.float16, seed=3)
    one, other = _all_tensors(tmp_path / "a"), _all_tensors(tmp_path / "b")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_of_another_process_is_the_same_and_its_errors_are_raised_here(tmp_path: Path):
    config = resolve_model("shape:tiny").config
    options = {"dtype": torch.float16, "device": "cpu", "seed": 3}
    seen: list[tuple[int, int]] = []
    write_in_a_process(
        tmp_path / "a", config, method_named("gptq"), progress=lambda *each: seen.append(each), **options
    )
    write_checkpoint(tmp_path / "b", config, method_named("gptq"), **options)
    one, other = _all_tensors(tmp_path / "a"), _all_tensors(tmp_path / "b")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert seen[-1][0] == seen[-1][1]
    with pytest.raises(UsageError, match="exists already") as caught:
        write_in_a_process(tmp_path / "a", config, method_named("gptq"), progress=lambda *_: None, **options)
    assert caught.value.hint == "Choose another folder, or remove it first."


def test_a_second_call_takes_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QMETER_CACHE", str(tmp_path))
    first = shape_checkpoint("shape:tiny")
    before = (first / "config.json").stat().st_mtime_ns
    assert shape_checkpoint("shape:tiny") == first
    assert (first / "config.json").stat().st_mtime_ns == before


def test_bad_requests_are_refused_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QMETER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match="int5"):
        shape_checkpoint("shape:tiny", "int5")
    with pytest.raises(UsageError, match="float64"):
        shape_checkpoint("shape:tiny", dtype="float64")
    with pytest.raises(ModelNotFoundError):
        shape_checkpoint("shape:no-such-model")
    config = resolve_model("shape:tiny").config
    config.hidden_size, config.head_dim = 96, 24
    with pytest.raises(UsageError, match=r"self_attn.q_proj.*groups of 128"):
        write_checkpoint(tmp_path / "m", config, method_named("gptq"), dtype=torch.float16)
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        write_checkpoint(
            tmp_path / "there", resolve_model("shape:tiny").config, method_named("gptq"), dtype=torch.float16
        )
    assert [each.name for each in tmp_path.iterdir()] == ["there"]


def test_a_disk_without_room_is_named_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 0))
    config = resolve_model("shape:tiny").config
    with pytest.raises(Exception, match="GB free"):
        write_checkpoint(tmp_path / "m", config, method_named("gptq"), dtype=torch.float16)
    assert not list(tmp_path.iterdir())


_LARGE_LAYER = """
import resource, sys
from pathlib import Path
from qmeter_native.quantization.checkpoint_writer import write_checkpoint
from qmeter_native.quantization.methods import method_named
import torch, transformers

config = transformers.LlamaConfig(
    hidden_size=4096, intermediate_size=14336, num_hidden_layers=1, num_attention_heads=32, num_key_value_heads=8,
    vocab_size=32000,
)
write_checkpoint(Path(sys.argv[1]), config, method_named(sys.argv[2]), dtype=torch.bfloat16)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_layers_of_an_8b_model_are_written_within_2_gib_of_memory(tmp_path: Path):
    """NVFP4 rounds in float64, which takes more than any other format of 4 bits."""
    command = [sys.executable, "-c", _LARGE_LAYER, str(tmp_path / "m"), "nvfp4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) / 2**20 < 2
