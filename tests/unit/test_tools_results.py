"""Result files have one form."""

from __future__ import annotations

import json
from pathlib import Path

from tools.results import Metric, write_result


def test_a_result_file_has_the_documented_form(tmp_path: Path) -> None:
    metrics = {"seconds": Metric.of_repeats([3.0, 1.0, 2.0, 9.0], "s"), "bytes": Metric(7, "B")}
    write_result(
        tmp_path / "results" / "x.json", "x", metrics, device="a CPU", command="python tools/x.py", packages=["numpy"]
    )
    document = json.loads((tmp_path / "results" / "x.json").read_text())
    assert set(document) == {"name", "date", "command", "device", "software", "metrics"}
    assert document["metrics"]["seconds"] == {"value": 2.5, "unit": "s", "low": 1.0, "high": 9.0, "n": 4}
    assert document["metrics"]["bytes"] == {"value": 7, "unit": "B", "low": None, "high": None, "n": 1}
    assert "numpy" in document["software"]


def test_raw_figures_and_notes_are_kept_where_there_are_some(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_result(path, "x", {}, device="a GPU", command="x", rows=[{"kernel": "copy"}], notes=["Of each kernel."])
    document = json.loads(path.read_text())
    assert document["rows"] == [{"kernel": "copy"}]
    assert document["notes"] == ["Of each kernel."]


def test_committed_results_have_the_documented_form() -> None:
    for file in (Path(__file__).parents[2] / "docs" / "results").glob("*.json"):
        document = json.loads(file.read_text())
        extra = set(document) - {"name", "date", "command", "device", "software", "metrics"}
        assert extra <= {"rows", "notes"}, file.name
        for key, metric in document["metrics"].items():
            assert set(metric) == {"value", "unit", "low", "high", "n"}, (file.name, key)
