"""What a hardware counter counts, whatever a chip calls it."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CounterQuantity"]


class CounterQuantity(IntEnum):
    """A quantity summed over the whole device. The integer is what captures store.

    Cycles are summed over SMs: a quantity that a chip offers as a mean over its SMs is multiplied by their number.
    """

    DRAM_READ_BYTES = 0
    DRAM_WRITE_BYTES = 1
    L2_SECTORS = 2
    """Sectors of 32 bytes that L2 was asked for, hits and misses."""
    SM_ACTIVE_CYCLES = 3
    """SM cycles with at least one warp."""
    SM_ELAPSED_CYCLES = 4
    """SM cycles: their quotient by time and SMs is the SM clock."""
    INSTRUCTIONS = 5
    """Warp instructions."""
    TENSOR_CYCLES = 6
    """SM cycles in which the tensor pipes worked, of any type: one cycle of one of an SM's four pipes is a quarter."""
    TENSOR_HMMA_CYCLES = 7
    """Of these, 16-bit floating point, and 8-bit where the chip has no `TENSOR_QMMA_CYCLES`."""
    TENSOR_IMMA_CYCLES = 8
    """Of these, integer."""
    TENSOR_QMMA_CYCLES = 9
    """Of these, 8-bit floating point, where the chip tells it apart."""
    WARP_CYCLES = 10
    """Resident warps, summed over SM cycles."""
    SHARED_WAVEFRONTS = 11
    """Accesses of L1 and shared memory's data stage, in wavefronts."""
