"""A session: energy sampler, kernel tracer and ranges writing into one spool, on one clock."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from qmeter_native.capture.counter_phase import CounterPhase
from qmeter_native.capture.counter_sampler import CounterOptions, CounterSampler
from qmeter_native.capture.cuda_ordinals import cuda_ordinals
from qmeter_native.capture.cupti_paths import cupti_search_dirs
from qmeter_native.capture.finalize import Stats, finalize
from qmeter_native.capture.identity import Identity, software_versions
from qmeter_native.capture.known_profiles import known_profiles
from qmeter_native.capture.native import load_native, native_faults
from qmeter_native.capture.operator_recorder import OperatorRecorder
from qmeter_native.capture.ranges import RangeRecorder
from qmeter_native.capture.session_state import STATE_NAME, SessionState
from qmeter_native.errors import CaptureError, DeviceError, QmeterError, UsageError
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import DeviceInfo, EngineInfo, Validity
from qmeter_native.storage.reader import read_capture
from qmeter_native.storage.schema import SPOOL_FOLDER, SPOOL_SUFFIX
from qmeter_native.units import mw_to_w, ns_to_s, s_to_ns

__all__ = ["Session", "SessionOptions"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_MIN_IDLE_S: Final = 0.5
"""Five ticks of a counter that steps every 0.1 s."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What to collect, and from where.

    Attributes:
        device: ``cuda``, ``cpu``, or ``auto``: CUDA if NVML finds a GPU that CUDA may see.
        energy: Sample energy, power and clocks.
        kernels: Trace kernels through CUPTI (CUDA only).
        counters: Sample hardware counters in a part of the measured window (CUDA only); None: never.
        cupti_path: A libcupti to use instead of the one that would be found.
        nvml_path: A libnvidia-ml to use instead of the system's.
        powercap_root: Where Linux shows RAPL.
        edge_period_s: Time between two edges of an energy counter that are looked for; windows of a few seconds want
            some near their ends.
        counter_cpu_share: Most of a core that the calls for them may take, 0 to 1: edges come less often beyond it.
    """

    device: str = "auto"
    energy: bool = True
    kernels: bool = True
    counters: CounterOptions | None = None
    cupti_path: str | None = None
    nvml_path: str | None = None
    powercap_root: str = "/sys/class/powercap"
    edge_period_s: float = 1.0
    counter_cpu_share: float = 0.007

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda"):
            raise UsageError(f"there is no device called {self.device!r}", "Use auto, cpu or cuda.")


class Session:
    """Constructed = collecting. `close` ends it and leaves a finished capture behind.

    What cannot be collected is no error but a `Validity` entry that says why: tracing never stops the traced program.

    Raises:
        NativeError: The extension does not load.
        CaptureError: ``path`` exists already, or cannot be written.
        DeviceError: ``cuda`` was asked for, and NVML finds no GPU.
    """

    def __init__(self, path: str | Path, options: SessionOptions | None = None) -> None:
        self.path = Path(path)
        self.options = options or SessionOptions()
        self._is_open = False
        native = load_native()
        identity = Identity.of_this_process()
        self._spool_name = f"{identity.stem}{SPOOL_SUFFIX}"
        self._spool = _create_spool(native, self.path, self._spool_name, identity)
        with native_faults():
            self._sampler = _start_sampler(native, self._spool, self.options)
        devices = [_device_info(source, self.options.energy) for source in self._sampler.sources()]
        self.state = SessionState(start_ns=time.time_ns(), devices=_used(devices, self.options.device))
        self._tracer: Any = None
        self._phases: dict[int, CounterPhase] = {}
        self._is_open = True
        if self.options.device == "cuda" and not self.is_cuda:
            self.discard()
            raise _no_gpu(devices)
        if not self.options.energy:
            self._sampler.close()
        if self.is_cuda:
            gpus = [device for device in devices if device.kind == "cuda"]
            self.state.cuda_devices = [gpus[position].index for position in cuda_ordinals(gpus)]
            if self.options.kernels:
                self._tracer = self._start_tracer(native)
        self._phases = self._planned_phases()
        self.state.profiles, notes = known_profiles(self.state.devices)
        self.state.validity.extend(notes)
        self.state.software = software_versions()
        self._ranges = RangeRecorder(self._spool)
        self._save_state()

    @property
    def is_cuda(self) -> bool:
        """Whether the devices of this session are GPUs."""
        return any(device.kind == "cuda" for device in self.state.devices)

    @property
    def has_energy(self) -> bool:
        """Whether any device of this session has a source of energy."""
        return any(device.energy_source is not None for device in self.state.devices)

    @property
    def has_kernels(self) -> bool:
        """Whether CUPTI traces kernels."""
        return self._tracer is not None

    @property
    def spool(self) -> Any:
        """The spool (``_native.Spool``), for recorders of engine steps, requests and operators."""
        return self._spool

    def range(self, name: str) -> AbstractContextManager[None]:
        """Context manager: the time its body takes becomes a range of the capture."""
        return self._ranges.range(name)

    def traced(self, name: str | None = None) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
        """Decorator: each call of the function becomes a range of the capture, named after it if ``name`` is None."""
        return self._ranges.decorate(name)

    def operators(self) -> OperatorRecorder | None:
        """Begin to trace the operators of torch, which are a CPU's kernels; None on CUDA, which has its own."""
        return None if self.is_cuda else OperatorRecorder(self._spool, self.state.devices[0].index)

    def measure_idle(self, seconds: float, wait: Callable[[float], Any] = time.sleep) -> None:
        """Measure each device's power with nothing running on it; attribution takes that as its idle power.

        Args:
            seconds: How long. The NVML counter steps every 0.1 s: 2 s tell the mean to about 5 %.
            wait: How to wait, such as ``Event.wait`` of an event that interrupts the run. A wait that ends within half
                a second tells nothing, and nothing is stored.
        """
        if not self.has_energy:
            return
        self._sampler.mark_idle()
        start_ns = time.monotonic_ns()
        wait(seconds)
        window_s = ns_to_s(time.monotonic_ns() - start_ns)
        if window_s < _MIN_IDLE_S:
            return
        for position, device in enumerate(self.state.devices):
            power_mw = self._sampler.idle_power_mw(device.index)
            if power_mw is not None:
                self.state.devices[position] = replace(device, idle_power_w=mw_to_w(power_mw), idle_window_s=window_s)
        self._save_state()

    def begin(self) -> None:
        """The measured window begins now. Without this call it begins with the session, and has no counter phase."""
        self.state.measure_start_ns = time.time_ns()
        self._save_state()
        for phase in self._phases.values():
            phase.begin()

    def end(self) -> None:
        """The measured window ends now. Without this call it ends with the session."""
        self.state.measure_end_ns = time.time_ns()
        self._end_counters()
        self._save_state()

    @contextmanager
    def counting(self, device: int, options: CounterOptions) -> Iterator[CounterSampler]:
        """Context manager: an enabled sampler of a GPU's hardware counters, for whoever starts and stops it himself.

        Args:
            device: ``DeviceInfo.index``.
            options: Which metrics, at which interval; its times do not count.

        Raises:
            DeviceError: Counters are forbidden, taken, or not known for this chip.
            NativeError: CUPTI is missing, too old, or refuses.
        """
        gpu = next(gpu for gpu in self.state.devices if gpu.index == device)
        sampler = self._counter_sampler(gpu, options)
        try:
            yield sampler
        finally:
            sampler.close()
            self.state.counters[str(device)] = sampler.summary()
            self._save_state()

    def describe(
        self,
        *,
        engine: EngineInfo | None = None,
        workload: dict[str, Any] | None = None,
        tracer: dict[str, Any] | None = None,
    ) -> None:
        """Say which engine runs, what it is given to do, and what traced its kernels if it was not CUPTI."""
        self.state.engine = engine or self.state.engine
        self.state.workload = workload or self.state.workload
        self.state.tracer = tracer or self.state.tracer
        self._save_state()

    def warn(self, code: str, message: str, subject: str = "") -> None:
        """Record something that limits what the capture can prove."""
        self.state.validity.append(Validity(code, message, subject))
        self._save_state()

    def live(self) -> list[dict[str, Any]]:
        """Newest readings of each device: ``{index, power_mw, energy_uj, sm_mhz, temperature_c}``, None if unknown."""
        wanted = {device.index for device in self.state.devices}
        return [reading for reading in self._sampler.latest() if reading["index"] in wanted]

    def discard(self) -> None:
        """Stop collecting and remove what was written: there is nothing worth keeping. Idempotent."""
        if self._is_open:
            self._stop()
            shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> Capture:
        """Stop collecting and finalize.

        Raises:
            CaptureError: The capture could not be written; its spools are still there.
        """
        self._stop()
        finalize(self.path, {self._spool_name: self._unwritten()})
        return read_capture(self.path)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_open:
            self.close()

    def _stop(self) -> None:
        if not self._is_open:
            raise CaptureError(f"{self.path} is closed already")
        self._is_open = False
        self._end_counters()
        if self._tracer is not None:
            self._tracer.close()
        self._sampler.close()
        self.state.end_ns = time.time_ns()
        self._save_state()
        self._spool.append_stats(json.dumps({"name": "spool", **self._spool.stats()}))
        self._spool.close()

    def _unwritten(self) -> Stats:
        """What the spool would say at its end if the disk had not been full."""
        stats = self._spool.stats()
        return {STATE_NAME: self.state.to_dict(), "spool": stats} if stats["error"] else {}

    def _save_state(self) -> None:
        self._spool.append_stats(json.dumps(self.state.to_dict()))

    def _planned_phases(self) -> dict[int, CounterPhase]:
        options = self.options.counters
        if options is None:
            return {}
        gpus = [device for device in self.state.devices if device.kind == "cuda"]
        if not gpus:
            message = "No hardware counters were sampled: only GPUs have them."
            self.state.validity.append(Validity("counters_absent", message))
        return {gpu.index: CounterPhase(partial(self._counter_sampler, gpu, options), gpu, options) for gpu in gpus}

    def _counter_sampler(self, gpu: DeviceInfo, options: CounterOptions) -> CounterSampler:
        return CounterSampler(load_native(), self._spool, gpu, options, self.options.cupti_path)

    def _end_counters(self) -> None:
        for phase in self._phases.values():
            phase.ask_to_end()
        for index, phase in self._phases.items():
            result = phase.end()
            self.state.counters[str(index)] = result.summary
            self.state.validity.extend(result.notes)
        self._phases = {}

    def _start_tracer(self, native: Any) -> Any:
        try:
            with native_faults():
                tracer = native.KernelTracer(
                    self._spool, cupti_path=self.options.cupti_path, search_dirs=cupti_search_dirs()
                )
        except QmeterError as error:
            message = f"No kernels were traced: {error.what}." + (f" {error.hint}" if error.hint else "")
            self.state.validity.append(Validity("kernels_absent", message))
            return None
        self.state.tracer = tracer.info()
        return tracer


