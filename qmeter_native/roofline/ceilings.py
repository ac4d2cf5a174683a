"""What a GPU allows: bytes a second of its memories, operations a second by type of operands, and where they meet.

The roofline model (Williams, Waterman and Patterson, 2009): of a kernel that does I operations for each byte of memory,
the machine allows ``min(peak, I * bandwidth)`` operations a second. The ridge is the I at which the two are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qmeter_native.devices.default_profile import datasheet_ceilings
from qmeter_native.devices.gpu_database import TENSOR_TYPES, ChipInfo, chip_info
from qmeter_native.model.device_profile import Ceiling, DeviceProfile
from qmeter_native.model.estimate import Estimate

__all__ = ["DRAM", "DeviceCeilings", "Roof", "native_type"]

DRAM: Final = "dram_read"
"""The DRAM roof where it is not known which part of the traffic is written: the highest of the three."""

_MIXED: Final = 0.1
"""Part of the traffic that is written from which, and up to all but which, DRAM copies: turning its bus costs time."""

_FALLBACKS: Final[Mapping[str, tuple[str, ...]]] = {
    "fp4": ("fp8", "fp16", "fp32"),
    "fp8": ("fp16", "fp32"),
    "int8": ("fp16", "fp32"),
    "bf16": ("fp16", "fp32"),
    "tf32": ("fp32",),
    "fp16": ("fp32",),
}
"""What a product of a type runs as where tensor pipes lack it, best first: its operands are widened on the way."""


@dataclass(frozen=True, slots=True)
class Roof:
    """A rate that bounds kernels.

    Attributes:
        name: As `Ceiling` calls it: ``dram_read``, ``dram_write``, ``dram_copy``, ``l2_read``, or a type of operands.
        unit: ``B/s``, ``FLOP/s`` or ``OP/s``.
        rate: With its interval where it was measured; without one where it is the datasheet's.
        is_measured: By calibration, on this GPU.
        datasheet: The vendor's figure; None if not known.
    """

    name: str
    unit: str
    rate: Estimate
    is_measured: bool
    datasheet: float | None

    @property
    def value(self) -> float:
        """The rate."""
        return self.rate.value or 0.0

    @property
    def low(self) -> float:
        """Lower end of its interval; the rate itself where there is none."""
        return self.value if self.rate.low is None else self.rate.low

    @property
    def high(self) -> float:
        """Upper end of its interval; the rate itself where there is none."""
        return self.value if self.rate.high is None else self.rate.high


@dataclass(frozen=True, slots=True)
class DeviceCeilings:
    """All roofs of one GPU.

    Attributes:
        gpu: The vendor's name, or the product's where only a datasheet is known.
        roofs: By name, those that are known.
        chip: The datasheet; None if there is none.
        date: When it was calibrated, ISO 8601; empty if it was not.
    """

    gpu: str
    roofs: Mapping[str, Roof]
    chip: ChipInfo | None
    date: str = ""

    @classmethod
    def of_profile(cls, profile: DeviceProfile) -> DeviceCeilings:
        """Measured rates; the datasheet's where one was not measured."""
        chip = chip_info(profile.name)
        listed = {} if chip is None else {ceiling.name: ceiling for ceiling in datasheet_ceilings(chip)}
        return cls(profile.name, _roofs({**listed, **{one.name: one for one in profile.ceilings}}), chip, profile.date)

    @classmethod
    def of_chip(cls, chip: ChipInfo) -> DeviceCeilings:
        """The datasheet's rates alone."""
        return cls(f"NVIDIA {chip.product}", _roofs({one.name: one for one in datasheet_ceilings(chip)}), chip)

    @property
    def is_measured(self) -> bool:
        """Whether any roof was measured."""
        return any(roof.is_measured for roof in self.roofs.values())

    @property
    def types(self) -> tuple[str, ...]:
        """Types of operands with a roof of their own, in the order of `TENSOR_TYPES`."""
        return tuple(name for name in TENSOR_TYPES if name in self.roofs)

    def dram(self, write_share: float | None = None) -> Roof | None:
        """The roof of DRAM traffic of which that part is written; None as a share: not known, taken as read."""
        share = write_share or 0.0
        name = "dram_read" if share < _MIXED else "dram_write" if share > 1 - _MIXED else "dram_copy"
        return self.roofs.get(name)

    def ridge(self, operand: str, memory: str = DRAM) -> float | None:
        """Operations a byte from which a product of a type is bound by arithmetic; None if a roof is missing."""
        peak, bandwidth = self.roofs.get(operand), self.roofs.get(memory)
        return None if peak is None or bandwidth is None else peak.value / bandwidth.value

    def attainable(self, intensity: float, operand: str, memory: str = DRAM) -> float | None:
        """Operations a second that the machine allows at that many operations a byte; None if a roof is missing."""
        peak, bandwidth = self.roofs.get(operand), self.roofs.get(memory)
        if peak is None or bandwidth is None:
            return None
        return min(peak.value, intensity * bandwidth.value)


def native_type(ceilings: DeviceCeilings, operand: str) -> str | None:
    """The type that a product of ``operand`` runs in on a GPU: itself, or what it falls back to; None: in none."""
    return next((name for name in (operand, *_FALLBACKS.get(operand, ())) if name in ceilings.roofs), None)


def _roofs(ceilings: Mapping[str, Ceiling]) -> dict[str, Roof]:
    found = {}
    for name, ceiling in ceilings.items():
        if ceiling.measured.value is not None:
            found[name] = Roof(name, ceiling.unit, ceiling.measured, True, ceiling.datasheet)
        elif ceiling.datasheet is not None:
            rate = Estimate(ceiling.datasheet, method="datasheet", reason=ceiling.measured.reason)
            found[name] = Roof(name, ceiling.unit, rate, False, ceiling.datasheet)
    return found
