"""The table of methods as a result file."""

from __future__ import annotations

import json
from pathlib import Path

from qmeter_native.model.estimate import Estimate
from qmeter_native.model.trial import Provenance, Quality, Size, Trial
from tools.bench_methods import metrics_of, write

PROVENANCE = Provenance(
    "2026-11-24", "x", "a CPU", "torch reference", "float32", "gptq", "checkpoint", "a text", num_bytes=9, seconds=2.0
)


def trial(method: str, change: Estimate) -> Trial:
    quality = Quality(bits_per_byte=Estimate(0.9, 0.8, 1.0), bits_per_byte_change=change)
    return Trial("m", method, "W4A16-NF4", PROVENANCE, Size(Estimate(1e6), Estimate(4.1)), quality=quality)


def test_rows_stand_in_the_order_of_the_table_with_a_picture_beside_them(tmp_path: Path) -> None:
    itself = Estimate.missing("it is the baseline")
    trials = [trial("none", itself), trial("qoq", Estimate(0.1, 0.09, 0.11)), trial("gptq", Estimate(0.03))]
    path = tmp_path / "methods-quality.json"
    write(trials, metrics_of(trials, 60.0, 100.0), path)
    document = json.loads(path.read_text())
    assert [row["method"] for row in document["rows"]] == ["none", "gptq", "qoq"]
    assert document["metrics"]["num_methods"]["value"] == 2
    assert document["rows"][0]["bits_per_byte_change_reason"] == "it is the baseline"
    assert document["rows"][2]["bits_per_byte_change_high"] == 0.11
    assert path.with_suffix(".svg").read_text().count("<circle") == 2
