"""Recordings of the CUPTI probe become figures. No GPU is needed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.cupti_probe import RECORDED_NAMES, grouped, main, plan, read_recordings
from tools.cupti_probe_metrics import metrics_of

GOOD = {"zero": 0, "reversed": 0, "dropped": 0}


def replay(name: str, replay_us: float) -> dict[str, Any]:
    record = {
        "name": name,
        "replay_us_median": replay_us,
        "replay_us_p10": replay_us - 1,
        "replay_us_p90": replay_us + 1,
        "replays": 20,
        "eager_us": 3.5,
        "gpu_used_mb_end": 528.0,
    }
    if "base" in name or "sub_only" in name:
        return record
    launches = {"runtime": 100 + 440 + 20, "driver": 0} if "RD" in name else {"runtime": 0, "driver": 0}
    return {**record, **GOOD, **launches, "expected_nodes": 8800, "expected_eager": 100, "kernels": 8900}


def switching(name: str, expected: float) -> dict[str, Any]:
    return {
        "name": name,
        "enable_us": [20.0, 22.0],
        "disable_us": [15.0, 17.0],
        "on_median_us": [3900.0, 3902.0],
        "off_median_us": [3760.0, 3770.0],
        "expected": [expected, expected],
        "got": [8800.0, 8800.0],
        "off_records": [0.0, 0.0],
        "same_ids_as_on0": "11",
        "bad": 0,
        "off0_records": 8800,
        "off0_replay_us_median": 3900.0,
    }


def late(name: str) -> dict[str, Any]:
    def phase(text: str, replay_us: float, expected: int) -> dict[str, Any]:
        counts = {"expected_nodes": expected, "graph_nodes": expected, "kernels": expected}
        ids = {"distinct": 440 if expected else 0}
        return {"phase": text, "replay_us_median": replay_us, **counts, "ids": ids, **GOOD}

    bare = {"phase": "old,no_cupti", "replay_us_median": 3700.0}
    return {
        "name": name,
        "enable_us": 43.0,
        "phases": [bare, phase("old,late_loaded", 3774.0, 0), phase("old,enabled", 4400.0, 8800)],
    }


def special(name: str) -> dict[str, Any]:
    if name == "G_clock":
        offsets = {"offset_ns_min": -6.0, "offset_ns_median": 2.0, "offset_ns_max": 273.0, "bracket_ns_median": 87.0}
        return {"name": name, "clocks0": offsets, "clocks1": offsets}
    if name == "F_soak":
        marks = [
            {"us_per_node": -1, "rss_mb": 253.0, "gpu_used_mb": 540.0},
            {"us_per_node": 1.5, "rss_mb": 257.0, "gpu_used_mb": 540.0},
            {"us_per_node": 2.0, "rss_mb": 258.0, "gpu_used_mb": 541.0},
        ]
        return {"name": name, "expected_nodes": 4400.0, "graph_nodes": 4400, "pool_misses": 0, "marks": marks, **GOOD}
    if name.endswith("onoff"):
        # The recorded program counted a batch of 20 replays as one: the pipelined 440 stand for 8800.
        return switching(name, 440.0 if name == "P_onoff" else 8800.0)
    return late(name)


def recorded() -> list[dict[str, Any]]:
    """A sample of every configuration, under its name of 2026-11-24; recording kernels costs 44 us a replay."""
    records = []
    for name in RECORDED_NAMES:
        if name in ("G_clock", "F_soak", "C_onoff", "P_onoff", "P_D_late", "P_CD_late"):
            records.append(special(name))
        elif name in ("P_base_m2", "B_base_markers2"):
            records.append(replay(name, 3705.0))
        else:
            records.append(replay(name, 3700.0 if "base" in name else 3744.0))
    return records


def written(folder: Path, records: list[dict[str, Any]]) -> Path:
    path = folder / "recording.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_every_configuration_was_recorded_under_some_name() -> None:
    assert set(RECORDED_NAMES.values()) == {configuration.name for configuration in plan()}


def test_a_recording_becomes_a_result_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = written(tmp_path, recorded())
    arguments = ["--from-recording", str(recording), "--device", "a GPU", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["cupti_probe.py", *arguments])
    main()
    document = json.loads((tmp_path / "cupti-h200.json").read_text())
    assert document["device"] == "a GPU"
    metric = document["metrics"]["pipelined_base_replay_s"]
    assert metric == {"value": 0.0037, "unit": "s", "low": 0.003699, "high": 0.003701, "n": 100}


def test_costs_are_those_above_the_baseline_of_the_same_mode(tmp_path: Path) -> None:
    metrics = metrics_of(grouped(list(read_recordings([written(tmp_path, recorded())]))))
    assert metrics["sync_kernels_overhead"].value == pytest.approx(44 / 3700)
    assert metrics["pipelined_per_node_s"].value == pytest.approx(1e-7)
    assert metrics["pipelined_per_marker_s"].value == pytest.approx(2.5e-6)
    assert metrics["pipelined_api_records_per_launch"].value == 1
    assert metrics["late_load_off_overhead"].value == pytest.approx(0.02)


def test_the_replays_of_a_recorded_batch_are_all_expected(tmp_path: Path) -> None:
    metrics = metrics_of(grouped(list(read_recordings([written(tmp_path, recorded())]))))
    assert metrics["pipelined_switching_missing_records"].value == 0
    assert metrics["sync_switching_missing_records"].value == 0


def test_lost_records_are_counted(tmp_path: Path) -> None:
    records = recorded()
    next(record for record in records if record["name"] == "P_k")["kernels"] -= 3
    metrics = metrics_of(grouped(list(read_recordings([written(tmp_path, records)]))))
    assert metrics["replay_missing_records"].value == 3


def test_what_a_run_keeps_can_be_read_again(tmp_path: Path) -> None:
    first = list(read_recordings([written(tmp_path, recorded())]))
    assert list(read_recordings([written(tmp_path, first)])) == first


def test_configurations_that_are_not_ours_are_left_out(tmp_path: Path) -> None:
    foreign = [{"name": "A_graph_trace", "skipped": 1}, {"name": "CD_late_load", "error": "cudaErrorLaunchFailure"}]
    assert list(read_recordings([written(tmp_path, foreign)])) == []


def test_a_failed_and_a_missing_configuration_are_named(tmp_path: Path) -> None:
    failed = [{**record, "error": "out of memory"} for record in recorded() if record["name"] == "P_k"]
    with pytest.raises(SystemExit, match="pipelined_kernels: out of memory"):
        grouped(list(read_recordings([written(tmp_path, failed)])))
    partial = [record for record in recorded() if record["name"] != "G_clock"]
    with pytest.raises(SystemExit, match="not measured: clock"):
        grouped(list(read_recordings([written(tmp_path, partial)])))
