from __future__ import annotations

import pytest

from qmeter_native.capture.cuda_ordinals import cuda_ordinals
from qmeter_native.model.manifest import DeviceInfo

GPUS = [DeviceInfo(index, "cuda", "GPU", uuid) for index, uuid in enumerate(["GPU-aa11", "GPU-bb22", "GPU-bb33"])]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("", []),
        ("0,1,2", [0, 1, 2]),
        ("2, 0", [2, 0]),
        ("GPU-bb22,GPU-aa", [1, 0]),
        ("1,7,0", [1]),
        ("GPU-bb,0", []),
        ("1,1", [1]),
        ("-1,0", []),
        ("MIG-GPU-bb22/1/0", [1]),
        ("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", []),
    ],
)
def test_visible_devices_are_numbered_as_cuda_does(visible: str, expected: list[int]) -> None:
    assert cuda_ordinals(GPUS, visible) == expected


def test_a_slice_of_the_only_gpu_is_on_that_gpu() -> None:
    assert cuda_ordinals(GPUS[:1], "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f") == [0]


def test_without_the_variable_cuda_sees_what_nvml_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cuda_ordinals(GPUS) == [0, 1, 2]
