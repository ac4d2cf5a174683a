"""The energy sampler on a fake NVML whose energy counter is the exact integral of its power."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import pytest

from qmeter_native import _native
from qmeter_native.model.energy_source import EnergySource
from tests.fakes.fake_nvml import NOT_SUPPORTED, FakeNvml, fake_uuid
from tests.native.energy_recording import Edge, EnergyRecording, wait_until

RecordEnergy = Callable[..., EnergyRecording]

FAST = {"power_period_ns": 10_000_000, "clock_period_ns": 10_000_000, "edge_period_ns": 50_000_000}
"""Periods that show in half a second what the default ones show in many."""

TICK_NS = 10_000_000


def ticks_in(fake: FakeNvml, edge: Edge, device: int = 0) -> Iterable[int]:
    """True ticks of the counter in the bracket of an edge."""
    low_ns, high_ns, _ = edge
    tick_ns = fake.tick_ns(device, high_ns)
    while tick_ns >= low_ns:
        yield tick_ns
        tick_ns = fake.tick_ns(device, tick_ns - 1)


def starts_that_explain(fake: FakeNvml, edge: Edge, device: int = 0) -> set[int]:
    """True energies at which the sampler's counting may have begun, by this edge."""
    return {fake.energy_uj(device, tick_ns) - edge[2] for tick_ns in ticks_in(fake, edge, device)}


@pytest.mark.parametrize(
    "load",
    [
        {"power_mw": 200_000},
        {"power_mw": 400_000, "wave_mw": 300_000, "wave_period_ns": 40_000_000},
        {"power_mw": 120_000, "wave_mw": 100_000, "wave_period_ns": 2 * TICK_NS, "tick_phase_ns": TICK_NS},
    ],
)
def test_each_edge_brackets_a_true_tick_and_energy_between_edges_is_true(
    fake_nvml: FakeNvml, record_energy: RecordEnergy, load: dict[str, int]
) -> None:
    fake_nvml.reset(tick_period_ns=TICK_NS, counter_cost_ns=1_000_000, **load)
    recording = record_energy(**FAST)
    recording.wait_for_edges(12)
    edges = recording.edges()
    explained = [starts_that_explain(fake_nvml, edge) for edge in edges]
    assert all(explained), "a bracket holds no tick"
    assert set.intersection(*explained), "no start explains all edges: energy was lost or made"
    assert all(later[0] >= earlier[0] for earlier, later in pairwise(edges))


