"""Fixtures of the extension's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qmeter_native import _native
from tests.fakes.build import build_fake
from tests.fakes.fake_cupti import FakeCupti
from tests.fakes.fake_nvml import FakeNvml
from tests.native.energy_recording import EnergyRecording


@pytest.fixture
def new_spool(tmp_path: Path) -> Callable[..., _native.Spool]:
    """Makes a spool at ``tmp_path / "spool"``; options are those of the constructor."""

    def make(**options: int) -> _native.Spool:
        return _native.Spool(str(tmp_path / "spool"), identity='{"format": "qmeter-spool", "version": 1}', **options)

    return make


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


@pytest.fixture
def record_energy(tmp_path: Path, loaded_fake_nvml: FakeNvml) -> Iterator[Callable[..., EnergyRecording]]:
    """Starts a sampler on the fake NVML and a spool; options are those of `EnergySampler`."""
    recordings: list[EnergyRecording] = []

    def start(**options: Any) -> EnergyRecording:
        path = tmp_path / f"energy-{len(recordings)}"
        recordings.append(EnergyRecording(path, {"nvml_path": loaded_fake_nvml.path, "use_rapl": False} | options))
        return recordings[-1]

    yield start
    for recording in recordings:
        recording.close()
