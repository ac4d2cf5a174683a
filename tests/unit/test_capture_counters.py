"""Counter phases with a stand-in sampler: when counters are sampled, and what a run says of what went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from qmeter_native.capture.counter_phase import CounterPhase, CounterResult
from qmeter_native.capture.counter_sampler import CounterOptions, CounterSampler
from qmeter_native.capture.known_profiles import known_profiles
from qmeter_native.devices import default_profile, profile_path, save_profile
from qmeter_native.errors import DeviceError, NativeError, UsageError
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.manifest import DeviceInfo
from tests.factories import device

H200 = device(2, name="NVIDIA H200", properties={"compute_capability": "9.0"})
AT_ONCE = CounterOptions(seconds=0.05, after_s=0.0)


class Fault(Exception):  # noqa: N818
    """As the extension's."""


class Extension:
    """Stands in for the extension: samplers that count one sample for each start."""

    NativeFault = Fault

    def __init__(self, *, refusal: tuple[str, str] | None = None, num_sms: int = 132, **stats: Any) -> None:
        self.events: list[str] = []
        self.asked: dict[str, Any] = {}
        self._refusal = refusal
        self._info = {"chip": "GH100", "trigger": "gpu_time", "interval_ns": 50_000, "num_sms": num_sms, "setup_ns": 7}
        self._stats = {"samples": 0, "lost_samples": 0, "decode_ns": 3, "evaluate_ns": 4, "error": None, **stats}

    def PmSampler(self, spool: Any, **asked: Any) -> SimpleNamespace:
        if self._refusal is not None:
            raise Fault(*self._refusal)
        self.asked = {"spool": spool, **asked}
        self.events.append("enable")
        return SimpleNamespace(
            info=lambda: self._info,
            stats=lambda: self._stats,
            start=self._start,
            stop=partial(self.events.append, "stop"),
            close=partial(self.events.append, "close"),
        )

    def _start(self) -> None:
        self.events.append("start")
        self._stats["samples"] += 1


def opened(extension: Extension, options: CounterOptions = AT_ONCE, gpu: DeviceInfo = H200) -> CounterSampler:
    return CounterSampler(extension, "spool", gpu, options)


def phase_of(extension: Extension, options: CounterOptions = AT_ONCE) -> CounterPhase:
    return CounterPhase(partial(opened, extension, options), H200, options)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s, "what the test waits for did not happen"
        time.sleep(0.002)


def codes(result: CounterResult) -> list[str]:
    assert {note.subject for note in result.notes} <= {"device 2"}
    return [note.code for note in result.notes]


def test_a_sampler_is_asked_for_the_metrics_of_its_chip() -> None:
    extension = Extension()
    opened(extension, CounterOptions(interval_s=20e-6, metric_set="memory"))
    assert extension.asked["metrics"] == [
        (CounterQuantity.DRAM_READ_BYTES, "dram__bytes_read.sum", 1.0),
        (CounterQuantity.DRAM_WRITE_BYTES, "dram__bytes_write.sum", 1.0),
    ]
    assert (extension.asked["spool"], extension.asked["device"], extension.asked["uuid"]) == ("spool", 2, H200.uuid)
    assert extension.asked["interval_ns"] == 20_000


def test_a_mean_over_sms_is_multiplied_by_their_number() -> None:
    extension = Extension()
    opened(extension)
    factors = {quantity: factor for quantity, _, factor in extension.asked["metrics"]}
    assert factors[CounterQuantity.SM_ACTIVE_CYCLES] == 132.0
    assert factors[CounterQuantity.L2_SECTORS] == 1.0


def test_a_gpu_with_other_sms_than_its_datasheet_says_is_refused_and_disabled() -> None:
    extension = Extension(num_sms=114)
    with pytest.raises(DeviceError, match="114 SMs here, and 132"):
        opened(extension)
    assert extension.events == ["enable", "close"]


def test_a_gpu_without_datasheet_is_refused() -> None:
    with pytest.raises(DeviceError, match="which counters NVIDIA Test has"):
        opened(Extension(), gpu=device())


@pytest.mark.parametrize(
    ("code", "error", "hint"),
    [
        ("forbidden", DeviceError, "ERR_NVGPUCTRPERM"),
        ("taken", DeviceError, "DCGM"),
        ("unsupported", NativeError, "from shapes"),
        ("not_found", NativeError, "doctor"),
    ],
)
def test_a_refusal_says_what_to_do(code: str, error: type[Exception], hint: str) -> None:
    with pytest.raises(error, match="counters are closed") as caught:
        opened(Extension(refusal=("counters are closed", code)))
    assert hint in (getattr(caught.value, "hint", None) or "")


