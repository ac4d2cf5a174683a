"""The bridge to the evaluation harness, with a module in its place."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("transformers")

from qmeter_native.engines.model_source import ModelSource
from qmeter_native.errors import EngineError, MissingExtraError, UsageError
from qmeter_native.quality.harness import check_tasks, task_scores

SOURCE = ModelSource("m", "directory", "/nowhere", SimpleNamespace(vocab_size=5000))
RESULTS = {
    "arc_easy": {
        "alias": "arc_easy",
        "acc,none": 0.5,
        "acc_stderr,none": 0.01,
        "acc_norm,none": 0.4,
        "acc_norm_stderr,none": "N/A",
    }
}


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the stand-in was called with."""
    calls: dict[str, Any] = {}

    def simple_evaluate(**options: Any) -> dict[str, Any]:
        calls.update(options)
        if "failure" in calls:
            raise calls["failure"]
        return {"results": RESULTS}

    names = ("lm_eval", "lm_eval.evaluator", "lm_eval.models", "lm_eval.models.huggingface", "lm_eval.tasks")
    modules: dict[str, Any] = {name: ModuleType(name) for name in names}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    modules["lm_eval.evaluator"].simple_evaluate = simple_evaluate
    modules["lm_eval.models.huggingface"].HFLM = lambda **options: SimpleNamespace(**options)
    modules["lm_eval.tasks"].TaskManager = lambda: SimpleNamespace(all_tasks=["arc_easy", "hellaswag"])
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda _: "a tokenizer")
    return calls


def test_scores_come_with_intervals_of_the_harness_errors(harness: dict[str, Any]) -> None:
    found = task_scores("a model", SOURCE, ["arc_easy"])
    assert set(found) == {"arc_easy/acc", "arc_easy/acc_norm"}
    accuracy = found["arc_easy/acc"]
    assert (accuracy.value, accuracy.low, accuracy.high) == (0.5, pytest.approx(0.4804), pytest.approx(0.5196))
    assert found["arc_easy/acc_norm"].low is None
    assert harness["tasks"] == ["arc_easy"]
    assert harness["model"].pretrained == "a model"


def test_an_unknown_task_is_refused(harness: dict[str, Any]) -> None:
    check_tasks(["arc_easy"], SOURCE)
    with pytest.raises(UsageError, match="no task arc_hard"):
        check_tasks(["arc_easy", "arc_hard"], SOURCE)


@pytest.mark.parametrize("failure", [ConnectionError("no network"), FileNotFoundError("x"), ValueError("no dataset")])
def test_data_that_are_not_here_are_named(harness: dict[str, Any], failure: Exception) -> None:
    harness["failure"] = failure
    with pytest.raises(EngineError, match="data of arc_easy are not here") as caught:
        task_scores("a model", SOURCE, ["arc_easy"])
    assert "cache of `datasets`" in (caught.value.hint or "")


def test_a_model_without_a_tokenizer_has_no_tasks() -> None:
    with pytest.raises(EngineError, match="no tokenizer"):
        check_tasks(["arc_easy"], SOURCE)


def test_without_the_harness_its_extra_is_named(harness: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtraError) as caught:
        check_tasks(["arc_easy"], SOURCE)
    assert "qmeter-native[quality]" in (caught.value.hint or "")