def _create_spool(native: Any, path: Path, name: str, identity: Identity) -> Any:
    if path.exists():
        raise CaptureError(f"{path} exists already", "Choose another name, or remove it first.")
    folder = path / SPOOL_FOLDER
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise CaptureError(f"{path} cannot be created: {error.strerror}", "Choose another --output.") from error
    try:
        with native_faults():
            return native.Spool(str(folder / name), identity=json.dumps(identity.to_dict()))
    except QmeterError:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _start_sampler(native: Any, spool: Any, options: SessionOptions) -> Any:
    """The sampler also says which devices there are, so that it is started even where nothing is to be sampled."""
    return native.EnergySampler(
        spool if options.energy else None,
        nvml_path=options.nvml_path,
        powercap_root=options.powercap_root,
        use_nvml=options.device != "cpu",
        use_rapl=options.device != "cuda",
        edge_period_ns=s_to_ns(options.edge_period_s),
        counter_cpu_share=options.counter_cpu_share,
    )


def _device_info(source: dict[str, Any], energy: bool) -> DeviceInfo:
    return DeviceInfo(
        index=source["index"],
        kind=source["kind"],
        name=source["name"] or platform.processor() or platform.machine(),
        uuid=source["uuid"],
        energy_source=source["energy"] if energy else None,
        energy_absent_reason=source["reason"] if energy else "energy sampling was switched off",
        properties={
            **source.get("properties", {}),
            "driver": source.get("driver"),
            "readings": source.get("readings", {}),
        },
    )


def _no_gpu(devices: Sequence[DeviceInfo]) -> DeviceError:
    reason = next((device.properties.get("nvml_absent_reason") for device in devices), None)
    return DeviceError(
        "device cuda was asked for, and NVML finds no GPU" + (f": {reason}" if reason else ""),
        "`qmeter-native doctor` says what this machine can measure; device auto takes what there is.",
    )


def _used(devices: Sequence[DeviceInfo], wanted: str) -> list[DeviceInfo]:
    """The GPUs that CUDA may see, if they are wanted and there are any, else the CPU.

    GPUs that ``CUDA_VISIBLE_DEVICES`` hides are left out: their energy is not this run's.
    """
    gpus = [device for device in devices if device.kind == "cuda"]
    visible = cuda_ordinals(gpus)
    if wanted == "cuda" or (wanted == "auto" and visible):
        return [gpus[position] for position in sorted(visible)] or gpus
    return [device for device in devices if device.kind != "cuda"]
