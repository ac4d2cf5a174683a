"""What the compiler makes of the products' loops over inputs on Hopper, seen without a GPU."""

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
MAIN = "weight-only-uint4-g128-m16"


@pytest.fixture(scope="module")
def loops() -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("loop_table.py"), "qmeter_native.kernels.weight_only.variants"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    rows: dict[str, Any] = json.loads(result.stdout)
    return rows


def test_four_bit_weights_reach_the_tensor_cores_without_a_conversion_of_layouts(loops: dict[str, Any]) -> None:
    assert loops[MAIN]["wgmma"] == 8  # 128 inputs, 16 each
    assert loops[MAIN]["convert_layout"] == 0


def test_decoded_weights_of_no_format_go_through_shared_memory_or_other_threads(loops: dict[str, Any]) -> None:
    for name, row in loops.items():
        assert row["wgmma"] >= 8, name
        assert row["through_shared"] == 0, name


def test_weights_and_activations_are_copied_16_bytes_at_a_time_and_ahead(loops: dict[str, Any]) -> None:
    for name, row in loops.items():
        assert row["copies_of_16_bytes"] >= 2, name
        # Scales of a sum are read one tile ahead; nothing else is read from global memory when it is needed.
        assert row["waits_for_global"] <= 2, name


def test_two_tiles_of_an_iteration_share_their_bookkeeping(loops: dict[str, Any]) -> None:
    assert loops[f"{MAIN}-unrolled"]["wgmma"] == 16
