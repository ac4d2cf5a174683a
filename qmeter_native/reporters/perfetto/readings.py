"""Power, clocks and temperature as counters under their device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.tables import ClockTable
from qmeter_native.reporters.perfetto.packets import Readings
from qmeter_native.reporters.perfetto.stage import Stage
from qmeter_native.units import NS_PER_S, UJ_PER_J, mw_to_w

__all__ = ["clock_readings", "counter_readings", "power_readings"]

_POWER_NAMES: Final = {
    EnergySource.NVML_POWER_INSTANT: "power, instant",
    EnergySource.NVML_POWER_AVERAGE: "power, 1 s mean",
    EnergySource.NVML_POWER_MEMORY_AVERAGE: "power, memory",
    EnergySource.NVML_POWER_SAMPLES: "power",
}
_CLOCKS: Final = (
    ("sm_mhz", "SM clock", "MHz"),
    ("memory_mhz", "memory clock", "MHz"),
    ("temperature_c", "temperature", "°C"),
)


def power_readings(stage: Stage) -> Iterator[Readings]:
    """Power in watts, a counter for each device and source."""
    power = stage.capture.power
    inside = np.isin(np.arange(len(power)), stage.window.touches(power.time_ns, power.time_ns))
    for device, parent in stage.device_tracks.items():
        for source in np.unique(power.source[power.device == device]).tolist():
            rows = np.flatnonzero(inside & (power.device == device) & (power.source == source))
            if not len(rows):
                continue
            name = _POWER_NAMES.get(EnergySource(source), EnergySource(source).name.lower())
            track = stage.tracks.add(name, parent, "W")
            yield Readings(power.time_ns[rows], np.full(len(rows), track), power.power_mw[rows] * mw_to_w(1))


def counter_readings(stage: Stage) -> Iterator[Readings]:
    """Mean power between the edges of an energy counter, in watts: each reading holds until the next edge."""
    energy = stage.capture.energy
    for device, parent in stage.device_tracks.items():
        for source in np.unique(energy.source[energy.device == device]).tolist():
            rows = np.flatnonzero((energy.device == device) & (energy.source == source))
            time = (energy.low_ns[rows] + energy.high_ns[rows]) // 2
            seconds = np.maximum(np.diff(time), 1) / NS_PER_S  # two edges may lie in one bracket
            watts = np.diff(energy.energy_uj[rows]) / UJ_PER_J / seconds
            inside = stage.window.touches(time[:-1], time[1:])
            if len(inside):
                name = f"mean power, {EnergySource(source).name.lower()}"
                track = np.full(len(inside), stage.tracks.add(name, parent, "W"))
                yield Readings(time[inside], track, watts[inside])


def clock_readings(stage: Stage) -> Iterator[Readings]:
    """Clocks in MHz and temperature in °C, a counter for each device and what was readable there."""
    clocks: ClockTable = stage.capture.clocks
    inside = np.isin(np.arange(len(clocks)), stage.window.touches(clocks.time_ns, clocks.time_ns))
    for device, parent in stage.device_tracks.items():
        for column, name, unit in _CLOCKS:
            values = getattr(clocks, column)
            rows = np.flatnonzero(inside & (clocks.device == device) & (values >= 0))
            if len(rows):
                track = stage.tracks.add(name, parent, unit)
                yield Readings(clocks.time_ns[rows], np.full(len(rows), track), values[rows])
