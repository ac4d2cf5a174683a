"""Calibrated methods through llm-compressor, on the built-in model and a little text. It may not be installed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from qmeter_native.engines.model_loading import load_model
from qmeter_native.engines.model_source import resolve_model
from qmeter_native.quality.corpus import held_out_files
from qmeter_native.quantization.algorithms.activation_order import in_first_order, input_orders, reorder_inputs
from qmeter_native.quantization.calibration_text import calibration_text
from qmeter_native.quantization.methods import METHODS, method_named
from qmeter_native.quantization.quantize_checkpoint import quantize_checkpoint

torch = pytest.importorskip("torch")

BUILTIN = "builtin:stdlib-lm"
CALIBRATED = [name for name, method in METHODS.items() if method.needs_calibration]


def bits_per_byte(model: Any) -> float:
    """On 16 kB of modules that the model was not trained on; differences below 0.002 are chance."""
    text = b"".join(content for contents in held_out_files().values() for content in contents)
    ids = torch.tensor(list(text[: 1 << 14])).reshape(16, 1024)
    with torch.no_grad():
        return float(model(ids, labels=ids).loss) / math.log(2)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALIBRATED)
def test_a_calibrated_checkpoint_is_read_generates_and_is_no_worse_than_rounding(name: str, tmp_path: Path):
    pytest.importorskip("llmcompressor")
    source, method = resolve_model(BUILTIN), method_named(name)
    text = calibration_text(source, None, num_sequences=16, sequence_len=256)
    assert text is not None
    seen: list[tuple[str, int, int]] = []
    written = quantize_checkpoint(source, method, tmp_path / "m", text, progress=lambda *each: seen.append(each))
    assert written.calibration == text.to_dict()
    assert seen[-1][0] == "calibrating"
    assert seen[-1][1] > 0.8 * seen[-1][2]
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == method.config["quant_method"]
    assert not (tmp_path / "m" / "compressed").exists()
    device = torch.device("cpu")
    model = load_model(resolve_model(str(tmp_path / "m")), device, torch.float32, 0).model
    rounded = load_model(source, device, torch.float32, 0, name).model
    assert bits_per_byte(model) < bits_per_byte(rounded) + 0.002
    prompt = torch.tensor([list(b"def test(self):\n    self.assert")])
    answer = bytes(model.generate(prompt, max_new_tokens=12, do_sample=False)[0].tolist())
    assert answer.isascii()


def test_inputs_are_ordered_by_their_squares_and_the_model_computes_what_it_did():
    torch.manual_seed(0)
    model = torch.nn.Sequential()
    model.add_module("layer", torch.nn.Linear(6, 4))
    x = torch.randn(3, 5, 6) * torch.tensor([1.0, 5.0, 0.1, 3.0, 0.2, 2.0])

    class Reader(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = model.layer

        def forward(self, x: Any, use_cache: bool) -> Any:
            return self.layer(x)

    reader = Reader()
    before = reader(x, False)
    orders = input_orders(reader, ["layer"], [{"x": x}])
    assert orders["layer"].tolist() == [1, 3, 5, 0, 4, 2]
    reorder_inputs(reader, orders)
    torch.testing.assert_close(reader(x, False), before)


def test_codes_in_act_order_mean_the_same_weight_with_its_inputs_in_place():
    from qmeter_native.kernels.packing.rounding import round_symmetric

    weight = torch.randn(8, 256)
    order = torch.randperm(256)
    ordered = in_first_order(round_symmetric(weight[:, order], 4, 128), order)
    assert torch.equal(ordered.dequantize()[:, order], round_symmetric(weight[:, order], 4, 128).dequantize())
    assert torch.bincount(ordered.group_of).tolist() == [128, 128]


def test_the_built_in_model_reads_what_it_was_trained_on_and_others_have_no_text(tmp_path: Path):
    text = calibration_text(resolve_model(BUILTIN), None, num_sequences=4)
    assert text is not None
    assert (text.sequence_len, "training split" in text.name) == (1024, True)
    assert calibration_text(resolve_model("shape:tiny"), None) is None
    (tmp_path / "text.txt").write_text("import this\n" * 1000)
    own = calibration_text(resolve_model(BUILTIN), tmp_path / "text.txt", 3, 100)
    assert own is not None
    assert own.sha256 != text.sha256
    from qmeter_native.quantization.checkpoint_tokenizer import byte_tokenizer

    pieces = own.sequences(byte_tokenizer(resolve_model(BUILTIN).config))
    assert [len(piece) for piece in pieces] == [100, 100, 100]
    assert bytes(pieces[0]).startswith(b"import this\nimport")
    assert bytes(pieces[-1]).endswith(b"import this\n")
