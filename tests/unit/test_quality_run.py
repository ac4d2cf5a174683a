"""Qualities of the built-in model, quantized, on a short text."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event
from typing import Any

import pytest

pytest.importorskip("transformers")

import torch

from qmeter_native.engines.model_loading import load_model
from qmeter_native.engines.model_source import BUILTIN_MODEL, resolve_model
from qmeter_native.errors import QmeterError, UsageError
from qmeter_native.model.trial import Trial
from qmeter_native.quality import run as run_module
from qmeter_native.quality.candidate import checkpoint_candidate
from qmeter_native.quality.corpus import file_text
from qmeter_native.quality.layer_errors import layer_errors
from qmeter_native.quality.plan import QualityPlan, all_methods
from qmeter_native.quality.programs import Beginning, complete
from qmeter_native.quality.rounded_cache import round_cache
from qmeter_native.quality.rounded_model import RoundedLinear, dequantize_once
from qmeter_native.quality.run import QualityRun
from qmeter_native.quality.scoring import score, score_reference
from qmeter_native.quality.text import HeldOutText
from qmeter_native.quantization.methods import method_named, method_names
from qmeter_native.quantization.quantize_checkpoint import quantize_checkpoint

CPU = torch.device("cpu")
LINES = "def add_{0}(first, second):\n    total_{0} = first + second\n    return total_{0}\n\n\n"


def silent(*_: Any) -> None:
    return


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("text") / "held_out.py"
    found.write_text("".join(LINES.format(number) for number in range(45)))
    return found


@pytest.fixture(scope="module")
def text(path: Path) -> HeldOutText:
    return file_text(path, resolve_model(BUILTIN_MODEL))


@pytest.fixture
def model() -> Any:
    return load_model(resolve_model(BUILTIN_MODEL), CPU, torch.float32, 0).model


def trials_of(path: Path, *methods: str, **options: Any) -> list[Trial]:
    plan = QualityPlan(BUILTIN_MODEL, methods, text=path, num_programs=0, **options)
    return list(QualityRun(plan, silent, Event()).trials())


def test_the_baseline_compared_with_itself_is_exactly_itself(text: HeldOutText, model: Any) -> None:
    reference = score_reference(model, text, silent)
    again = score(model, text, reference, silent)
    assert (again.nats == reference.scores.nats).all()
    assert again.kl_nats is not None
    assert (again.kl_nats == 0).all()
    assert again.num_agreeing is not None
    assert again.num_agreeing.sum() == text.num_tokens


def test_scores_are_those_of_transformers_own_loss(text: HeldOutText, model: Any) -> None:
    first = text.windows[0]
    tokens = torch.from_numpy(first.tokens)[None]
    expected = float(model(input_ids=tokens, labels=tokens).loss) * first.num_scored
    assert score_reference(model, text, silent).scores.nats[0] == pytest.approx(expected, rel=1e-5)


def test_four_bits_change_more_than_eight(path: Path) -> None:
    baseline, eight, four = trials_of(path, "rtn-w8a16", "nf4")
    assert baseline.method == "none"
    assert baseline.quality.bits_per_byte_change.reason == "it is the baseline"
    assert baseline.size.bits_per_weight.value == 16
    assert (eight.quality.kl_nats_per_token.value or 0) < (four.quality.kl_nats_per_token.value or 0)
    assert (eight.quality.top1_agreement.value or 0) > 0.98
    assert four.size.bits_per_weight.value == pytest.approx(4 + (8 + 32 / 256) / 64)
    change, figure = four.quality.bits_per_byte_change, four.quality.bits_per_byte
    assert change.value == pytest.approx((figure.value or 0) - (baseline.quality.bits_per_byte.value or 0))
    assert (change.high or 0) - (change.low or 0) < (figure.high or 0) - (figure.low or 0)
    assert four.provenance.how == "torch reference"
    assert four.quality.parse_share.reason


@pytest.mark.parametrize("method", ["nf4", "rtn-w8a8", "llm-int8", "qoq", "w4a8-fp", "fp8-block"])
def test_a_weight_that_is_dequantized_once_gives_the_same_logits(method: str) -> None:
    quantized = load_model(resolve_model(BUILTIN_MODEL), CPU, torch.float32, 0, method).model
    tokens = torch.tensor([list(b"def read(path):\n    return")])
    expected = quantized(tokens).logits
    dequantize_once(quantized)
    assert torch.equal(quantized(tokens).logits, expected)


def test_layers_are_ordered_by_their_error_and_left_as_they_were(text: HeldOutText, model: Any) -> None:
    tokens = torch.tensor([list(b"import os\n")])
    expected = model(tokens).logits
    errors = layer_errors(model, method_named("nf4"), text)
    assert len(errors) == 4 * 7
    assert [each.output_error for each in errors] == sorted((each.output_error for each in errors), reverse=True)
    assert all(0.01 < each.output_error < 0.2 for each in errors)
    assert torch.equal(model(tokens).logits, expected)
    assert not any(isinstance(module, RoundedLinear) for module in model.modules())


def test_the_worst_layers_are_also_scored_alone(path: Path) -> None:
    _, trial = trials_of(path, "nf4", has_layers=True, num_bytes=1024)
    changes = [layer.bits_per_byte_change.value for layer in trial.quality.layers]
    assert [change is not None for change in changes[:4]] == [True, True, True, False]


def test_a_cache_of_four_bits_moves_predictions_more_than_one_of_eight(text: HeldOutText, model: Any) -> None:
    short = HeldOutText(text.name, text.blocks, text.windows[:2])
    reference = score_reference(model, short, silent)
    divergences = []
    for name in ("int8", "fp8", "int4"):
        round_cache(model, name)
        found = score(model, short, reference, silent).kl_nats
        assert found is not None
        divergences.append(found.sum())
    assert 0 < divergences[0] < divergences[1] < divergences[2]


def test_a_method_of_the_cache_leaves_weights_alone(path: Path) -> None:
    _, trial = trials_of(path, "kv4", num_bytes=1024, has_layers=True)
    assert trial.size.bits_per_weight.value == 16
    assert (trial.quality.kl_nats_per_token.value or 0) > 0
    assert (trial.provenance.algorithm, trial.provenance.how) == ("none", "torch reference")
    assert trial.quality.layers == ()


def test_programs_are_written_alike_by_equal_models(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmeter_native.quality.programs.GENERATED", 12)
    beginning = Beginning(0, (LINES.format(7) * 9).encode()[:384], b"")
    first = complete(model, [beginning, beginning], silent)
    assert len(first) == 4
    assert first[0] == first[1]
    assert all(len(each) == 12 for each in first)
    assert first == complete(model, [beginning, beginning], silent)
    assert first != complete(model, [beginning, beginning], silent, seed=1)


def test_what_is_measured_is_kept_when_the_user_stops(path: Path) -> None:
    stop = Event()

    def show(what: str, done: int, total: int) -> None:
        if what == "rtn-w8a8: scoring" and done:
            stop.set()

    plan = QualityPlan(BUILTIN_MODEL, ("rtn-w8a16", "rtn-w8a8", "nf4"), text=path, num_programs=0)
    assert [trial.method for trial in QualityRun(plan, show, stop).trials()] == ["none", "rtn-w8a16"]


def test_a_method_that_does_not_suit_is_a_row_or_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(source: Any, device: Any, dtype: Any, seed: int, quantization: str) -> Any:
        if quantization == "awq":
            raise UsageError("the layer does not divide")
        return load_model(source, device, dtype, seed, quantization)

    monkeypatch.setattr(run_module, "load_model", load)
    trials = trials_of(path, "awq", "nf4", skips_failures=True, num_bytes=1024)
    assert trials[1].quality.bits_per_byte.reason == "the layer does not divide"
    assert trials[2].quality.bits_per_byte.value is not None
    with pytest.raises(UsageError, match="does not divide"):
        trials_of(path, "awq", num_bytes=1024)


def test_all_methods_are_those_of_the_table_but_the_baseline() -> None:
    assert set(all_methods()) == set(method_names()) - {"none"}
    assert "gptq" not in all_methods("gptq")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "shape:llama-3.1-8b"}, "random weights"),
        ({"methods": ("nf5",)}, "no quantization method is called 'nf5'"),
        ({"baseline": "none at all"}, "no quantization method"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_loaded(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(QmeterError, match=message):
        QualityPlan(**{"model": BUILTIN_MODEL, "methods": (), **fields})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The built-in model rounded by `nf4`, as a checkpoint."""
    folder = tmp_path / "stdlib-nf4"
    quantize_checkpoint(resolve_model(BUILTIN_MODEL), method_named("nf4"), folder)
    return folder


