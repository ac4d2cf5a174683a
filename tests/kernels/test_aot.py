"""Every kernel compiles for Ampere, Hopper and Blackwell, and fits: no registers spill, shared memory suffices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
SHARED_BYTES = {"8.0": 163 << 10, "9.0": 227 << 10, "10.0": 227 << 10}
"""What a block may have (CUDA C++ Programming Guide, table of technical specifications)."""

MODULES: tuple[str, ...] = (
    "qmeter_native.kernels.activation.quantize",
    "qmeter_native.kernels.activation.rms_norm",
    "qmeter_native.kernels.paged_attention.decode",
    "qmeter_native.kernels.paged_attention.write",
    "qmeter_native.kernels.scaled.variants",
    "qmeter_native.kernels.w4a8.variants",
    "qmeter_native.kernels.weight_only.variants",
)
"""Modules with ``aot_variants()``."""


@pytest.mark.parametrize("capability", SHARED_BYTES)
@pytest.mark.parametrize("module", MODULES)
def test_kernels_compile_and_fit(module: str, capability: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("aot_table.py"), module, capability],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    rows = json.loads(result.stdout)
    assert rows, f"{module} lists no variants for {capability}"
    for name, row in rows.items():
        assert row["spill_bytes"] == 0, f"{name} spills {row['spill_bytes']} bytes of a thread on {capability}"
        assert row["shared_bytes"] <= SHARED_BYTES[capability], f"{name} needs {row['shared_bytes']} bytes"
        assert row["registers"] * 32 * row["num_warps"] <= 65536, name
