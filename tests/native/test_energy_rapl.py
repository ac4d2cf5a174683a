"""RAPL on a powercap tree of the test's own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from qmeter_native import _native
from qmeter_native.model.energy_source import EnergySource
from tests.native.energy_recording import EnergyRecording, wait_until

RANGE_UJ = 262_143_328_850
STEP_UJ = 50_000  # every 5 ms: 10 W
FAST = {"power_period_ns": 20_000_000, "use_nvml": False}


def write_counter(path: Path, energy_uj: int) -> None:
    """Write all digits at once, so that a reader never sees half a number."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.pwrite(file, f"{energy_uj:015d}\n".encode(), 0)
    os.close(file)


def make_zone(root: Path, zone: str, name: str, energy_uj: int = 0) -> Path:
    """A domain of a powercap tree; returns its counter's file."""
    folder = root / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    write_counter(folder / "energy_uj", energy_uj)
    return folder / "energy_uj"


@contextmanager
def working_package(counter: Path, start_uj: int) -> Iterator[list[tuple[int, int, int]]]:
    """Counts up from ``start_uj`` with wrap-around; yields ``(before_ns, after_ns, energy_uj)`` of each step."""
    steps: list[tuple[int, int, int]] = []
    stop = threading.Event()

    def count() -> None:
        energy_uj = start_uj
        while not stop.wait(0.005):
            energy_uj += STEP_UJ
            before_ns = time.time_ns()
            write_counter(counter, energy_uj % RANGE_UJ)
            steps.append((before_ns, time.time_ns(), energy_uj))

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield steps
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("steps_to_wrap", [10**6, 10])
def test_each_edge_brackets_a_step_and_a_wrap_loses_nothing(tmp_path: Path, steps_to_wrap: int) -> None:
    start_uj = max(0, RANGE_UJ - steps_to_wrap * STEP_UJ)
    counter = make_zone(tmp_path / "powercap", "intel-rapl:0", "package-0", start_uj)
    recording = EnergyRecording(tmp_path / "spool", FAST | {"powercap_root": str(tmp_path / "powercap")})
    with working_package(counter, start_uj) as steps:
        recording.wait_for_edges(15)
        recording.close()
    edges = recording.edges()
    step_of_energy = {energy_uj - start_uj: (before_ns, after_ns) for before_ns, after_ns, energy_uj in steps}
    for low_ns, high_ns, energy_uj in edges:
        before_ns, after_ns = step_of_energy[energy_uj]
        assert low_ns <= after_ns
        assert before_ns <= high_ns
    assert all(later[2] > earlier[2] for earlier, later in pairwise(edges))
    assert recording.sampler.stats()["counter_resets"] == 0


def test_packages_are_devices_and_their_parts_are_not(tmp_path: Path) -> None:
    make_zone(tmp_path, "intel-rapl:1", "package-1")
    make_zone(tmp_path, "intel-rapl:0", "package-0")
    make_zone(tmp_path, "intel-rapl:0:0", "core")
    make_zone(tmp_path, "intel-rapl:2", "psys")
    make_zone(tmp_path, "dtpm", "package-9")
    sampler = _native.EnergySampler(None, use_nvml=False, powercap_root=str(tmp_path))
    sources = sampler.sources()
    sampler.close()
    assert [(source["index"], source["properties"]["domain"]) for source in sources] == [
        (0, "package-0"),
        (1, "package-1"),
    ]
    assert {(source["kind"], source["energy"], source["reason"]) for source in sources} == {("cpu", "rapl", None)}
    assert len({source["uuid"] for source in sources}) == 2


def test_live_power_and_mean_power_come_from_the_steps(tmp_path: Path) -> None:
    counter = make_zone(tmp_path / "powercap", "intel-rapl:0", "package-0")
    recording = EnergyRecording(tmp_path / "spool", FAST | {"powercap_root": str(tmp_path / "powercap")})
    with working_package(counter, 0) as steps:
        recording.wait_for_edges(20)
        recording.close()
    seconds = (steps[-1][0] - steps[0][0]) / 1e9
    true_mw = (steps[-1][2] - steps[0][2]) / 1000 / seconds
    assert recording.sampler.idle_power_mw(0) == pytest.approx(true_mw, rel=0.5)
    latest = recording.sampler.latest()[0]
    assert latest["power_mw"] > 0
    assert latest["energy_uj"] == recording.edges()[-1][2]
    assert recording.power(EnergySource.NVML_POWER_INSTANT) == []


def test_a_counter_that_is_no_number_is_absent_with_the_reason(tmp_path: Path) -> None:
    make_zone(tmp_path, "intel-rapl:0", "package-0").write_text("\n")
    sampler = _native.EnergySampler(None, use_nvml=False, powercap_root=str(tmp_path))
    (cpu,) = sampler.sources()
    sampler.close()
    assert cpu["energy"] is None
    assert "holds no number" in cpu["reason"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_counter_is_absent_and_says_what_to_do(tmp_path: Path) -> None:
    make_zone(tmp_path, "intel-rapl:0", "package-0").chmod(0)
    sampler = _native.EnergySampler(None, use_nvml=False, powercap_root=str(tmp_path))
    (cpu,) = sampler.sources()
    sampler.close()
    assert cpu["energy"] is None
    assert "Permission denied" in cpu["reason"]
    assert "run as root" in cpu["reason"]


def test_a_counter_that_vanishes_is_counted_as_an_error(tmp_path: Path) -> None:
    counter = make_zone(tmp_path / "powercap", "intel-rapl:0", "package-0")
    recording = EnergyRecording(tmp_path / "spool", FAST | {"powercap_root": str(tmp_path / "powercap")})
    os.truncate(counter, 0)
    wait_until(lambda: f"{counter} cannot be read" in recording.sampler.stats()["errors"])
    recording.close()
    assert recording.edges() == []
