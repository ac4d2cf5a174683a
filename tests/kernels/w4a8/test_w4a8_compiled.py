"""What the compiler makes of the loops over inputs on Hopper, seen without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "tests" / "kernels" / "weight_only" / "loop_table.py"


@pytest.fixture(scope="module")
def loops() -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, TABLE, "qmeter_native.kernels.w4a8.variants"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    rows: dict[str, Any] = json.loads(result.stdout)
    return rows


def test_decoded_weights_reach_the_tensor_cores_in_the_registers_they_are_decoded_in(loops: dict[str, Any]) -> None:
    for name, row in loops.items():
        assert row["wgmma"] == 8, name  # 256 inputs, 32 each
        assert row["convert_layout"] == 0, name
        assert row["through_shared"] == 0, name


def test_weights_and_what_belongs_to_groups_are_copied_ahead(loops: dict[str, Any]) -> None:
    for name, row in loops.items():
        assert row["copies_of_16_bytes"] >= 4, name
        assert row["waits_for_global"] == 0, name
