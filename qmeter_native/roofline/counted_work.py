"""What hardware counters saw launches do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.counter_work import counter_work
from qmeter_native.attribution.kernel_counters import kernel_counters
from qmeter_native.devices.gpu_database import chip_info
from qmeter_native.model.capture import Capture
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.manifest import DeviceInfo
from qmeter_native.model.power_model import PowerFeature

__all__ = ["CountedSum", "CountedWork"]

_Array = NDArray[Any]

_PIPES: Final = {PowerFeature.FP16_FLOP: "fp16", PowerFeature.FP8_FLOP: "fp8", PowerFeature.INT8_OP: "int8"}
_FEATURES: Final = (PowerFeature.DRAM_BYTES, PowerFeature.L2_BYTES, *_PIPES)


@dataclass(frozen=True, slots=True)
class CountedSum:
    """Counted work of some launches: bytes of DRAM, the part written, bytes through L2, operations and their type."""

    dram_bytes: float
    write_share: float | None
    l2_bytes: float | None
    flops: tuple[float, str | None]


@dataclass(frozen=True, slots=True)
class CountedWork:
    """Work of one launch of each kernel class (C), by PM samples of one device.

    Attributes:
        per_launch: float64 (C, K), by `PowerFeature` in the order: DRAM, L2, FP16, FP8, INT8.
        write_bytes: float64 (C,), of the DRAM bytes those written.
        is_measured: bool (C,).
        has_l2: L2's sectors were sampled.
    """

    per_launch: _Array
    write_bytes: _Array
    is_measured: _Array
    has_l2: bool

    @classmethod
    def of(cls, capture: Capture, device: DeviceInfo) -> CountedWork | None:
        """None where DRAM's counters were not sampled, or where there is no datasheet."""
        chip = chip_info(device.name, device.properties.get("compute_capability"))
        counters = None if chip is None else kernel_counters(capture, device.index)
        if chip is None or counters is None:
            return None
        read = counters.of_quantity(CounterQuantity.DRAM_READ_BYTES)
        written = counters.of_quantity(CounterQuantity.DRAM_WRITE_BYTES)
        if read is None or written is None:
            return None
        has_l2 = CounterQuantity.L2_SECTORS in counters.quantities
        return cls(counter_work(counters, chip, _FEATURES), written, counters.is_measured, has_l2)

    def total(self, classes: _Array, launches: _Array, min_known: float) -> CountedSum | None:
        """Work of ``launches`` of ``classes``; None if less than ``min_known`` of them are measured.

        Of those that are not, launches did what the others did on average.
        """
        known = launches * self.is_measured[classes]
        if not launches.sum() or known.sum() < min_known * launches.sum():
            return None
        scale = float(launches.sum() / known.sum())
        sums = scale * (known @ self.per_launch[classes])
        dram_bytes = float(sums[0])
        written = scale * float(known @ self.write_bytes[classes])
        pipes = sums[2:]
        kind = list(_PIPES.values())[int(np.argmax(pipes))] if pipes.any() else None
        return CountedSum(
            dram_bytes=dram_bytes,
            write_share=written / dram_bytes if dram_bytes else None,
            l2_bytes=float(sums[1]) if self.has_l2 else None,
            flops=(float(pipes.sum()), kind),
        )
