"""Where an energy or power reading came from."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["EnergySource"]


class EnergySource(IntEnum):
    """Source of a reading. The integer is what captures store, in C++ and in Python alike."""

    NVML_TOTAL_ENERGY = 0
    """``nvmlDeviceGetTotalEnergyConsumption``: cumulative, new about every 100 ms on data-centre parts."""
    NVML_POWER_INSTANT = 1
    """``NVML_FI_DEV_POWER_INSTANT``, GPU scope."""
    NVML_POWER_AVERAGE = 2
    """``NVML_FI_DEV_POWER_AVERAGE``, GPU scope: a mean over 1 s on Ampere and newer (not GA100)."""
    NVML_POWER_MEMORY_AVERAGE = 3
    """``NVML_FI_DEV_POWER_AVERAGE``, memory scope (Hopper and newer)."""
    NVML_POWER_SAMPLES = 4
    """The driver's own ring, ``nvmlDeviceGetSamples(TOTAL_POWER_SAMPLES)``: about one every 20 ms on an H200."""
    RAPL = 5
    """Linux powercap package domain: cumulative microjoules with wrap-around, unwrapped by the sampler."""