def test_a_phase_samples_for_its_time_and_gives_the_gpu_back() -> None:
    extension = Extension()
    phase = phase_of(extension)
    phase.begin()
    phase.begin()
    wait_until(lambda: "close" in extension.events)
    result = phase.end()
    assert extension.events == ["enable", "start", "stop", "close"]
    assert codes(result) == []
    assert (result.summary["chip"], result.summary["samples"], result.summary["setup_ns"]) == ("GH100", 1, 7)
    assert result.summary["metrics"]["DRAM_READ_BYTES"] == "dram__bytes_read.sum"
    assert phase.end() is result


def test_a_run_that_ends_in_its_phase_cuts_it_and_says_so() -> None:
    extension = Extension()
    phase = phase_of(extension, CounterOptions(seconds=60, after_s=0))
    phase.begin()
    wait_until(lambda: "start" in extension.events)
    result = phase.end()
    assert extension.events == ["enable", "start", "stop", "close"]
    assert codes(result) == ["counters_cut"]
    assert "of 60 s" in result.notes[0].message


def test_a_run_that_ends_before_its_phase_never_enables_anything() -> None:
    extension = Extension()
    phase = phase_of(extension, CounterOptions(after_s=60))
    phase.begin()
    result = phase.end()
    assert extension.events == []
    assert codes(result) == ["counters_absent"]
    assert "60 s after" in result.summary["absent_reason"]


def test_a_window_that_never_began_has_no_counters() -> None:
    phase = phase_of(Extension())
    assert "absent_reason" in phase.end().summary
    phase.begin()
    assert "absent_reason" in phase.end().summary


def test_continuous_counters_last_as_long_as_the_run() -> None:
    extension = Extension()
    options = CounterOptions(is_continuous=True, after_s=60)
    phase = phase_of(extension, options)
    phase.begin()
    wait_until(lambda: "start" in extension.events)
    result = phase.end()
    assert extension.asked["interval_ns"] == 10_000_000
    assert (codes(result), result.summary["is_continuous"]) == ([], True)


def test_what_refuses_a_phase_is_told_and_harms_nobody() -> None:
    phase = phase_of(Extension(refusal=("counters are closed", "forbidden")))
    phase.begin()
    result = phase.end()
    assert result.summary == {"absent_reason": "counters are closed"}
    assert codes(result) == ["counters_absent"]
    assert "ERR_NVGPUCTRPERM" in result.notes[0].message


def test_a_phase_that_breaks_is_told_too() -> None:
    def enable() -> CounterSampler:
        raise AttributeError("no PmSampler")

    phase = CounterPhase(enable, H200, AT_ONCE)
    phase.begin()
    assert phase.end().summary == {"absent_reason": "AttributeError: no PmSampler"}


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        ({"lost_samples": 9}, "Of 10 samples of hardware counters 9 were lost."),
        ({"error": "the buffer ran over"}, "the buffer ran over"),
        ({"samples": -1}, "No sample of hardware counters could be decoded."),
    ],
)
def test_losses_are_told(stats: dict[str, Any], expected: str) -> None:
    extension = Extension(**stats)
    phase = phase_of(extension)
    phase.begin()
    wait_until(lambda: "close" in extension.events)
    assert any(expected in note.message for note in phase.end().notes)


@pytest.mark.parametrize(
    "options",
    [
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"after_s": -1.0},
        {"interval_s": 1e-7},
        {"interval_s": 5e-4, "is_continuous": True},
        {"metric_set": "all"},
    ],
)
def test_counters_that_cannot_be_are_refused_before_the_run(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        CounterOptions(**options)


def test_the_profiles_of_calibrated_devices_go_into_the_capture(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QMETER_PROFILES", str(tmp_path))
    profile = default_profile("NVIDIA H200", uuid="GPU-1")
    save_profile(profile, profile_path("GPU-1"))
    profile_path("GPU-2").write_text("{")
    profiles, notes = known_profiles([device(0), device(1), device(2)])
    assert profiles.keys() == {"1"}
    assert profiles["1"]["uuid"] == "GPU-1"
    assert [(note.code, note.subject) for note in notes] == [("profile_unreadable", "device 2")]
