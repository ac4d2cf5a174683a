"""Fixtures of the extension's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qmeter_native import _native
from tests.fakes.fake_nvml import FakeNvml
from tests.native.energy_recording import EnergyRecording


@pytest.fixture
def new_spool(tmp_path: Path) -> Callable[..., _native.Spool]:
    """Makes a spool at ``tmp_path / "spool"``; options are those of the constructor."""

    def make(**options: int) -> _native.Spool:
        return _native.Spool(str(tmp_path / "spool"), identity='{"format": "qmeter-spool", "version": 1}', **options)

    return make


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