def test_the_counter_is_read_around_its_ticks_only(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(tick_period_ns=2 * TICK_NS)
    recording = record_energy(**FAST | {"edge_period_ns": 400_000_000})
    recording.wait_for_edges(8)
    calls, start_s = fake_nvml.num_calls(0, "total_energy"), time.monotonic()
    time.sleep(0.8)
    calls = fake_nvml.num_calls(0, "total_energy") - calls
    reads_if_all_the_time = (time.monotonic() - start_s) / 0.0005
    assert calls < reads_if_all_the_time / 4
    assert recording.sampler.stats()["counter_calls"] >= calls


def test_a_counter_that_burns_cpu_time_is_read_less_often(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(tick_period_ns=2 * TICK_NS, counter_cost_ns=2_000_000, is_counter_busy=1)
    recording = record_energy(**FAST)
    recording.wait_for_edges(8)
    before = recording.sampler.stats()
    time.sleep(1.5)
    edges = recording.sampler.stats()["edges"] - before["edges"]
    assert edges < 1.5e9 / FAST["edge_period_ns"] / 2


def test_a_caller_may_pay_for_an_edge_at_every_second_tick(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(counter_cost_ns=3_200_000, is_counter_busy=1)  # as on an H200
    recording = record_energy(**FAST | {"edge_period_ns": 200_000_000, "counter_cpu_share": 1.0})
    recording.wait_for_edges(9)
    middles_ns = [(low_ns + high_ns) // 2 for low_ns, high_ns, _ in recording.edges()]
    gaps_ns = np.diff(middles_ns[3:-1])  # without those that taught the period, and the last, taken at the end
    assert len(gaps_ns) >= 5
    assert 190_000_000 < np.median(gaps_ns) < 310_000_000


def test_a_last_edge_is_taken_when_the_sampler_closes(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(tick_period_ns=TICK_NS)
    recording = record_energy(**FAST | {"edge_period_ns": 10_000_000_000})
    recording.wait_for_edges(6)
    time.sleep(0.1)
    closing_ns = time.time_ns()
    assert recording.edges()[-1][1] > closing_ns


def test_the_drivers_ring_is_recorded_without_gap_or_repetition(
    fake_nvml: FakeNvml, record_energy: RecordEnergy
) -> None:
    fake_nvml.reset(ring_period_ns=TICK_NS, power_mw=300_000, wave_mw=200_000, ring_size=200)
    start_ns = time.time_ns()
    recording = record_energy(**FAST)
    time.sleep(1.3)
    samples = recording.power(EnergySource.NVML_POWER_SAMPLES)
    times_ns = [time_ns for time_ns, _ in samples]
    assert len(samples) > 50
    assert {later - earlier for earlier, later in pairwise(times_ns)} == {TICK_NS}
    assert start_ns - TICK_NS <= times_ns[0]
    assert times_ns[-1] <= time.time_ns()
    assert {mw for _, mw in samples} == {500_000, 100_000}


@pytest.mark.parametrize(("clock", "tolerance_ns"), [(time.CLOCK_MONOTONIC, 2_000_000), (-1, 2 * TICK_NS)])
def test_ring_stamps_of_another_clock_are_converted(
    fake_nvml: FakeNvml, record_energy: RecordEnergy, clock: int, tolerance_ns: int
) -> None:
    fake_nvml.reset(ring_period_ns=TICK_NS, ring_clock=clock)
    recording = record_energy(**FAST)
    time.sleep(0.2)
    samples = recording.power(EnergySource.NVML_POWER_SAMPLES)
    assert len(samples) > 5
    late_ns = time.time_ns() - samples[-1][0]
    assert -tolerance_ns <= late_ns < 10_000_000_000
    phases = [(time_ns + TICK_NS // 2) % TICK_NS - TICK_NS // 2 for time_ns, _ in samples]
    assert clock == -1 or max(map(abs, phases)) < tolerance_ns


def test_a_value_that_does_not_change_is_recorded_once_a_second(
    fake_nvml: FakeNvml, record_energy: RecordEnergy
) -> None:
    recording = record_energy(**FAST)
    wait_until(lambda: fake_nvml.num_calls(0, "power_fields") > 50)
    elapsed_s = 2 + fake_nvml.num_calls(0, "power_fields") * 0.01
    assert [mw for _, mw in recording.power(EnergySource.NVML_POWER_INSTANT)][:1] == [200_000]
    assert len(recording.power(EnergySource.NVML_POWER_INSTANT)) <= elapsed_s + 1
    assert len(recording.clocks()) <= elapsed_s + 1


@pytest.mark.parametrize("value_type", [0, 1, 3])
def test_power_is_read_in_each_type_that_drivers_answer_with(
    fake_nvml: FakeNvml, record_energy: RecordEnergy, value_type: int
) -> None:
    fake_nvml.reset(value_type=value_type, power_mw=123_456, memory_power_mw=7_890)
    recording = record_energy(**FAST)
    wait_until(lambda: fake_nvml.num_calls(0, "power_fields") > 25)
    for source in (EnergySource.NVML_POWER_INSTANT, EnergySource.NVML_POWER_AVERAGE, EnergySource.NVML_POWER_SAMPLES):
        assert {mw for _, mw in recording.power(source)} == {123_456}, source
    assert {mw for _, mw in recording.power(EnergySource.NVML_POWER_MEMORY_AVERAGE)} == {7_890}


def test_clocks_are_recorded_when_they_change(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    recording = record_energy(**FAST)
    wait_until(lambda: recording.sampler.latest()[0]["sm_mhz"] == 1980)
    fake_nvml.set(0, sm_mhz=1575, temperature_c=71, throttle_reasons=4)
    wait_until(lambda: recording.sampler.latest()[0]["sm_mhz"] == 1575)
    time.sleep(0.05)
    clocks = recording.clocks()
    assert clocks.sm_mhz[0] == 1980
    assert (clocks.sm_mhz[-1], clocks.memory_mhz[-1], clocks.temperature_c[-1]) == (1575, 2619, 71)
    assert (clocks.throttle_reasons[0], clocks.throttle_reasons[-1]) == (1, 4)


def test_throttle_times_are_recorded_with_each_reading(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(power_cap_ns=5_000_000_000, power_brake_ns=7, software_thermal_ns=40, hardware_thermal_ns=2)
    recording = record_energy(**FAST)
    wait_until(lambda: fake_nvml.num_calls(0, "throttle") > 20)
    fake_nvml.set(0, power_cap_ns=9_000_000_000)
    calls = fake_nvml.num_calls(0, "throttle")
    wait_until(lambda: fake_nvml.num_calls(0, "throttle") > calls + 2)
    throttles = recording.throttles()
    assert (throttles.power_ns[0], throttles.power_ns[-1]) == (5_000_000_007, 9_000_000_007)
    assert set(throttles.thermal_ns) == {42}
    assert len(throttles) > 10
    assert (np.diff(throttles.time_ns) > 0).all()


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ({"newer_throttle_error": NOT_SUPPORTED}, (5, -1)),
        ({"newer_throttle_error": NOT_SUPPORTED, "violation_error": 0}, (5, 3)),
        ({"power_cap_error": NOT_SUPPORTED, "newer_throttle_error": NOT_SUPPORTED, "violation_error": 0}, (5, 3)),
    ],
)
def test_throttle_times_come_from_what_the_driver_has(
    fake_nvml: FakeNvml, record_energy: RecordEnergy, faults: dict[str, int], expected: tuple[int, int]
) -> None:
    fake_nvml.reset(power_cap_ns=5, software_thermal_ns=3, **faults)
    recording = record_energy(**FAST)
    wait_until(lambda: fake_nvml.num_calls(0, "throttle") > 7)
    throttles = recording.throttles()
    assert (throttles.power_ns[0], throttles.thermal_ns[0]) == expected


def test_a_driver_of_cuda_12_numbers_its_throttle_times_otherwise(
    fake_nvml: FakeNvml, record_energy: RecordEnergy
) -> None:
    fake_nvml.reset(power_cap_ns=5, power_brake_ns=100, software_thermal_ns=3, hardware_thermal_ns=100)
    fake_nvml.set_library("cuda_driver_version", 12090)
    recording = record_energy(**FAST)
    wait_until(lambda: fake_nvml.num_calls(0, "throttle") > 7)
    throttles = recording.throttles()
    assert (throttles.power_ns[0], throttles.thermal_ns[0]) == (5, 3)


def test_a_driver_without_throttle_times_leaves_no_rows(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(power_cap_error=NOT_SUPPORTED, newer_throttle_error=NOT_SUPPORTED)
    recording = record_energy(**FAST)
    wait_until(lambda: recording.sampler.latest()[0]["sm_mhz"] == 1980)
    (source,) = recording.sampler.sources()
    assert source["readings"]["throttle_times"] == {"ok": False, "reason": "Not Supported", "call_cost_ns": None}
    assert len(recording.throttles()) == 0


def test_throttle_times_that_cost_much_are_read_once_a_second(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(throttle_cost_ns=3_000_000)
    recording = record_energy(**FAST)
    wait_until(lambda: fake_nvml.num_calls(0, "clock") > 50)
    elapsed_s = 1 + fake_nvml.num_calls(0, "clock") * 0.01
    assert 1 <= len(recording.throttles()) <= elapsed_s


def test_both_clocks_of_the_host_are_recorded_as_pairs(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    recording = record_energy(**FAST)
    time.sleep(0.1)
    pairs = recording.clock_pairs()
    assert len(pairs) >= 2  # at the start and at the end
    offsets = pairs.realtime_ns - pairs.monotonic_ns
    assert np.ptp(offsets) < 100_000_000


def test_the_mean_power_since_a_mark_is_known(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(total_energy_error=NOT_SUPPORTED, power_samples_error=NOT_SUPPORTED, power_mw=100_000)
    sampler = record_energy(**FAST).sampler
    wait_until(lambda: sampler.idle_power_mw(0) == 100_000)
    fake_nvml.set(0, power_mw=150_000)
    wait_until(lambda: sampler.latest()[0]["power_mw"] == 150_000)
    sampler.mark_idle()
    wait_until(lambda: sampler.idle_power_mw(0) == 150_000)
    assert sampler.idle_power_mw(99) is None


def test_ring_samples_from_before_a_mark_are_not_in_its_mean(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    half_ns = 1_500_000_000  # 300 W, then 100 W
    fake_nvml.reset(total_energy_error=NOT_SUPPORTED, power_mw=200_000, wave_mw=100_000, wave_period_ns=2 * half_ns)
    recording = record_energy()
    wait_until(lambda: recording.sampler.latest()[0]["power_mw"] == 100_000)
    recording.sampler.mark_idle()
    time.sleep(0.1)
    recording.close()  # drains a ring whose samples are mostly from before the mark
    assert recording.sampler.idle_power_mw(0) == 100_000


def test_the_mean_power_comes_from_the_counter_if_there_is_one(
    fake_nvml: FakeNvml, record_energy: RecordEnergy
) -> None:
    fake_nvml.reset(tick_period_ns=TICK_NS, power_mw=250_000, power_instant_error=NOT_SUPPORTED)
    recording = record_energy(**FAST)
    recording.wait_for_edges(10)
    assert recording.sampler.idle_power_mw(0) == pytest.approx(250_000, rel=0.3)


def test_each_gpu_has_edges_of_its_own(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(3, tick_period_ns=2 * TICK_NS)
    for device in range(3):
        fake_nvml.set(device, power_mw=100_000 * (device + 1), tick_phase_ns=device * 7_000_000)
    recording = record_energy(**FAST)
    recording.wait_for_edges(30)
    for device in range(3):
        edges = recording.edges(device)
        assert len(edges) >= 2
        explained = [starts_that_explain(fake_nvml, edge, device) for edge in edges]
        assert set.intersection(*explained), f"GPU {device}"


def test_chosen_gpus_are_numbered_in_the_order_given(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(3)
    fake_nvml.set(2, power_mw=22_000)
    recording = record_energy(**FAST, nvml_devices=[2, 0])
    sources = recording.sampler.sources()
    assert [(source["index"], source["uuid"]) for source in sources] == [(0, fake_uuid(2)), (1, fake_uuid(0))]
    wait_until(lambda: recording.sampler.latest()[0]["power_mw"] == 22_000)


def test_sources_say_what_works_and_what_a_call_costs(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    fake_nvml.reset(counter_cost_ns=2_000_000)
    (source,) = record_energy().sampler.sources()
    assert (source["kind"], source["name"], source["driver"]) == ("cuda", "Fake GPU", "999.1")
    assert (source["energy"], source["reason"]) == ("nvml_total_energy", None)
    assert all(reading["ok"] and reading["reason"] is None for reading in source["readings"].values())
    assert source["readings"]["total_energy"]["call_cost_ns"] >= 2_000_000
    assert source["properties"]["compute_capability"] == "9.0"
    assert source["properties"]["power_limit_mw"] == 700_000
    assert source["properties"]["mig"] is False


def test_statistics_are_in_the_spool_too(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    recording = record_energy(**FAST)
    wait_until(lambda: recording.sampler.stats()["samples"] > 20)
    recorded = dict(recording.contents().stats["energy_sampler"])
    assert recorded.pop("name") == "energy_sampler"
    assert recorded == recording.sampler.stats()
    assert recorded["jitter_p50_ns"] <= recorded["jitter_p99_ns"] <= recorded["jitter_max_ns"]
    assert recorded["cpu_ns"] > 0


def test_a_sampler_without_a_spool_shows_live_readings(fake_nvml: FakeNvml) -> None:
    sampler = _native.EnergySampler(None, nvml_path=fake_nvml.path, use_rapl=False)
    wait_until(lambda: sampler.latest()[0]["power_mw"] == 200_000)
    sampler.close()
    sampler.close()
    assert sampler.latest()[0]["temperature_c"] == 35


def test_periods_under_a_millisecond_are_refused() -> None:
    with pytest.raises(_native.NativeFault) as caught:
        _native.EnergySampler(None, power_period_ns=1000)
    assert caught.value.args[1] == "invalid"


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_of_a_core_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(_native.NativeFault) as caught:
        _native.EnergySampler(None, counter_cpu_share=share)
    assert caught.value.args[1] == "invalid"


def test_a_forked_child_can_leave_without_its_parents_sampler(fake_nvml: FakeNvml, record_energy: RecordEnergy) -> None:
    sampler = record_energy(**FAST).sampler
    child = os.fork()
    if child == 0:
        sampler.close()
        os._exit(0 if sampler.latest() == [] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    wait_until(lambda: sampler.latest()[0]["power_mw"] == 200_000)


def test_probing_nvml_samples_nothing(fake_nvml: FakeNvml) -> None:
    fake_nvml.reset(2)
    report = _native.probe_nvml(fake_nvml.path)
    assert report["error"] is None
    assert report["path"] == fake_nvml.path
    assert (report["driver"], report["version"]) == ("999.1", "13.999.1")
    assert [(device["index"], device["uuid"], device["mig"]) for device in report["devices"]] == [
        (0, fake_uuid(0), False),
        (1, fake_uuid(1), False),
    ]
