"""The memory's own power readings as a second constraint: which kernels' bytes cost more or less than usual.

Where a device tells the power of its memory (``NVML_FI_DEV_POWER_AVERAGE`` in the memory's scope, Hopper and newer),
that of a block of windows (B) is ``idle * length + awake * busy + Σ units * m_c``, m_c a kernel's joules in the memory
alone. The prior ties m_c to the bytes that a unit moves, like the whole joules of a unit to its work. What m_c is found
to be beyond its bytes' share (writes cost more than reads, random bits more than constant ones) is part of the whole
joules of a unit as well: it moves their prior (`memory_shift`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.energy_problem import EnergyProblem
from qmeter_native.attribution.robust_posterior import robust_posterior
from qmeter_native.model.capture import Capture
from qmeter_native.model.energy_source import EnergySource
from qmeter_native.model.power_model import PowerFeature
from qmeter_native.units import NS_PER_S, mw_to_w

__all__ = ["MemoryPower", "memory_shift"]

_Array = NDArray[Any]

_MEAN_NS: Final = NS_PER_S
"""A reading is the mean of the second before it."""
_BLOCK_NS: Final = 3 * NS_PER_S
"""Blocks are at least this long, so that most of one lies in readings that see nothing but it."""
_MIN_BLOCKS: Final = 3
_MIN_READINGS: Final = 5
_MIN_TRACED: Final = 0.9
_READING_ERROR: Final = 0.04
"""Relative error of a block's mean: 4 W around 100 W on an H200, whose sensor looks at the power every 20 ms."""
_LEAST_ERROR_W: Final = 1.0

_BYTE_J: Final = (44e-12, 15e-12)
"""Joules a byte in the memory's scope and their standard error. 72 windows of 14 kernels on an H200 gave 41 to 44
pJ/B (least squares, rest 17 W)."""
_AWAKE_W: Final = (20.0, 15.0)
"""Of the memory beyond idle while any kernel runs; likewise 25 W on the H200."""
_IDLE_ERROR_W: Final = 5.0
_DISCREPANCY: Final = 0.3
"""Standard deviation over mean of kernels' joules a byte: 14 kernels on the H200 had 0.7 to 1.6 of their mean."""


@dataclass(frozen=True, slots=True)
class MemoryPower:
    """Energy of a device's memory in blocks of windows (B).

    Attributes:
        energy_j: float64 (B,), idle memory included.
        error_j: float64 (B,), standard error.
        length_s: float64 (B,).
        busy_s: float64 (B,), union of all kernels.
        units: float64 (B, C), as in `EnergyProblem`.
        idle_w: The memory's power before the run; the lowest reading if it was not read then.
    """

    energy_j: _Array
    error_j: _Array
    length_s: _Array
    busy_s: _Array
    units: _Array
    idle_w: float

    @classmethod
    def of(cls, capture: Capture, device: int, cuts_ns: _Array, problem: EnergyProblem) -> MemoryPower | None:
        """Of windows that lie one after another between ``cuts_ns``, int64 (W + 1,).

        None where the device does not tell it, or for fewer than three blocks.
        """
        table = capture.power
        rows = np.flatnonzero((table.device == device) & (table.source == EnergySource.NVML_POWER_MEMORY_AVERAGE))
        time_ns, first = np.unique(table.time_ns[rows], return_index=True)
        power_w = table.power_mw[rows[first]] * mw_to_w(1)
        blocks = [
            (block, power_w[_inside(time_ns, cuts_ns[block.start], cuts_ns[block.stop])])
            for block in _blocks(cuts_ns, problem)
        ]
        blocks = [(block, readings) for block, readings in blocks if len(readings) >= _MIN_READINGS]
        if len(blocks) < _MIN_BLOCKS:
            return None
        mean_w = np.array([readings.mean() for _, readings in blocks])
        spread_w = np.array([readings.std() / 2 for _, readings in blocks])
        length_s = np.array([problem.length_s[block].sum() for block, _ in blocks])
        manifest = capture.manifest
        before = power_w[_inside(time_ns, manifest.start_ns, manifest.measure_start_ns)]
        return cls(
            energy_j=mean_w * length_s,
            error_j=np.maximum(np.hypot(_READING_ERROR * mean_w, spread_w), _LEAST_ERROR_W) * length_s,
            length_s=length_s,
            busy_s=np.array([problem.busy_s[block].sum() for block, _ in blocks]),
            units=np.array([problem.units[block].sum(axis=0) for block, _ in blocks]),
            idle_w=float(before.mean() if len(before) else power_w.min()),
        )


def _blocks(cuts_ns: _Array, problem: EnergyProblem) -> list[slice]:
    """Windows in blocks of three seconds; blocks with windows that are not fitted, or hardly traced, are left out."""
    traced = problem.length_s >= _MIN_TRACED * np.diff(cuts_ns) / NS_PER_S
    blocks, begin = [], 0
    for end in range(1, len(cuts_ns)):
        if cuts_ns[end] - cuts_ns[begin] >= _BLOCK_NS:
            block = slice(begin, end)
            if np.all(problem.is_fitted[block] & traced[block]):
                blocks.append(block)
            begin = end
    return blocks


def _inside(time_ns: _Array, begin_ns: int, end_ns: int) -> slice:
    """Readings whose second lies within a time."""
    return slice(*np.searchsorted(time_ns, [begin_ns + _MEAN_NS, end_ns]))


def memory_shift(memory: MemoryPower, problem: EnergyProblem) -> _Array | None:
    """Joules (C,) that a unit of each class costs in the memory beyond its bytes' usual share; may be negative.

    None where the bytes of no class are known.
    """
    if PowerFeature.DRAM_BYTES not in problem.features:
        return None
    moved = problem.work[:, problem.features.index(PowerFeature.DRAM_BYTES)]
    known = np.flatnonzero(moved > 0)
    if not len(known):
        return None
    byte_j, byte_error_j = _BYTE_J
    awake_w, awake_error_w = _AWAKE_W
    num_known = len(known)
    scale = np.concatenate([moved[known] * byte_j, [byte_j, awake_w, memory.idle_w or 1.0]])
    columns = [memory.units[:, known], np.zeros((len(memory.energy_j), 1)), memory.busy_s[:, None]]
    design = np.column_stack([*columns, memory.length_s]) * scale
    certainty = 1.0 / _DISCREPANCY**2
    precision = np.diag(
        [
            *np.full(num_known, certainty),
            num_known * certainty + (byte_j / byte_error_j) ** 2,
            (awake_w / awake_error_w) ** 2,
            (scale[-1] / _IDLE_ERROR_W) ** 2,
        ]
    )
    precision[:num_known, num_known] = precision[num_known, :num_known] = -certainty
    mean = np.append(np.ones(num_known + 2), memory.idle_w / scale[-1])
    found = robust_posterior(design, memory.energy_j, memory.error_j, mean, precision).solution
    shift = np.zeros(problem.num_classes)
    shift[known] = (found[:num_known] - found[num_known]) * scale[:num_known]
    return shift
