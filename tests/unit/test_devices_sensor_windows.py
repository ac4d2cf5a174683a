from __future__ import annotations

import pytest

from qmeter_native.devices.sensor_windows import counter_window


@pytest.mark.parametrize(
    ("name", "window_s"),
    [
        ("NVIDIA A100-SXM4-80GB", 0.025),
        ("NVIDIA H100 80GB HBM3", 0.025),
        ("NVIDIA H200", 0.027),
        ("NVIDIA GH200 480GB", 0.020),
        ("GA100", 0.025),
    ],
)
def test_the_counter_of_a_measured_part_looks_at_a_part_of_each_tick(name: str, window_s: float) -> None:
    assert counter_window(name) == (0.1, window_s, 0.0)


@pytest.mark.parametrize("name", ["NVIDIA RTX A1000", "NVIDIA L40S", "NVIDIA B200"])
def test_the_counter_of_a_part_that_nobody_measured_has_no_window(name: str) -> None:
    assert counter_window(name) is None
