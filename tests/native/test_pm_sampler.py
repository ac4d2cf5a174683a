"""PM sampling on a fake libcupti and a fake libcuda."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qmeter_native import _native
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.tables import CounterTable, CounterWindowTable
from qmeter_native.storage.spool import SpoolContents, read_spool
from tests.fakes.build import build_fake
from tests.fakes.fake_cupti import FakeCupti
from tests.native.energy_recording import wait_until

UUID = "GPU-fa4e0000-0000-0000-0000-000000000000"
READ, WRITE = int(CounterQuantity.DRAM_READ_BYTES), int(CounterQuantity.DRAM_WRITE_BYTES)
METRICS = [(READ, "read.sum", 1.0), (WRITE, "write.avg", 132.0)]
HARDWARE_BUSY, INVALID_OPERATION, PRIVILEGES, NOT_SUPPORTED, UNKNOWN = 26, 7, 35, 27, 999
INTERVAL_NS = 400_000
"""The fake's 100 samples then last 40 ms: a busy machine that stops later would find a tail missing."""


class Recording:
    """A sampler and its spool."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self.path = path
        self.spool = _native.Spool(str(path), identity="{}")
        self.sampler = _native.PmSampler(self.spool, **options)

    def burst(self) -> None:
        self.sampler.start()
        self.sampler.stop()

    def read(self) -> SpoolContents:
        self.sampler.close()
        self.spool.close()
        return read_spool(self.path)

    def counters(self) -> CounterTable:
        table = self.read().tables[CounterTable.NAME]
        assert isinstance(table, CounterTable)
        return table


@pytest.fixture
def options(fake_cupti: FakeCupti) -> dict[str, Any]:
    cuda = build_fake("fake_cuda.cpp", "libcuda.so.1")
    return {
        "device": 3,
        "uuid": UUID,
        "metrics": METRICS,
        "cupti_path": fake_cupti.path,
        "cuda_path": str(cuda),
        "interval_ns": INTERVAL_NS,
        "image_samples": 100_000,  # bursts of 4 s: a busy machine ends none before its time
    }


@pytest.fixture
def record(tmp_path: Path, options: dict[str, Any]) -> Iterator[Callable[..., Recording]]:
    recordings: list[Recording] = []

    def start(**changes: Any) -> Recording:
        recordings.append(Recording(tmp_path / f"spool-{len(recordings)}", options | changes))
        return recordings[-1]

    yield start
    for recording in recordings:
        recording.sampler.close()


def refusal(options: dict[str, Any], **changes: Any) -> tuple[str, str]:
    with pytest.raises(_native.NativeFault) as raised:
        _native.PmSampler(None, **(options | changes))
    message, code = raised.value.args
    return message, code


def test_each_sample_is_a_record_of_each_quantity(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    recording = record()
    recording.burst()
    table = recording.counters()
    assert set(table.device) == {3}
    reads, writes = table.quantity == READ, table.quantity == WRITE
    assert table.value[reads].tolist() == list(range(1, 100))
    assert table.value[writes].tolist() == [132.0 * (1000 + n) for n in range(1, 100)]
    np.testing.assert_array_equal(table.end_ns - table.start_ns, INTERVAL_NS)
    stats = recording.sampler.stats()
    assert (stats["samples"], stats["dropped_first"], stats["lost_samples"]) == (99, 1, 0)
    assert (stats["overflows"], stats["decode_failures"], stats["evaluate_failures"]) == (0, 0, 0)
    assert stats["error"] is None
    assert fake_cupti.get("pm_lost_configs") == 0


def test_the_session_says_what_it_is(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    info = record().sampler.info()
    assert (info["chip"], info["trigger"], info["interval_ns"]) == ("GH100", "gpu_time", INTERVAL_NS)
    assert info["interval_cycles"] is None
    assert (info["num_metrics"], info["num_sms"], info["config_bytes"]) == (2, 132, 64)
    assert (info["path"], info["version"]) == (fake_cupti.path, 130001)
    assert info["image_bytes"] > 64


def test_the_window_holds_the_whole_session(record: Callable[..., Recording]) -> None:
    recording = record()
    for _ in range(3):
        recording.burst()
    contents = recording.read()
    window = contents.tables[CounterWindowTable.NAME]
    assert isinstance(window, CounterWindowTable)
    assert len(window.device) == 1
    times = [window.enable_ns[0], window.start_ns[0], window.stop_ns[0], window.disable_ns[0]]
    assert times == sorted(times)
    assert (window.num_samples[0], window.num_lost[0], window.interval_ns[0]) == (3 * 99, 0, INTERVAL_NS)
    assert contents.stats["pm_sampler_3"]["dropped_first"] == 3


def test_a_session_never_started_has_an_empty_window(record: Callable[..., Recording]) -> None:
    contents = record().read()
    window = contents.tables[CounterWindowTable.NAME]
    assert isinstance(window, CounterWindowTable)
    assert (window.start_ns[0], window.stop_ns[0], window.num_samples[0]) == (
        window.enable_ns[0],
        window.enable_ns[0],
        0,
    )


def test_the_old_stamp_of_a_first_sample_is_dropped(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_old_first", 1)
    recording = record()
    recording.burst()
    recording.burst()
    table = recording.counters()
    assert table.start_ns.min() > 1
    assert recording.sampler.stats()["lost_samples"] == 0


def test_an_image_is_emptied_after_each_decode_that_filled_it(
    record: Callable[..., Recording], fake_cupti: FakeCupti
) -> None:
    recording = record()
    for _ in range(5):
        recording.burst()
    assert (recording.sampler.stats()["samples"], fake_cupti.get("pm_initialized_images")) == (5 * 99, 1 + 5)
    assert fake_cupti.get("pm_repeats") == 0


def test_what_does_not_fit_into_an_image_is_counted(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_samples", 300)
    recording = record(interval_ns=1_000_000)  # continuous: the image holds 256
    recording.burst()
    stats = recording.sampler.stats()
    assert (stats["samples"], stats["full_images"], stats["bursts"]) == (255, 1, 1)


def test_a_burst_that_cannot_be_decoded_is_lost(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_is_live", 1)
    fake_cupti.set("pm_decode_result", UNKNOWN)
    recording = record(interval_ns=10_000)
    recording.sampler.start()
    time.sleep(0.05)
    recording.sampler.stop()
    stats = recording.sampler.stats()
    assert stats["samples"] == 0
    assert stats["lost_samples"] >= 5000


@pytest.mark.parametrize(
    ("interval_ns", "num_metrics", "seconds", "mode"),
    [(50_000, 11, 3.0, "bursts"), (20_000, 4, 1.0, "bursts"), (1_000_000, 11, 1.0, "continuous")],
)
def test_no_sample_of_a_burst_is_lost(
    record: Callable[..., Recording],
    fake_cupti: FakeCupti,
    interval_ns: int,
    num_metrics: int,
    seconds: float,
    mode: str,
) -> None:
    fake_cupti.set("pm_is_live", 1)
    metrics = [(quantity, f"metric{quantity}.sum", 1.0) for quantity in range(num_metrics)]
    recording = record(interval_ns=interval_ns, metrics=metrics, image_samples=16_384)
    recording.sampler.start()
    time.sleep(seconds)
    recording.sampler.stop()
    stats = recording.sampler.stats()
    assert (recording.sampler.info()["mode"], stats["error"]) == (mode, None)
    assert (stats["lost_samples"], stats["full_images"], stats["dropped_long"], stats["decode_failures"]) == (0,) * 4
    assert stats["bursts"] == stats["dropped_first"] == fake_cupti.get("pm_starts")
    table = recording.counters()
    one = table.quantity == 0
    assert stats["sampled_ns"] == (table.end_ns - table.start_ns)[one].sum() == stats["samples"] * interval_ns
    holes = np.flatnonzero(table.start_ns[one][1:] != table.end_ns[one][:-1])
    assert len(holes) == stats["bursts"] - 1
    numbers = table.value[one]
    np.testing.assert_array_equal(np.flatnonzero(np.diff(numbers) != 1), holes)
    assert set(np.diff(numbers)) <= {1, 2}  # the first of each burst is dropped, and nothing else
    assert numbers[-1] == fake_cupti.get("pm_sampled") - 1


def test_holes_between_bursts_are_no_losses(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_is_live", 1)
    recording = record()
    for _ in range(3):
        recording.sampler.start()
        time.sleep(0.02)
        recording.sampler.stop()
        time.sleep(0.02)
    stats = recording.sampler.stats()
    assert (stats["bursts"], stats["lost_samples"]) == (3, 0)


def test_a_full_image_ends_continuous_sampling(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_samples", 300)
    recording = record(interval_ns=1_000_000)
    assert recording.sampler.info()["mode"] == "continuous"
    recording.sampler.start()
    wait_until(lambda: recording.sampler.info()["mode"] == "bursts")
    recording.sampler.stop()
    assert recording.sampler.stats()["full_images"] >= 1


@pytest.mark.parametrize(
    ("change", "mode"),
    [
        ({"interval_ns": 1_000_000}, "continuous"),
        ({"interval_ns": 50_000}, "bursts"),
        ({"interval_ns": 1_000_000, "decode_budget": 0.001}, "bursts"),
        ({"interval_ns": 10_000_000, "decode_budget": 0.01}, "continuous"),
    ],
)
def test_the_mode_follows_from_interval_and_cost(
    record: Callable[..., Recording], change: dict[str, Any], mode: str
) -> None:
    assert record(**change).sampler.info()["mode"] == mode


def test_a_long_sample_after_a_start_is_dropped(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_old_first", 2)
    recording = record()
    recording.burst()
    stats = recording.sampler.stats()
    assert (stats["samples"], stats["dropped_first"], stats["dropped_long"], stats["lost_samples"]) == (98, 1, 1, 1)


def test_what_is_left_of_the_burst_before_is_dropped(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_stale", 3)
    recording = record()
    recording.burst()
    stats = recording.sampler.stats()
    assert (stats["samples"], stats["dropped_first"], stats["lost_samples"]) == (96, 4, 0)


def test_a_hole_in_the_stamps_counts_as_lost_samples(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_hole", 17)
    recording = record()
    recording.burst()
    assert recording.sampler.stats()["lost_samples"] == 17


def test_a_hole_after_the_first_sample_counts_as_lost_samples(
    record: Callable[..., Recording], fake_cupti: FakeCupti
) -> None:
    fake_cupti.set("pm_samples", 2)
    fake_cupti.set("pm_hole", 100)
    recording = record()
    recording.burst()
    stats = recording.sampler.stats()
    assert (stats["samples"], stats["dropped_first"], stats["lost_samples"]) == (1, 1, 100)


def test_an_overflow_is_counted_once_a_burst(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_overflow", 1)
    recording = record()
    recording.burst()
    recording.burst()
    stats = recording.sampler.stats()
    assert (stats["overflows"], stats["samples"], stats["decode_failures"]) == (2, 2 * 99, 0)


def test_a_refused_decode_is_counted_and_the_session_lives_on(
    record: Callable[..., Recording], fake_cupti: FakeCupti
) -> None:
    recording = record()
    fake_cupti.set("pm_decode_result", UNKNOWN)
    recording.burst()
    stats = recording.sampler.stats()
    assert stats["samples"] == 0
    assert stats["decode_failures"] > 0
    assert "cuptiPmSamplingDecodeData" in stats["error"]
    fake_cupti.set("pm_decode_result", 0)
    recording.burst()
    assert recording.sampler.stats()["samples"] == 99


def test_refused_evaluations_are_counted_and_record_nothing(
    record: Callable[..., Recording], fake_cupti: FakeCupti
) -> None:
    fake_cupti.set("pm_evaluate_result", UNKNOWN)
    recording = record()
    recording.burst()
    stats = recording.sampler.stats()
    assert (stats["samples"], stats["evaluate_failures"]) == (0, 99)
    assert "cuptiProfilerHostEvaluateToGpuValues" in stats["error"]


def test_a_value_that_is_no_number_is_missing(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_nan_metric", 0)
    recording = record()
    recording.burst()
    assert set(recording.counters().quantity) == {WRITE}
    assert recording.sampler.stats()["evaluate_failures"] == 99


def test_sampling_stops_by_itself(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    recording = record(max_samples=30)
    recording.sampler.start()
    recording.sampler.stop()
    recording.burst()
    assert recording.sampler.stats()["samples"] == 60
    assert fake_cupti.get("pm_stops") == 2


def test_without_a_budget_all_is_decoded_after_the_stop(
    record: Callable[..., Recording], fake_cupti: FakeCupti
) -> None:
    recording = record(decode_budget=0.0)
    recording.sampler.start()
    assert fake_cupti.get("pm_decodes") == 0
    recording.sampler.stop()
    assert recording.sampler.stats()["samples"] == 99


def test_start_stop_and_close_may_be_repeated(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    recording = record()
    recording.sampler.stop()
    recording.sampler.start()
    recording.sampler.start()
    recording.sampler.stop()
    recording.sampler.stop()
    recording.sampler.close()
    recording.sampler.close()
    assert (fake_cupti.get("pm_starts"), fake_cupti.get("pm_stops"), fake_cupti.get("pm_enabled")) == (1, 1, 0)
    assert fake_cupti.get("pm_hosts") == 0
    assert recording.sampler.stats()["samples"] == 99
    with pytest.raises(_native.NativeFault, match="closed"):
        recording.sampler.start()


def test_closing_stops_first(record: Callable[..., Recording]) -> None:
    recording = record()
    recording.sampler.start()
    assert len(recording.counters().value) == 2 * 99


def test_a_chip_without_a_time_trigger_counts_cycles(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_chip", 1)
    info = record().sampler.info()
    assert (info["chip"], info["trigger"], info["interval_cycles"]) == ("GA100", "sysclk", 560_000)


def test_a_refused_time_trigger_falls_back_to_cycles(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_time_trigger_result", NOT_SUPPORTED)
    assert record().sampler.info()["trigger"] == "sysclk"


@pytest.mark.parametrize("step", ["availability", "enable"])
@pytest.mark.parametrize(
    ("result", "code", "word"),
    [
        (PRIVILEGES, "forbidden", "CAP_SYS_ADMIN"),
        (HARDWARE_BUSY, "taken", "another profiler"),
        (43, "unsupported", "43"),
    ],
)
def test_a_refused_session_says_why(
    options: dict[str, Any], fake_cupti: FakeCupti, step: str, result: int, code: str, word: str
) -> None:
    fake_cupti.set(f"pm_{step}_result", result)
    message, refused = refusal(options)
    assert (refused, word in message) == (code, True)
    assert (fake_cupti.get("pm_enabled"), fake_cupti.get("pm_hosts")) == (0, 0)


def test_a_refused_configuration_disables_what_was_enabled(options: dict[str, Any], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_time_trigger_result", UNKNOWN)
    fake_cupti.set("pm_config_result", UNKNOWN)
    assert refusal(options)[1] == "unsupported"
    assert fake_cupti.get("pm_enabled") == 0


def test_a_hypervisor_that_does_not_permit_profiling_forbids(options: dict[str, Any], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("pm_vgpu_support", 2)
    assert refusal(options)[1] == "forbidden"
    fake_cupti.set("pm_vgpu_support", 1)
    message, code = refusal(options)
    assert (code, "vGPU" in message) == ("unsupported", True)


def test_one_gpu_has_one_sampler(record: Callable[..., Recording], options: dict[str, Any]) -> None:
    first = record()
    assert refusal(options)[1] == "taken"
    first.burst()
    first.sampler.close()
    record().burst()


def test_a_refused_start_leaves_the_session_as_it_was(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    recording = record()
    fake_cupti.set("pm_start_result", INVALID_OPERATION)
    with pytest.raises(_native.NativeFault, match="cuptiPmSamplingStart"):
        recording.sampler.start()
    fake_cupti.set("pm_start_result", 0)
    recording.burst()
    assert recording.sampler.stats()["samples"] == 99


def test_metrics_beyond_one_pass_are_named(options: dict[str, Any]) -> None:
    metrics = [*METRICS, (2, "extra.sum", 1.0)]
    message, code = refusal(options, metrics=metrics)
    assert (code, message.endswith("would fit: extra.sum")) == ("unsupported", True)


def test_unknown_metrics_are_named(options: dict[str, Any]) -> None:
    message, code = refusal(options, metrics=[*METRICS, (2, "unknown.sum", 1.0)])
    assert (code, message) == ("unsupported", "GH100 has no metrics unknown.sum")


@pytest.mark.parametrize(
    "change", [{"metrics": []}, {"interval_ns": 999}, {"image_samples": 0}, {"decode_budget": -1.0}]
)
def test_options_without_sense_are_invalid(options: dict[str, Any], change: dict[str, Any]) -> None:
    assert refusal(options, **change)[1] == "invalid"


def test_a_gpu_that_cuda_does_not_show_is_not_found(options: dict[str, Any]) -> None:
    assert refusal(options, uuid=UUID.replace("fa4e", "beef"))[1] == "not_found"


def test_a_mig_instance_is_unsupported(options: dict[str, Any]) -> None:
    message, code = refusal(options, uuid="MIG-" + UUID[4:])
    assert (code, "MIG" in message) == ("unsupported", True)


def test_an_old_cupti_is_unsupported(options: dict[str, Any], fake_cupti: FakeCupti) -> None:
    fake_cupti.set("version", 24)
    assert refusal(options)[1] == "unsupported"


def test_a_sampler_without_a_spool_counts(options: dict[str, Any]) -> None:
    sampler = _native.PmSampler(None, **options)
    sampler.start()
    sampler.close()
    assert sampler.stats()["samples"] == 99


def test_a_forked_child_has_no_session(record: Callable[..., Recording], fake_cupti: FakeCupti) -> None:
    recording = record()
    recording.sampler.start()
    child = os.fork()
    if child == 0:
        recording.sampler.stop()
        recording.sampler.close()
        os._exit(0 if recording.sampler.stats()["samples"] == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(recording.counters().value) == 2 * 99
