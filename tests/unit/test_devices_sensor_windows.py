from __future__ import annotations

import pytest

from qmeter_native.devices.sensor_windows import counter_window


def test_the_counter_of_an_h200_adds_up_five_looks_a_tick() -> None:
    assert counter_window("NVIDIA H200") == (0.1, 0.02, 0.016, -0.001)


@pytest.mark.parametrize("name", ["NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3", "NVIDIA GH200 480GB"])
def test_the_counter_of_a_part_that_nobody_measured_has_no_window(name: str) -> None:
    assert counter_window(name) is None
