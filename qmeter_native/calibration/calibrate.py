"""From a GPU to its device profile: the sensor, the ceilings, the power model. A step that fails leaves the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Final

from qmeter_native.calibration.ceilings import CEILING_NAMES, measure_ceilings
from qmeter_native.calibration.gpu import Gpu
from qmeter_native.calibration.idle import with_idle_power
from qmeter_native.calibration.load_kernels import all_loads, chosen_loads
from qmeter_native.calibration.load_plan import LoadPlan, PlanOptions, plan_loads
from qmeter_native.calibration.load_session import record_loads, traced_loads
from qmeter_native.calibration.load_window import LoadWindow, WindowRole
from qmeter_native.calibration.load_windows import load_problem
from qmeter_native.calibration.power_fit import fit_power_model
from qmeter_native.calibration.sensor import sensor_model
from qmeter_native.calibration.sensor_load import run_sensor_loads, sensor_loads
from qmeter_native.capture.identity import software_versions
from qmeter_native.capture.session import Session, SessionOptions
from qmeter_native.devices.default_profile import default_profile
from qmeter_native.devices.gpu_database import ChipInfo
from qmeter_native.errors import DeviceError, QmeterError
from qmeter_native.model.capture import Capture
from qmeter_native.model.device_profile import Ceiling, DeviceProfile

__all__ = ["LOAD_NAMES", "QUICK_LOAD_NAMES", "CalibrationOptions", "Show", "calibrate", "with_power_model"]

Show = Callable[[str, str, float, "float | None"], None]
"""Is told the step, its figures, how much of it is done, and of how much; None where that is not known."""

_IDLE_S: Final = 2.0
_EDGE_PERIOD_S: Final = 0.1
_EDGE_CPU_SHARE: Final = 0.5
"""Every tick of the counter, for as long as the sensor is looked at: nothing else is measured meanwhile."""

_NUM_BURSTS: Final = {False: 9, True: 6}
_PLANS: Final = {
    False: PlanOptions(
        window_s=1.3, soak_s=4, duties=(1.0, 0.45), num_mixtures=10, num_capped=0, num_interventions=0, num_brackets=3
    ),
    True: PlanOptions(
        window_s=1.2, soak_s=0, duties=(1.0,), num_mixtures=3, num_capped=0, num_interventions=0, num_brackets=2
    ),
}
"""By whether it is quick. Windows of a second hold ten ticks of the counter, whose edges are known to about 2 ms."""

QUICK_LOAD_NAMES: Final = ("fp16_gemm_large", "fp8_gemm_m16", "int8_gemm_large", "dram_read", "l2_read", "fp32_fma")
"""One or two for each thing that costs energy."""

LOAD_NAMES: Final = (
    *QUICK_LOAD_NAMES,
    "bf16_gemm_m512",
    "fp16_gemm_m16",
    "fp8_gemm_large",
    "w4a16_gemm_m16",
    "attention_prefill",
    "attention_decode",
    "rms_norm",
    "silu_and_mul",
    "copy",
)
"""What serving runs, and the machine's units: as many as three minutes allow."""


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """How thoroughly, and what is kept.

    Attributes:
        is_quick: Under a minute: fewer repeats, fewer kernels, wider intervals.
        folder: Where the captures stay that the profile was made from; None to throw them away.
    """

    is_quick: bool = False
    folder: Path | None = None


def calibrate(gpu: Gpu, options: CalibrationOptions, stop: Event, show: Show) -> DeviceProfile:
    """Measure a GPU. What could not be measured stays as the datasheet has it, and a note says why.

    Args:
        gpu: From `find_gpu`.
        options: How thoroughly.
        stop: Ends the run at the next pause; what was measured until then is in the profile.
        show: Is told where it is.

    Raises:
        NativeError: The extension does not load.
    """
    default = default_profile(gpu.name, gpu.uuid, gpu.compute_capability)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    profile = replace(default, date=now, notes=(), software=dict(software_versions()))
    with _folder(options.folder) as folder:
        run = _Run(gpu, options, folder, stop, show)
        for name, step in run.steps.items():
            if stop.is_set():
                profile = _noted(profile, f"Interrupted before the {name} was measured.")
                continue
            try:
                profile = step(profile)
            except (QmeterError, RuntimeError) as error:  # torch's errors are RuntimeErrors
                profile = _noted(profile, f"The {name} was not measured: {str(error).splitlines()[0]}.")
    if profile.power_model.source == default.power_model.source:
        profile = replace(profile, notes=(*default.notes, *profile.notes))
    return profile


