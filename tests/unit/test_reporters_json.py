from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from qmeter_native.model.estimate import Estimate
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.report import Balance, RequestBalance
from qmeter_native.reporters.json_report import report_document, report_json
from tests import reports

SCHEMA: dict[str, Any] = json.loads((files("qmeter_native.reporters") / "report.schema.json").read_text())


def problems(text: str) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(json.loads(text))]


@pytest.mark.parametrize(
    "report",
    [
        reports.report(),
        reports.report_without_energy(),
        reports.report_of_devices(4),
        replace(
            reports.report(),
            devices=(),
            engine=None,
            balance=Balance((), (), RequestBalance(0, None, "none")),
            kernels=(),
        ),
        replace(
            reports.report(),
            coverage=(reports.coverage(0), reports.coverage(10_800_000_000, 1)),
            kernel_choice=reports.kernel_choice(),
            explanations=(reports.explanation(),),
            work=reports.work(),
            processes=(reports.process(0), reports.process(1)),
        ),
        replace(
            reports.report(),
            requests=(reports.request(7, name=None, num_prompt_tokens=None, num_output_tokens=None, is_finished=None),),
            work=replace(reports.work(), family_known=None, step_known=None, layer_known=None),
        ),
    ],
    ids=["full", "no sensor", "four devices", "nothing", "everything of version 2", "unknown"],
)
def test_the_document_is_what_its_schema_says(report: Any) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert problems(report_json(report)) == []


def test_the_schema_rejects_a_missing_figure_without_a_reason() -> None:
    document = report_document(reports.report_without_energy())
    document["totals"]["energy_gross_j"]["reason"] = None
    assert problems(json.dumps(document))


def test_the_schema_knows_every_op_family() -> None:
    assert SCHEMA["$defs"]["kernel"]["properties"]["op_family"]["enum"] == [family.value for family in OpFamily]


def test_what_came_with_version_2_is_plain_data() -> None:
    report = replace(
        reports.report(), coverage=(reports.coverage(5),), explanations=(reports.explanation(),), work=reports.work()
    )
    document = json.loads(report_json(report))
    assert document["schema_version"] == 3
    assert document["coverage"][0]["busy_s"]["high"] == 10.2
    assert document["coverage"][0]["is_complete"] is False
    assert document["explanations"][0]["parts"][1]["op_family"] == "gemm"
    assert document["work"]["rows"][1]["op_family"] == "norm"
    assert document["kernel_choice"] is None


def test_estimates_are_objects_and_times_are_integers() -> None:
    document = report_document(reports.report())
    assert document["kernels"][0]["energy_j"] == reports.report().kernels[0].energy_j.to_dict()
    assert isinstance(document["balance"]["time"]["residual_ns"], int)
    assert document["kernels"][0]["op_family"] == "gemm"
    assert document["engine"]["requested"]["attention"] == "flash"


def test_several_devices_are_summed_and_the_worst_residual_leads() -> None:
    document = report_document(reports.report_of_devices(3))
    time, energy = document["balance"]["time"], document["balance"]["energy"]
    assert time["wall_ns"] == 36_000_000_000
    assert time["residual_ns"] == -7
    assert [entry["residual_ns"] for entry in time["per_device"]] == [0, 0, -7]
    assert energy["measured_j"] == 15_000.0
    assert energy["raw_residual_fraction"] == 0.031
    assert document["balance"]["is_closed"] is False
    assert len(document["balance"]["failures"]) == 1


def test_joules_are_summed_over_the_devices_that_were_measured() -> None:
    report = reports.report_of_devices(2)
    blind = reports.report_without_energy().balance.energy[0]
    report = replace(
        report, balance=replace(report.balance, energy=(report.balance.energy[0], replace(blind, device=1)))
    )
    energy = report_document(report)["balance"]["energy"]
    assert energy["measured_j"] == 5_000.0
    assert energy["reason"] == reports.NO_SENSOR


def test_nothing_that_json_cannot_say_gets_out() -> None:
    report = replace(reports.report(), software={"broken": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        report_json(report)
    assert Estimate.missing("why").to_dict()["value"] is None
