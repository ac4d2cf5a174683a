from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from qmeter_native.calibration import calibrate as calibration
from qmeter_native.calibration.calibrate import CalibrationOptions
from qmeter_native.calibration.gpu import Gpu, find_gpu
from qmeter_native.cli.main import cli
from qmeter_native.cli.rim import run
from qmeter_native.devices import default_profile, load_profile, profile_to_dict, save_profile
from qmeter_native.errors import DeviceError, MissingExtraError, UsageError
from qmeter_native.model.device_profile import Ceiling, DeviceProfile, ModelFit, SensorModel
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.power_model import PowerFeature

UUID = "GPU-5ea46e45-0b72-0d77-d746-e95351c3ff3d"


def calibrated() -> DeviceProfile:
    tick = Estimate(0.1, 0.0999, 0.1001)
    return replace(
        default_profile("NVIDIA H200", UUID),
        date="2026-11-24T14:00:00+00:00",
        sensor=SensorModel(tick, tick, tick, tick, tick, Estimate.missing("no pulses"), 0.004),
        ceilings=(
            Ceiling("dram_read", "B/s", Estimate(4.3e12, 4.29e12, 4.31e12), 4.8e12, 1980.0, "qmeter_read"),
            Ceiling("fp8", "FLOP/s", Estimate.missing("RuntimeError: no such kernel"), 1.98e15),
        ),
        fit=ModelFit(0.05, 0.11, 0.01, 0.03, 14, 40, {"copy": 0.11}),
        notes=("The load x was left out: why.",),
    )


def test_a_profile_is_shown_with_ceilings_power_model_sensor_fit_and_notes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_profile(calibrated(), tmp_path / "h200.json")

    assert run(cli, ["calibrate", "--show", str(tmp_path / "h200.json")]) == 0

    text = capsys.readouterr().out
    for part in ("NVIDIA H200", UUID, "4.300 TB/s", "89.6", "no such kernel", "pJ/B", "no pulses", "copy", "left out"):
        assert part in text


def test_a_coefficient_that_no_kernel_told_of_is_shown_without_an_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = calibrated()
    unseen = frozenset({PowerFeature.FP8_FLOP})
    save_profile(replace(profile, power_model=replace(profile.power_model, unseen=unseen)), tmp_path / "h200.json")

    assert run(cli, ["calibrate", "--show", str(tmp_path / "h200.json")]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0:4] for line in lines if "not seen" in line] == [["tensor", "pipes,", "8-bit", "float"]]


def test_a_profile_without_sensor_and_fit_is_shown_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_profile(default_profile("AMD EPYC 9654"), tmp_path / "cpu.json")

    assert run(cli, ["calibrate", "--show", str(tmp_path / "cpu.json")]) == 0

    assert "not measured" in capsys.readouterr().out


def test_a_shown_profile_as_json_is_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_profile(calibrated(), tmp_path / "h200.json")

    assert run(cli, ["calibrate", "--json", "--show", str(tmp_path / "h200.json")]) == 0

    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "h200.json").read_text())


def test_a_profile_that_is_not_there_ends_with_1_and_says_how_to_make_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["calibrate", "--show", str(tmp_path / "none.json")]) == 1
    assert "qmeter-native calibrate" in capsys.readouterr().err


def test_without_torch_or_cupy_calibration_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qmeter_native.calibration.gpu.find_spec", lambda name: None)

    with pytest.raises(MissingExtraError, match="torch and cupy") as caught:
        find_gpu("cuda:0")

    assert "engine,cuda" in (caught.value.hint or "")


def test_without_a_gpu_calibration_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr("qmeter_native.calibration.gpu.find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(DeviceError, match="no GPU"):
        find_gpu("cuda")


@pytest.mark.parametrize("device", ["cpu", "cuda:x", "GPU-1"])
def test_only_gpus_by_number_can_be_calibrated(device: str) -> None:
    with pytest.raises(UsageError):
        find_gpu(device)


class Steps:
    """Stands in for the steps of a calibration: each leaves its mark in the software versions."""

    def __init__(self, outcomes: dict[str, Exception | None], stop: Event) -> None:
        self.steps = {name: self._step(name, outcome, stop) for name, outcome in outcomes.items()}

    def _step(self, name: str, outcome: Exception | None, stop: Event) -> Any:
        def step(profile: DeviceProfile) -> DeviceProfile:
            if outcome is not None:
                raise outcome
            if name == "last":
                stop.set()
            return replace(profile, software={**profile.software, name: "done"})

        return step


def profile_of(monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, Exception | None]) -> DeviceProfile:
    monkeypatch.setattr(calibration, "_Run", lambda gpu, options, folder, stop, show: Steps(outcomes, stop))
    gpu = Gpu(0, "NVIDIA H200", UUID, "9.0", None)
    return calibration.calibrate(gpu, CalibrationOptions(), Event(), lambda *_: None)


def test_a_step_that_fails_leaves_what_the_others_found_and_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = {"sensor": DeviceError("NVML is gone"), "ceilings": None, "power model": RuntimeError("out of memory")}

    profile = profile_of(monkeypatch, outcomes)

    assert profile.software["ceilings"] == "done"
    assert profile.notes[0].startswith("Not calibrated")
    assert profile.notes[1:] == (
        "The sensor was not measured: NVML is gone.",
        "The power model was not measured: out of memory.",
    )


def test_an_interrupted_calibration_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile = profile_of(monkeypatch, {"sensor": None, "last": None, "power model": None})

    assert profile.software["sensor"] == "done"
    assert "power model" not in profile.software
    assert profile.notes[-1] == "Interrupted before the power model was measured."
    save_profile(profile, tmp_path / "partial.json")
    assert profile_to_dict(load_profile(tmp_path / "partial.json")) == profile_to_dict(profile)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--budget", "60"], "without --verify"),
        (["--rows", "truth.json"], "without --verify"),
        (["--verify", "--quick"], "does nothing with --verify"),
        (["--verify", "--part", "one"], "is no part"),
        (["--verify", "--part", "3/2"], "no part 3 of 2"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["calibrate", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_putting_runs_of_the_truth_test_together_needs_no_gpu_but_their_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(cli, ["calibrate", "--verify", "--rows", str(tmp_path / "none.json")]) == 1
    assert "no result file" in capsys.readouterr().err
