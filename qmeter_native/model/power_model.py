"""What a GPU's power is made of: coefficients of work, and the power of a chip that is idle or merely active.

    energy of a window = idle(T) * length + active * clock^active_exponent * busy
                         + sum over kernels of (core(x) * clock^core_exponent + dram(x))

``clock`` is the SM clock over ``reference_mhz``, ``x`` the work that a kernel did by `PowerFeature`, ``core`` and
``dram`` are sums of coefficients times work. The exponents stand for voltage, which falls with the clock: a core event
costs about V². DRAM has a supply and a clock of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from numpy.typing import NDArray

__all__ = ["EnergyMode", "PowerComponent", "PowerFeature", "PowerModel"]

_Array = NDArray[Any]


class PowerComponent(str, Enum):
    """The part of the machine that joules are booked to; all are modelled."""

    DRAM = "dram"
    L2 = "l2"
    TENSOR = "tensor"
    SM = "sm"
    """The rest of the SMs: instructions, registers, shared memory, and being awake."""
    STATIC = "static"


class PowerFeature(str, Enum):
    """Work that costs energy, per launch of a kernel. The value is what profiles store."""

    DRAM_BYTES = "dram_bytes"
    """Read plus written."""
    L2_BYTES = "l2_bytes"
    FP16_FLOP = "fp16_flop"
    """On tensor pipes, 16-bit floating point inputs; a multiply-add is two."""
    FP8_FLOP = "fp8_flop"
    """Likewise of 8-bit floating point, where counters tell it apart. GH100's do not: they count a product of FP8 as
    16-bit cycles, at 8192 FLOP a cycle and SM instead of 4096, so as half as many `FP16_FLOP`."""
    INT8_OP = "int8_op"
    INSTRUCTIONS = "instructions"
    """Warp instructions."""
    SM_SECONDS = "sm_seconds"
    """SM-active time in seconds, averaged over the SMs at the reference clock: what runs costs, whatever it does."""

    @property
    def component(self) -> PowerComponent:
        """Where its joules are booked."""
        return _COMPONENTS[self]

    @property
    def is_core(self) -> bool:
        """Whether it is supplied by the core's voltage, which falls with the SM clock."""
        return self is not PowerFeature.DRAM_BYTES


_COMPONENTS = {
    PowerFeature.DRAM_BYTES: PowerComponent.DRAM,
    PowerFeature.L2_BYTES: PowerComponent.L2,
    PowerFeature.FP16_FLOP: PowerComponent.TENSOR,
    PowerFeature.FP8_FLOP: PowerComponent.TENSOR,
    PowerFeature.INT8_OP: PowerComponent.TENSOR,
    PowerFeature.INSTRUCTIONS: PowerComponent.SM,
    PowerFeature.SM_SECONDS: PowerComponent.SM,
}


class EnergyMode(str, Enum):
    """What is known of the work of kernels, best first."""

    COUNTERS = "counters"
    """PM sampling measured it."""
    SHAPES = "shapes"
    """Bytes and FLOPs by the model's arithmetic."""
    TIME = "time"
    """How long they ran."""


@dataclass(frozen=True, slots=True)
class PowerModel:
    """Coefficients of one GPU, and how far they can be trusted.

    Attributes:
        features: What the coefficients are of, K of them.
        coefficient: float64 (K,), joules a unit at the reference clock; none negative.
        covariance: float64 (K, K), of the coefficients.
        reference_mhz: SM clock at which they hold.
        core_exponent: Power of the clock ratio that a core event's energy goes with.
        active_w: Power of a busy chip above idle that no work explains, at the reference clock.
        active_error_w: Its standard error.
        active_exponent: Power of the clock ratio that it goes with.
        idle_w: Power with a context and no kernel, at ``idle_temperature_c``.
        idle_w_per_k: How it grows with temperature, leakage.
        idle_temperature_c: Degrees Celsius.
        discrepancy: By `EnergyMode`, standard deviation over mean of kernels' dynamic energy around what the model
            says: leave-one-kernel-out, so that a kernel never seen errs by this much.
        window_error: Standard deviation over mean of a window's energy around the model fitted to it: what the form of
            the model cannot follow.
        source: ``calibrated`` or ``datasheet``.
        unseen: Features that no kernel of the calibration had work of: their coefficients are the prior's.
    """

    features: tuple[PowerFeature, ...]
    coefficient: _Array
    covariance: _Array
    reference_mhz: float
    core_exponent: float
    active_w: float
    active_error_w: float
    active_exponent: float
    idle_w: float
    idle_w_per_k: float
    idle_temperature_c: float
    discrepancy: dict[EnergyMode, float]
    window_error: float
    source: str
    unseen: frozenset[PowerFeature] = frozenset()

    def idle_at(self, temperature_c: _Array) -> _Array:
        """Idle power in watts at temperatures in degrees Celsius, elementwise."""
        idle: _Array = self.idle_w + self.idle_w_per_k * (temperature_c - self.idle_temperature_c)
        return idle
