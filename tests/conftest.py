"""The fakes of NVIDIA's libraries, built when the first test asks for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.build import build_fake
from tests.fakes.fake_cupti import FakeCupti
from tests.fakes.fake_nvml import FakeNvml

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the runner's workers share the cores already
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported


@pytest.fixture(scope="session")
def fake_cupti_path() -> Path:
    return build_fake("fake_cupti.cpp", "libcupti.so.13")


@pytest.fixture(scope="session")
def loaded_fake_cupti(fake_cupti_path: Path) -> FakeCupti:
    return FakeCupti(fake_cupti_path)


@pytest.fixture
def fake_cupti(loaded_fake_cupti: FakeCupti) -> Iterator[FakeCupti]:
    loaded_fake_cupti.reset()
    yield loaded_fake_cupti
    loaded_fake_cupti.reset()


@pytest.fixture(scope="session")
def loaded_fake_nvml() -> FakeNvml:
    return FakeNvml(build_fake("fake_nvml.cpp", "libnvidia-ml.so.1"))


@pytest.fixture
def fake_nvml(loaded_fake_nvml: FakeNvml) -> FakeNvml:
    loaded_fake_nvml.reset()
    return loaded_fake_nvml
