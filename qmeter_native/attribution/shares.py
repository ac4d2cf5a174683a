"""Engine step → request: what each request used of a step's device time and energy.

Each family of operations has one rule that says in which proportion the riders of a step caused its work. Nanoseconds
are shared in integers: with weights summed up to ``c_0 = 0, c_1, … c_n = W`` and a time T, rider i gets
``floor(T * c_i / W) - floor(T * c_{i-1} / W)``; those add up to T whatever the rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.phase import Phase
from qmeter_native.model.tables import RequestTable, StepRequestTable, StepTable

__all__ = ["RULE_OF_FAMILY", "Rides", "ShareRule", "step_rows"]

_Array = NDArray[Any]


class ShareRule(IntEnum):
    """In which proportion the riders of a step caused its work."""

    TOKENS = 0
    """By scheduled tokens."""
    ATTENTION = 1
    """By pairs of query and key: q scheduled tokens on c cached ones make ``q * c + q * (q + 1) / 2``."""
    SAMPLED = 2
    """By sampled sequences; by tokens in a step that samples none."""


RULE_OF_FAMILY: Final[dict[OpFamily, ShareRule]] = {
    **dict.fromkeys(OpFamily, ShareRule.TOKENS),
    OpFamily.ATTENTION: ShareRule.ATTENTION,
    OpFamily.SAMPLING: ShareRule.SAMPLED,
}
"""Everything but attention and sampling goes by tokens. An LM head's GEMM goes by tokens too: its name does not tell
it from any other."""


@dataclass(frozen=True, slots=True)
class Rides:
    """Who rode which step, in order of step row, with each one's part of every rule.

    Attributes:
        step_row: int64, row of `StepTable`.
        request_row: int64, index into ``requests``.
        phase: `Phase`.
        num_scheduled: int32, tokens computed.
        is_first: Mask of the first ride of each step.
        low, high: float64 ``(rules, rides)``, the running share of the step before and after the ride, 0 to 1.
        requests: int32, all requests that are in the request table or rode a step, sorted.
        num_steps: Rows of `StepTable`.
    """

    step_row: _Array
    request_row: _Array
    phase: _Array
    num_scheduled: _Array
    is_first: _Array
    low: _Array
    high: _Array
    requests: _Array
    num_steps: int

    @classmethod
    def of(cls, steps: StepTable, rides: StepRequestTable, requests: RequestTable) -> Rides:
        """Join the riders with their steps; rides of steps that were not recorded are left out."""
        step_row = step_rows(steps, rides)
        order = np.argsort(step_row, kind="stable")
        order = order[np.searchsorted(step_row[order], 0) :]
        step_row, rides = step_row[order], rides.take(order)
        known = np.union1d(requests.request, rides.request)
        is_first = np.ones(len(order), bool)
        is_first[1:] = step_row[1:] != step_row[:-1]
        bounds = [_running_shares(weight, is_first) for weight in _weights(rides, step_row, len(steps))]
        empty = np.empty((len(ShareRule), 0))
        return cls(
            step_row=step_row,
            request_row=np.searchsorted(known, rides.request),
            phase=rides.phase,
            num_scheduled=rides.num_scheduled,
            is_first=is_first,
            low=np.stack([low for low, _ in bounds]) if len(order) else empty,
            high=np.stack([high for _, high in bounds]) if len(order) else empty,
            requests=known,
            num_steps=len(steps),
        )

    @property
    def has_riders(self) -> _Array:
        """Mask over steps: someone rode it."""
        return np.bincount(self.step_row, minlength=self.num_steps) > 0

    def share_ns(self, step_ns: _Array) -> _Array:
        """Each ride's part, int64, of ``step_ns``: int64 ``(steps, rules)``. Steps without riders are left out."""
        total = np.zeros(len(self.step_row), np.int64)
        for rule in ShareRule:
            time = step_ns[self.step_row, rule]
            total += np.floor(time * self.high[rule]).astype(np.int64) - np.floor(time * self.low[rule]).astype(
                np.int64
            )
        return total

    def share_j(self, step_j: _Array) -> _Array:
        """Each ride's part, float64, of ``step_j``: float64 ``(steps, rules)``."""
        total = np.zeros(len(self.step_row))
        for rule in ShareRule:
            total += step_j[self.step_row, rule] * (self.high[rule] - self.low[rule])
        return total

    def prefill_fraction(self) -> _Array:
        """Part of each step's work that prefills caused, float64 ``(steps, rules)``; 0 in steps without riders."""
        is_prefill = self.phase == Phase.PREFILL
        parts = [
            np.bincount(self.step_row[is_prefill], (high - low)[is_prefill], self.num_steps)
            for low, high in zip(self.low, self.high, strict=True)
        ]
        return np.stack(parts, axis=1)


def step_rows(steps: StepTable, rides: StepRequestTable) -> _Array:
    """Row of each ride's step, -1 if it was not recorded."""
    result = np.full(len(rides), -1, np.int64)
    for process in np.unique(rides.process):
        rows = np.flatnonzero(steps.process == process)
        if len(rows) == 0:
            continue
        rows = rows[np.argsort(steps.step[rows], kind="stable")]
        mine = np.flatnonzero(rides.process == process)
        position = np.minimum(np.searchsorted(steps.step[rows], rides.step[mine]), len(rows) - 1)
        result[mine] = np.where(steps.step[rows][position] == rides.step[mine], rows[position], -1)
    return result


def _weights(rides: StepRequestTable, step_row: _Array, num_steps: int) -> tuple[_Array, _Array, _Array]:
    """int64 weight of each ride by each rule, in the order of `ShareRule`; no step's weights are all 0."""
    tokens = _or_else(rides.num_scheduled.astype(np.int64), np.ones(len(rides), np.int64), step_row, num_steps)
    queries = rides.num_scheduled.astype(np.int64)
    pairs = queries * rides.context_len + queries * (queries + 1) // 2
    sampled = rides.num_sampled.astype(np.int64)
    return tokens, _or_else(pairs, tokens, step_row, num_steps), _or_else(sampled, tokens, step_row, num_steps)


def _or_else(weight: _Array, other: _Array, step_row: _Array, num_steps: int) -> _Array:
    """``weight``, but ``other`` in steps where all of it is 0."""
    is_zero = np.bincount(step_row, weight, num_steps)[step_row] == 0
    return np.where(is_zero, other, weight)


def _running_shares(weight: _Array, is_first: _Array) -> tuple[_Array, _Array]:
    """Running sum of weights within each step, before and after each ride, over the step's sum."""
    if len(weight) == 0:
        return weight.astype(float), weight.astype(float)
    after = np.cumsum(weight)
    first = np.flatnonzero(is_first)
    counts = np.diff(np.concatenate([first, [len(weight)]]))
    base = np.repeat(after[first] - weight[first], counts)
    total = np.repeat(after[first + counts - 1], counts) - base
    return (after - weight - base) / total, (after - base) / total
