"""Trials and their JSON document."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from qmeter_native.errors import TrialError
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.trial import (
    Energy,
    LayerError,
    Performance,
    Provenance,
    Quality,
    Size,
    Trial,
    trials_from_dict,
    trials_to_dict,
)

SCHEMA: dict[str, Any] = json.loads((files("qmeter_native.model") / "trial.schema.json").read_text())

PROVENANCE = Provenance(
    "2026-11-24T10:00:00+00:00",
    "qmeter-native quality",
    "a CPU",
    "torch reference",
    "float32",
    "round to nearest",
    "checkpoint",
    text="a text",
    num_bytes=65536,
    baseline="none",
    software={"torch": "2.13"},
    seconds=3.5,
)
TRIAL = Trial(
    "builtin:stdlib-lm",
    "nf4",
    "W4A16-NF4 g64",
    PROVENANCE,
    Size(Estimate(1e6), Estimate(4.127)),
    Performance(ttft_s=Estimate(0.1, 0.09, 0.12)),
    Energy(mean_w=Estimate.missing("no reading")),
    Quality(
        bits_per_byte=Estimate(0.9, 0.8, 1.0),
        tasks={"arc/acc": Estimate(0.5, 0.4, 0.6)},
        layers=(LayerError("model.layers.0.mlp.up_proj", 0.1, Estimate(0.001, 0.0, 0.002)),),
    ),
    ("A note.",),
)


def test_a_document_holds_all_of_a_trial_and_has_the_documented_form() -> None:
    document = json.loads(json.dumps(trials_to_dict([TRIAL])))
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(document)] == []
    assert trials_from_dict(document) == (TRIAL,)


def test_what_was_not_measured_is_missing_with_a_reason() -> None:
    trial = Trial("m", "none", "W16A16", PROVENANCE)
    assert trial.energy.j_per_request.value is None
    assert trial.energy.j_per_request.reason
    assert trials_from_dict(trials_to_dict([trial])) == (trial,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"document": "other"}, "holds no trials"),
        ({"schema_version": 2}, "schema version 2"),
        ({"trials": [{"model": "m"}]}, "damaged"),
        ({"trials": 3}, "damaged"),
    ],
)
def test_another_document_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrialError, match=message):
        trials_from_dict(trials_to_dict([TRIAL]) | change, "x.json")


def test_what_is_no_document_is_refused() -> None:
    with pytest.raises(TrialError, match="holds no trials"):
        trials_from_dict([1, 2])
