"""``tools/bench_pm_perturbation.py`` from beginning to end, on the fake NVML and stand-ins for PM sampling and load."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from qmeter_native import _native
from qmeter_native.capture.session import SessionOptions
from tests.fakes.fake_nvml import FakeNvml
from tools import bench_pm_perturbation as bench
from tools import pm_power


class Load:
    """Nothing, at 1000 replays a second."""

    num_replays = 0

    def run(self, seconds: float) -> float:
        time.sleep(seconds)
        self.num_replays += round(1000 * seconds)
        return seconds


class PmSampler:
    """A sampler that takes no samples."""

    def __init__(self, spool: Any, *, metrics: list[Any], **_: Any) -> None:
        self._num_metrics = len(metrics)

    def info(self) -> dict[str, Any]:
        return {"num_metrics": self._num_metrics}

    def stats(self) -> dict[str, Any]:
        counts = ("overflows", "decode_failures", "evaluate_failures", "lost_samples")
        return {"samples": 10, "decode_ns": 100, "evaluate_ns": 50, **dict.fromkeys(counts, 0)}

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


def test_all_experiments_run_and_can_be_analysed_again(
    fake_nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.reset(is_h200=1)
    monkeypatch.setattr(_native, "PmSampler", PmSampler, raising=False)
    monkeypatch.setattr(bench, "SessionOptions", partial(SessionOptions, nvml_path=fake_nvml.path))
    monkeypatch.setattr(bench, "paced_load", Load)
    monkeypatch.setattr(bench, "edge_load", Load)
    monkeypatch.setattr(bench, "_small_kernels", Load)
    monkeypatch.setattr(bench, "SETTLE_S", 0.01)
    monkeypatch.setattr(bench, "ALIGNED_US", (50,))
    monkeypatch.setattr(pm_power, "_SETTLE_S", 0.05)
    words = ["--captures", str(tmp_path), "--out", str(tmp_path / "result.json"), "--cycles", "1"]
    words += ["--seconds", "0.25", "--phase", "0.05", "--outside", "0.05"]
    for extra in ([], ["--analyse"]):
        monkeypatch.setattr(sys, "argv", ["bench", *words, *extra])
        bench.main()
        metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
        assert metrics["idle_enabled_extra_w"]["n"] == 1
        assert metrics["decode_2_metrics_s"]["value"] == pytest.approx(15e-9)
        assert metrics["failures_50us"]["value"] == 0
        assert abs(metrics["phase_cost_outside"]["value"]) < 0.1
