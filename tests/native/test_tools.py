"""The programs in ``tools/`` that measure and check the extension."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_native_benchmark_runs_on_the_fakes(tmp_path: Path) -> None:
    command = [sys.executable, "tools/bench_native_core.py", "--dry-run", "--save-buffer", "--out", str(tmp_path)]
    subprocess.run([*command, "--records", "100000", "--sampler-seconds", "1.5"], check=True, cwd=ROOT)
    result = json.loads((tmp_path / "native-core.json").read_text())
    expected = {"decode_records_per_s_core", "bytes_per_record_memory", "bytes_per_kernel_disk", "sampler_core_share"}
    assert expected <= result["metrics"].keys()
    with gzip.open(tmp_path / "cupti-buffer.json.gz") as file:
        assert json.load(file)["names"][0] == "kernel_0"
