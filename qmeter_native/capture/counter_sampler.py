"""Hardware counters of one GPU: what is asked of CUPTI's PM sampling, and a session of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from qmeter_native.capture.cupti_paths import cupti_search_dirs
from qmeter_native.capture.native import native_faults
from qmeter_native.devices.gpu_database import ChipInfo, chip_info
from qmeter_native.devices.metric_sets import METRIC_SETS, metric_set
from qmeter_native.errors import DeviceError, UsageError
from qmeter_native.model.manifest import DeviceInfo
from qmeter_native.units import s_to_ns

__all__ = ["CounterOptions", "CounterSampler"]

_PHASE_INTERVAL_S: Final = 20e-6
"""A sample of 11 metrics takes 128 µs of a core to decode, whatever its length, so that as many samples can be had of a
phase at any interval: bursts of 33 ms, a seventh of the phase. At 50 µs kernels of 8 to 30 µs lost bytes to neighbours:
Machete's products of 10.8 MB were given none."""

_CONTINUOUS_INTERVAL_S: Final = 0.01
"""Decoding keeps up with a millisecond; nobody needs as many samples."""
_MIN_CONTINUOUS_INTERVAL_S: Final = 0.001
_MIN_INTERVAL_S: Final = 1e-6
"""CUPTI's own limit."""

_HINTS: Final = {
    "forbidden": "Run as root, or let the driver's module load with NVreg_RestrictProfilingToAdminUsers=0 "
    "(ERR_NVGPUCTRPERM); in a container also --cap-add=SYS_ADMIN.",
    "taken": "Stop the other profiler or monitor that counts on this GPU, such as Nsight or DCGM.",
    "unsupported": "Without counters energy is modelled from shapes.",
}
"""What to do, by the code of a NativeFault."""


@dataclass(frozen=True, slots=True)
class CounterOptions:
    """When hardware counters are sampled, and which.

    Attributes:
        seconds: Length of the counter phase. While it lasts, and while it is set up, the GPU draws more power: its
            energy counts as the meter's.
        after_s: From the start of the measured window to the phase.
        interval_s: Between two samples; None: 20 µs, or 10 ms if continuous. Where decoding does not keep up with it,
            only part of the phase is sampled.
        metric_set: One of `devices.metric_sets.METRIC_SETS`.
        is_continuous: Sample from the start of the measured window to its end, however long that is; ``seconds`` and
            ``after_s`` do not count.
    """

    seconds: float = 3.0
    after_s: float = 1.0
    interval_s: float | None = None
    metric_set: str = "energy"
    is_continuous: bool = False

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.after_s >= 0):  # NaN is neither
            raise UsageError("a counter phase has no length, or begins before the run", "Give positive seconds.")
        shortest_s = _MIN_CONTINUOUS_INTERVAL_S if self.is_continuous else _MIN_INTERVAL_S
        if self.interval_s is not None and not shortest_s <= self.interval_s <= 1:
            raise UsageError(
                f"counters cannot be sampled every {self.interval_s * 1e6:g} µs"
                + (" in a whole run" if self.is_continuous else ""),
                f"Choose {shortest_s * 1e6:g} to 1000000 µs.",
            )
        if self.metric_set not in METRIC_SETS:
            raise UsageError(f"there is no metric set {self.metric_set!r}", f"Choose one of {', '.join(METRIC_SETS)}.")

    @property
    def interval_ns(self) -> int:
        """Nanoseconds between two samples."""
        default_s = _CONTINUOUS_INTERVAL_S if self.is_continuous else _PHASE_INTERVAL_S
        return s_to_ns(default_s if self.interval_s is None else self.interval_s)


class CounterSampler:
    """An enabled session of PM sampling. Constructed = enabled, which alone raises the GPU's power; not started.

    Args:
        native: The extension.
        spool: Takes the samples (``_native.Spool``).
        device: The GPU.
        options: Metrics and interval.
        cupti_path: A libcupti to use instead of the one that would be found.

    Raises:
        DeviceError: The chip is not known or not the one that its name says, counters are forbidden, or taken.
        NativeError: CUPTI is missing, too old, or refuses.
    """

    def __init__(
        self, native: Any, spool: Any, device: DeviceInfo, options: CounterOptions, cupti_path: str | None = None
    ) -> None:
        chip = _chip(device)
        metrics = metric_set(chip.chip, options.metric_set)
        self._native = native
        with native_faults(native, _HINTS):
            self._sampler = native.PmSampler(
                spool,
                device=device.index,
                uuid=device.uuid,
                metrics=[(int(metric.quantity), metric.metric, metric.factor(chip.num_sms)) for metric in metrics],
                interval_ns=options.interval_ns,
                cupti_path=cupti_path,
                search_dirs=cupti_search_dirs(),
            )
        self._facts = {
            "metric_set": options.metric_set,
            "metrics": {metric.quantity.name: metric.metric for metric in metrics},
            "is_continuous": options.is_continuous,
            **self._sampler.info(),
        }
        if self._facts["num_sms"] != chip.num_sms:  # a mean over SMs would become a wrong sum
            self.close()
            raise DeviceError(
                f"{device.name} has {self._facts['num_sms']} SMs here, and {chip.num_sms} by its datasheet",
                "Its counters cannot be turned into sums over the device; energy is modelled from shapes.",
            )

    def start(self) -> None:
        """Begin sampling. Idempotent; may be called again after `stop`."""
        with native_faults(self._native, _HINTS):
            self._sampler.start()

    def stop(self) -> None:
        """End sampling and decode what is left; the GPU still draws more. Idempotent."""
        self._sampler.stop()

    def close(self) -> None:
        """Stop and disable. Idempotent."""
        self._sampler.close()

    def summary(self) -> dict[str, Any]:
        """For `Manifest.counters`: metrics by quantity, chip, trigger, mode, interval, samples, losses and costs."""
        return {**self._facts, **self._sampler.info(), **self._sampler.stats()}


def _chip(device: DeviceInfo) -> ChipInfo:
    chip = chip_info(device.name, device.properties.get("compute_capability"))
    if chip is None:
        raise DeviceError(
            f"it is not known which counters {device.name} has",
            "Its datasheet is not in the GPU database; energy is modelled without counters.",
        )
    return chip