def with_power_model(
    profile: DeviceProfile, captures: Sequence[Capture], device: int, chip: ChipInfo | None
) -> DeviceProfile:
    """The profile with the power model that the last of ``captures`` tells, and idle power from all of them.

    Args:
        profile: Whose power model is where the fit starts.
        captures: The last one of loads (`record_loads`).
        device: ``DeviceInfo.index``.
        chip: Its datasheet; None if it is not known.

    Raises:
        CaptureError: The last capture has no loads between idle windows, or no energy.
        UsageError: Fewer than three kinds of kernels ran.
    """
    capture = captures[-1]
    prior = with_idle_power(profile.power_model, captures, device)
    loads = load_problem(capture, device, chip, prior.reference_mhz, profile.sensor)
    model, fit = fit_power_model(loads.problem, loads.kinds, prior)
    notes = [entry.message for entry in capture.manifest.validity]
    return _noted(replace(profile, power_model=model, fit=fit), *notes)


def _noted(profile: DeviceProfile, *notes: str) -> DeviceProfile:
    return replace(profile, notes=tuple(dict.fromkeys((*profile.notes, *notes))))


@contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted
        return
    with TemporaryDirectory(prefix="qmeter-calibrate-") as name:
        yield Path(name)


class _Run:
    """The steps, with the captures that later ones need of earlier ones."""

    def __init__(self, gpu: Gpu, options: CalibrationOptions, folder: Path, stop: Event, show: Show) -> None:
        self._gpu = gpu
        self._options = options
        self._path = folder
        self._stop = stop
        self._show = show
        self._captures: list[Capture] = []
        self.steps: dict[str, Callable[[DeviceProfile], DeviceProfile]] = {
            "sensor": self._measure_sensor,
            "ceilings": self._measure_ceilings,
            "power model": self._fit_power,
        }

    def _measure_sensor(self, profile: DeviceProfile) -> DeviceProfile:
        import torch

        options = SessionOptions("cuda", edge_period_s=_EDGE_PERIOD_S, counter_cpu_share=_EDGE_CPU_SHARE)
        torch.zeros(1, device=f"cuda:{self._gpu.ordinal}")  # idle power is that of a GPU with a context
        with Session(self._path / "sensor.qmt", options) as session:
            if not session.has_energy:
                raise DeviceError("the GPU has no source of energy", "`qmeter-native doctor` says why.")
            self._show("sensor", "idle", 0, None)
            time.sleep(_IDLE_S / 2)
            with session.range(LoadWindow(0, WindowRole.IDLE, _IDLE_S).range_name):
                time.sleep(_IDLE_S)
            run_sensor_loads(
                session,
                self._gpu.ordinal,
                sensor_loads(self._options.is_quick),
                self._stop,
                lambda done, total: self._show("sensor", f"square waves {done}/{total}", done, total),
            )
            device = session.state.cuda_devices[self._gpu.ordinal]
            capture = session.close()
        self._captures.append(capture)
        driver = capture.manifest.devices[device].properties.get("driver")
        software = {**profile.software, **capture.manifest.software, **({"driver": driver} if driver else {})}
        model = with_idle_power(profile.power_model, self._captures, device)
        return replace(profile, sensor=sensor_model(capture, device), software=software, power_model=model)

    def _measure_ceilings(self, profile: DeviceProfile) -> DeviceProfile:
        gpu, num_bursts = self._gpu, _NUM_BURSTS[self._options.is_quick]
        measured: dict[str, Ceiling] = {}
        for name, ceiling in zip(
            CEILING_NAMES, measure_ceilings(gpu.ordinal, gpu.uuid, gpu.chip, num_bursts), strict=True
        ):
            measured[name] = ceiling
            self._show("ceilings", name, len(measured), len(CEILING_NAMES))
            if self._stop.is_set():
                break
        others = [ceiling for ceiling in profile.ceilings if ceiling.name not in measured]
        profile = replace(profile, ceilings=(*measured.values(), *others))
        return _noted(profile, "Interrupted among the ceilings.") if len(measured) < len(CEILING_NAMES) else profile

    def _fit_power(self, profile: DeviceProfile) -> DeviceProfile:
        names = QUICK_LOAD_NAMES if self._options.is_quick else LOAD_NAMES
        wanted = [load for load in all_loads() if load.name in names]
        checks, left_out = chosen_loads(
            traced_loads(self._path / "checks.qmt", self._gpu.ordinal, self._before_windows, wanted)
        )
        capture = record_loads(
            self._path / "loads.qmt",
            self._gpu.ordinal,
            checks,
            lambda pilots, idle_w: plan_loads(pilots, idle_w, _PLANS[self._options.is_quick]),
            self._before_windows,
            self._on_window,
        )
        self._captures.append(capture)
        device = next(info.index for info in capture.manifest.devices if info.uuid == self._gpu.uuid)
        self._show("power model", "fit", 0, None)
        profile = with_power_model(profile, self._captures, device, self._gpu.chip)
        return _noted(profile, *(f"The load {name} was left out: {reason}." for name, reason in left_out.items()))

    def _before_windows(self, text: str) -> None:
        if self._stop.is_set():
            raise QmeterError("interrupted before its windows")
        self._show("loads", text, 0, None)

    def _on_window(self, window: LoadWindow, plan: LoadPlan) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt  # at which `record_loads` keeps the windows before
        self._show("loads", ", ".join(window.counts) or "idle", window.number, len(plan.windows))
