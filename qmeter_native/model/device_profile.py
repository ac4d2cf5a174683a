"""What calibration found out about one GPU: its sensor, its ceilings, its power model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from qmeter_native.model.estimate import Estimate
from qmeter_native.model.power_model import PowerModel

__all__ = ["PROFILE_SCHEMA_VERSION", "Ceiling", "DeviceProfile", "ModelFit", "SensorModel"]

PROFILE_SCHEMA_VERSION = 1
"""Version of the JSON document. 1: first version."""

_NOT_FITTED: Final = Estimate.missing("calibrated before the counter's looks were fitted")


@dataclass(frozen=True, slots=True)
class SensorModel:
    """How a GPU's energy sensor sees its power.

    Attributes:
        tick_s: Time between two changes of the energy counter.
        power_sample_s: Time between two of the driver's power samples.
        window_s: Over how long a power sample averages.
        lag_s: How late a power sample is stamped, beyond half its window.
        counter_call_s: What one call for the counter costs.
        phase_error: Relative spread of the counter's energy of 100-ms pulses over their phase to its ticks.
        window_error: Standard deviation over mean of equal windows' energy.
        counter_look_s: Between two of the counter's looks at the power; a tick adds up one or several.
        counter_time_constant_s: Of the low-pass that the power goes through before; far longer than ``counter_look_s``,
            and the counter is an integral.
        counter_lag_s: From the last look to the tick.
        phase_error_seen: As ``phase_error``, beside what the looks explain.
    """

    tick_s: Estimate
    power_sample_s: Estimate
    window_s: Estimate
    lag_s: Estimate
    counter_call_s: Estimate
    phase_error: Estimate
    window_error: float
    counter_look_s: Estimate = _NOT_FITTED
    counter_time_constant_s: Estimate = _NOT_FITTED
    counter_lag_s: Estimate = _NOT_FITTED
    phase_error_seen: Estimate = _NOT_FITTED


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A rate that the machine can reach.

    Attributes:
        name: ``dram_read``, ``dram_write``, ``dram_copy``, ``l2_read``, ``fp32``, ``fp16``, ``bf16``, ``fp8``,
            ``int8``.
        unit: ``B/s``, ``FLOP/s`` or ``OP/s``.
        measured: Median with its interval; missing with a reason where it was not measured.
        datasheet: The vendor's figure, dense; None if not known.
        clock_mhz: Median SM clock while it was measured; None if not read.
        kernel: What ran.
    """

    name: str
    unit: str
    measured: Estimate
    datasheet: float | None
    clock_mhz: float | None = None
    kernel: str = ""


@dataclass(frozen=True, slots=True)
class ModelFit:
    """How well the power model does on kernels and windows that its fit did not see; errors are relative.

    Attributes:
        kernel_error_median, kernel_error_p95: Energy of kernels left out of the fit.
        window_error_median, window_error_p95: Energy of windows left out.
        num_kernels, num_windows: How many.
        kernels: By kernel, its error when left out.
    """

    kernel_error_median: float
    kernel_error_p95: float
    window_error_median: float
    window_error_p95: float
    num_kernels: int
    num_windows: int
    kernels: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """One GPU as calibration saw it; or what its datasheet lets expect, which `power_model.source` says.

    Attributes:
        uuid: NVML's UUID; empty for a profile of all devices of a name.
        name: The vendor's name.
        date: When it was made, ISO 8601; empty for datasheets.
        sensor: None for datasheets.
        ceilings: Measured and datasheet rates.
        power_model: Coefficients.
        fit: None for datasheets.
        software: Versions of what ran, the driver's among them.
        notes: What weakens it, in sentences.
    """

    uuid: str
    name: str
    date: str
    sensor: SensorModel | None
    ceilings: tuple[Ceiling, ...]
    power_model: PowerModel
    fit: ModelFit | None = None
    software: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
