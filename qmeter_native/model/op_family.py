"""Families of operations: what a kernel is for, whoever wrote it."""

from __future__ import annotations

from enum import Enum

__all__ = ["OpFamily"]


class OpFamily(Enum):
    """What a kernel is for. The value is what reports print.

    ``METER`` is the time and energy of qmeter-native's own step markers; ``OTHER`` is a kernel that no rule knows.
    """

    GEMM = "gemm"
    ATTENTION = "attention"
    NORM = "norm"
    ACTIVATION = "activation"
    QUANTIZE = "quantize"
    DEQUANTIZE = "dequantize"
    MOE = "moe"
    KV_CACHE = "kv_cache"
    SAMPLING = "sampling"
    COMMUNICATION = "communication"
    MEMORY = "memory"
    METER = "meter"
    OTHER = "other"