def test_a_checkpoint_is_compared_with_the_model_it_was_made_of(path: Path, checkpoint: Path) -> None:
    _, method, read = trials_of(path, "nf4", checkpoints=(str(checkpoint),), num_bytes=1024)
    assert read.method == "stdlib-nf4"
    assert read.provenance.algorithm == "bitsandbytes"
    expected = method.quality.kl_nats_per_token.value
    assert read.quality.kl_nats_per_token.value == pytest.approx(expected, rel=1e-3)
    assert read.size.bits_per_weight == method.size.bits_per_weight


def test_what_was_written_beside_a_checkpoint_says_what_it_is(path: Path, checkpoint: Path) -> None:
    source = resolve_model(BUILTIN_MODEL)
    found = checkpoint_candidate(str(checkpoint), source)
    assert (found.scheme, found.algorithm, found.quantization) == ("W4A16-NF4 g64", "bitsandbytes", "none")
    written = checkpoint / "qmeter.json"
    written.unlink()
    assert checkpoint_candidate(str(checkpoint), source).algorithm == "of a bitsandbytes checkpoint"
    written.write_text(json.dumps({"weights_source": "random_codes"}))
    with pytest.raises(UsageError, match="random weights"):
        checkpoint_candidate(str(checkpoint), source)
    with pytest.raises(UsageError, match="no quantized checkpoint"):
        checkpoint_candidate(BUILTIN_MODEL, source)
