"""The energy roofline: what a kernel's operations and bytes cost at least, by the GPU's power model.

Choi, Bedard, Fowler and Vuduc (2013): ``E >= flops * e_flop + bytes * e_mem + P0 * T``. The first two are the floor of
dynamic joules; the constant power P0 (idle and active power) costs the more the longer the kernel takes, and reports
keep it apart as static joules. Where ``flops / bytes`` equals the balance ``e_mem / e_flop`` the two cost the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qmeter_native.model.estimate import Estimate
from qmeter_native.model.power_model import PowerFeature, PowerModel

__all__ = ["EnergyCosts"]

_Z95: Final = 1.96
_FEATURES: Final = {
    "fp16": PowerFeature.FP16_FLOP,
    "bf16": PowerFeature.FP16_FLOP,
    "fp8": PowerFeature.FP8_FLOP,
    "int8": PowerFeature.INT8_OP,
}
_HALF: Final = {"fp8"}
"""Types whose operations count as half as many of `PowerFeature.FP16_FLOP` where the model has none of their own."""


@dataclass(frozen=True, slots=True)
class EnergyCosts:
    """Joules of one byte or operation at the power model's reference clock.

    Attributes:
        model: The power model.
    """

    model: PowerModel

    @property
    def byte_j(self) -> Estimate:
        """A byte of DRAM traffic."""
        return self._cost(PowerFeature.DRAM_BYTES)

    @property
    def constant_w(self) -> float:
        """Idle and active power of a busy chip, in watts: P0 above."""
        return self.model.idle_w + self.model.active_w

    def operation_j(self, operand: str) -> Estimate:
        """An operation on tensor pipes of a type of operands."""
        feature = _FEATURES.get(operand)
        if feature is None:
            return Estimate.missing(f"the power model has no cost of {operand} operations", "modelled: power model")
        if feature not in self.model.features and operand in _HALF:
            return self._cost(PowerFeature.FP16_FLOP, 0.5)
        return self._cost(feature)

    def balance(self, operand: str) -> float | None:
        """Operations a byte at which both cost the same joules; None if a cost is not known, or is nothing."""
        byte, operation = self.byte_j.value, self.operation_j(operand).value
        return byte / operation if byte is not None and operation else None

    def floor_j(self, flops: float, operand: str | None, dram_bytes: float) -> Estimate:
        """Least dynamic joules of work that does ``flops`` and moves ``dram_bytes``; ends of the interval add up."""
        byte = self.byte_j
        operation = self.operation_j(operand) if operand is not None and flops else Estimate(0.0, 0.0, 0.0)
        known = [cost for cost in (byte, operation) if cost.value is None]
        if known:
            return known[0]

        def total(end: str) -> float:
            parts = (getattr(byte, end) or 0.0) * dram_bytes, (getattr(operation, end) or 0.0) * flops
            return float(sum(parts))

        return Estimate(total("value"), total("low"), total("high"), byte.method)

    def _cost(self, feature: PowerFeature, factor: float = 1.0) -> Estimate:
        method = f"modelled: power model ({self.model.source})"
        if feature not in self.model.features:
            return Estimate.missing(f"the power model has no cost of {feature.value}", method)
        position = self.model.features.index(feature)
        joules = factor * float(self.model.coefficient[position])
        half = factor * _Z95 * float(max(self.model.covariance[position, position], 0.0)) ** 0.5
        return Estimate(joules, max(0.0, joules - half), joules + half, method)
