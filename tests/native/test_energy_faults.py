"""What the energy sampler does when devices, drivers and permissions are not as one would like."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from qmeter_native import _native
from qmeter_native.model.energy_source import EnergySource
from tests.fakes.fake_nvml import GPU_IS_LOST, NO_PERMISSION, NOT_SUPPORTED, FakeNvml
from tests.native.energy_recording import EnergyRecording, wait_until

RecordEnergy = Callable[..., EnergyRecording]

FAST = {"power_period_ns": 10_000_000, "clock_period_ns": 10_000_000, "edge_period_ns": 50_000_000}
TICK_NS = 10_000_000
MJ_PER_TICK = 2000  # 200 W
UNKNOWN_ERROR = 999


def test_a_counter_that_wraps_at_32_bits_loses_nothing(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(tick_period_ns=TICK_NS, wrap_mj=2**32, start_mj=2**32 - 20 * MJ_PER_TICK)
    start_ns = time.time_ns()
    recording = record_energy(**FAST)
    recording.wait_for_edges(12)
    first, last = recording.edges()[0], recording.edges()[-1]
    assert recording.sampler.stats()["counter_resets"] == 1
    true_uj = fake_nvml.energy_uj(0, last[1]) - fake_nvml.energy_uj(0, start_ns)
    ticks_of_doubt = 2 + (last[1] - last[0]) / TICK_NS
    assert last[2] == pytest.approx(true_uj, abs=ticks_of_doubt * MJ_PER_TICK * 1000)
    assert 0 <= first[2] < last[2]


def test_a_counter_that_is_reset_never_makes_energy(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(tick_period_ns=TICK_NS)
    start_ns = time.time_ns()
    fake_nvml.set(0, reset_at_ns=start_ns + 300_000_000)
    recording = record_energy(**FAST)
    wait_until(lambda: recording.sampler.stats()["counter_resets"] == 1)
    recording.wait_for_edges(recording.sampler.stats()["edges"] + 4)
    edges = recording.edges()
    assert all(later[2] >= earlier[2] for earlier, later in pairwise(edges))
    true_uj = fake_nvml.energy_uj(0, edges[-1][1]) - fake_nvml.energy_uj(0, start_ns)
    assert true_uj / 2 < edges[-1][2] <= true_uj + MJ_PER_TICK * 1000


def test_a_lost_gpu_stops_and_the_others_go_on(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(2, tick_period_ns=TICK_NS)
    lost_ns = time.time_ns() + 300_000_000
    fake_nvml.set(0, lost_at_ns=lost_ns)
    recording = record_energy(**FAST)
    wait_until(lambda: recording.sampler.stats()["devices_lost"] == [0])
    time.sleep(0.1)
    calls = [fake_nvml.num_calls(device, "power_fields") for device in (0, 1)]
    recording.wait_for_edges(recording.sampler.stats()["edges"] + 4)
    assert fake_nvml.num_calls(0, "power_fields") == calls[0]
    assert fake_nvml.num_calls(1, "power_fields") > calls[1]
    assert any(text.startswith("GPU 0: ") and "lost" in text for text in recording.sampler.stats()["errors"])
    assert max(high_ns for _, high_ns, _ in recording.edges(0)) < lost_ns + TICK_NS * 5
    assert max(high_ns for _, high_ns, _ in recording.edges(1)) > lost_ns


def test_a_gpu_that_is_lost_before_the_start_is_absent(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(2)
    fake_nvml.set(0, lost_at_ns=1)
    lost, sound = record_energy(**FAST).sampler.sources()
    assert lost["energy"] is None
    assert "GPU is lost" in lost["reason"]
    assert sound["energy"] == "nvml_total_energy"


def test_a_forbidden_counter_is_absent_with_the_reason(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(total_energy_error=NO_PERMISSION)
    recording = record_energy(**FAST)
    (source,) = recording.sampler.sources()
    assert source["energy"] == "nvml_power_samples"
    assert "Insufficient Permissions" in source["reason"]
    assert source["readings"]["total_energy"] == {
        "ok": False,
        "reason": "Insufficient Permissions",
        "call_cost_ns": None,
    }
    time.sleep(0.1)
    assert recording.edges() == []
    assert recording.power(EnergySource.NVML_POWER_SAMPLES)


def test_under_mig_the_missing_counter_is_explained(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(is_mig=1, total_energy_error=NOT_SUPPORTED, power_samples_error=NOT_SUPPORTED)
    (source,) = record_energy(**FAST).sampler.sources()
    assert source["energy"] is None
    assert "MIG" in source["reason"]
    assert source["properties"]["mig"] is True


def test_a_counter_that_reads_zero_is_absent(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(is_counter_zero=1)
    (source,) = record_energy(**FAST).sampler.sources()
    assert source["energy"] == "nvml_power_samples"
    assert "reads 0" in source["reason"]


def test_a_slow_call_is_counted_as_missed_samples(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    recording = record_energy(**FAST)
    wait_until(lambda: recording.sampler.stats()["samples"] > 10)
    before = recording.sampler.stats()
    fake_nvml.set(0, slow_call_ns=120_000_000)
    wait_until(lambda: recording.sampler.stats()["missed_samples"] >= before["missed_samples"] + 10)
    samples = recording.sampler.stats()["samples"]
    wait_until(lambda: recording.sampler.stats()["samples"] > samples + 10)


def test_a_call_that_fails_now_and_then_is_counted_and_tried_again(
    fake_nvml: FakeNvml, record_energy: RecordEnergy
) -> None:
    fake_nvml.reset(tick_period_ns=TICK_NS)
    recording = record_energy(**FAST)
    recording.wait_for_edges(4)
    fake_nvml.set(0, total_energy_error=UNKNOWN_ERROR, power_fields_error=UNKNOWN_ERROR)
    errors = {
        f"GPU 0: {call}: Unknown Error" for call in ("nvmlDeviceGetFieldValues", "nvmlDeviceGetTotalEnergyConsumption")
    }
    wait_until(lambda: errors <= recording.sampler.stats()["errors"].keys())
    fake_nvml.set(0, total_energy_error=0, power_fields_error=0)
    recording.wait_for_edges(recording.sampler.stats()["edges"] + 4)
    assert recording.sampler.stats()["devices_lost"] == []


@pytest.mark.parametrize(
    ("compute_major", "source"), [(7, EnergySource.NVML_POWER_INSTANT), (9, EnergySource.NVML_POWER_AVERAGE)]
)
def test_without_power_fields_power_usage_is_read_for_what_it_is(
    fake_nvml: FakeNvml, record_energy: RecordEnergy, compute_major: int, source: EnergySource
) -> None:
    fake_nvml.reset(power_fields_error=NOT_SUPPORTED, compute_major=compute_major)
    recording = record_energy(**FAST)
    wait_until(lambda: recording.sampler.latest()[0]["power_mw"] == 200_000)
    assert recording.power(source)


def test_unreadable_clocks_are_missing_and_not_zero(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(clock_error=NOT_SUPPORTED)
    recording = record_energy(**FAST)
    wait_until(lambda: recording.sampler.latest()[0]["temperature_c"] == 35)
    assert recording.sampler.latest()[0]["sm_mhz"] is None
    assert set(recording.clocks().sm_mhz) == {-1}


def test_closing_does_not_wait_for_a_counter_that_stands_still(
    fake_nvml: FakeNvml, record_energy: RecordEnergy
) -> None:
    fake_nvml.reset(tick_period_ns=3_600_000_000_000, power_mw=1)
    recording = record_energy(**FAST)
    wait_until(lambda: fake_nvml.num_calls(0, "total_energy") > 10)
    start_s = time.monotonic()
    recording.sampler.close()
    assert time.monotonic() - start_s < 5
    assert recording.edges() == []


def test_without_nvml_the_cpu_says_why(tmp_path: Path) -> None:
    missing = str(tmp_path / "libnvidia-ml.so.1")
    sampler = _native.EnergySampler(None, nvml_path=missing, powercap_root=str(tmp_path))
    (cpu,) = sampler.sources()
    sampler.close()
    assert (cpu["index"], cpu["kind"], cpu["energy"]) == (0, "cpu", None)
    assert "no RAPL package domain" in cpu["reason"]
    assert missing in cpu["properties"]["nvml_absent_reason"]
    report = _native.probe_nvml(missing)
    assert (report["path"], report["devices"]) == (None, [])
    assert missing in report["error"]


@pytest.mark.parametrize(
    ("key", "code", "text"),
    [
        ("init_error", NO_PERMISSION, "nvmlInit: Insufficient Permissions"),
        ("count_error", GPU_IS_LOST, "lists no GPU: GPU is lost"),
    ],
)
def test_an_nvml_that_does_not_start_is_reported(fake_nvml: FakeNvml, key: str, code: int, text: str) -> None:
    fake_nvml.set_library(key, code)
    report = _native.probe_nvml(fake_nvml.path)
    assert text in report["error"]
    sampler = _native.EnergySampler(None, nvml_path=fake_nvml.path, use_rapl=False)
    (cpu,) = sampler.sources()
    sampler.close()
    assert cpu["reason"] == "RAPL is switched off"
    assert text in cpu["properties"]["nvml_absent_reason"]


def test_a_gpu_that_does_not_exist_is_listed_with_the_reason(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    missing, sound = record_energy(nvml_devices=[5, 0]).sampler.sources()
    assert missing["reason"] == "NVML does not give GPU 5: Invalid Argument"
    assert sound["energy"] == "nvml_total_energy"
