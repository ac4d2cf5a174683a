"""What a benchmark measures: points, how often, and at which of them energy too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qmeter_native.errors import UsageError
from qmeter_native.kernels.catalog import KernelFormat

__all__ = ["MAX_ENERGY_ROWS", "BenchmarkPlan", "energy_points"]

MAX_ENERGY_ROWS: Final = 40
"""Loops of 6 s and their rests: 5 minutes."""

_ENERGY_M: Final = (1, 16, 1024, 128, 4096)
"""Numbers of tokens in the order in which energy is worth its time: decoding alone, in a batch, prefill."""
_ENERGY_ELEMENTS: Final = 8192 * 8192
"""Weights of the shape that is taken, or as near to it as there is: large enough that DRAM is what costs."""

_MIN_REPEATS: Final = 9
"""The fewest of which the 95 % interval leaves out the lowest and the highest."""

Point = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class BenchmarkPlan:
    """What to measure.

    Attributes:
        formats: In that order.
        shapes: N and K.
        tokens: M.
        dtype: ``float16`` or ``bfloat16``: of activations, and of outputs where activations are quantized.
        num_repeats: Bursts of each kernel at each point; 9 or more.
        has_energy: Whether joules of a call are measured at some points.
        working_set_bytes: Least that the copies of a weight take together.
        budget_s: Seconds after which no further point begins; None: no limit.
        seed: Of data.
    """

    formats: tuple[KernelFormat, ...]
    shapes: tuple[tuple[int, int], ...]
    tokens: tuple[int, ...]
    dtype: str = "float16"
    num_repeats: int = _MIN_REPEATS
    has_energy: bool = False
    working_set_bytes: int = 4 * (60 << 20)
    budget_s: float | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if self.num_repeats < _MIN_REPEATS:
            raise UsageError(f"{self.num_repeats} repeats are too few", f"Give --repeats {_MIN_REPEATS} or more.")
        if self.budget_s is not None and not self.budget_s > 0:
            raise UsageError(f"a budget of {self.budget_s:g} s is none", "Give --budget a positive number of seconds.")

    @property
    def num_points(self) -> int:
        """Products of every format, shape and number of tokens."""
        return len(self.formats) * len(self.shapes) * len(self.tokens)


def energy_points(plan: BenchmarkPlan, num_kernels: Mapping[str, int]) -> frozenset[Point]:
    """Points of which every kernel's joules are measured, at most `MAX_ENERGY_ROWS` rows of them.

    Args:
        plan: Its points are chosen from.
        num_kernels: Contenders by label of format.
    """
    if not plan.has_energy:
        return frozenset()
    chosen: list[Point] = []
    left = MAX_ENERGY_ROWS
    n, k = min(plan.shapes, key=lambda shape: abs(shape[0] * shape[1] - _ENERGY_ELEMENTS))
    for m in _in_order(plan.tokens):
        for form in plan.formats:
            rows = num_kernels.get(form.label, 0)
            if 0 < rows <= left:
                chosen.append((form.label, m, n, k))
                left -= rows
    return frozenset(chosen)


def _in_order(tokens: Sequence[int]) -> list[int]:
    """The preferred numbers that there are, then the others."""
    return [m for m in _ENERGY_M if m in tokens] + [m for m in tokens if m not in _ENERGY_M]
