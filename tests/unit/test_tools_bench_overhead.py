"""How overheads are computed from runs, with engines that take as long as they are told."""

from __future__ import annotations

from typing import cast

import pytest

from tools.bench_overhead import Mode, nothing, overheads
from tools.overhead_engine import Engine, Load

LOAD = Load(batch=32, input_len=8, output_len=8)


class FakeEngine:
    """Becomes slower by 1 % of the first run's TPOT with each run, as a card that warms up."""

    def __init__(self, log: list[str], name: str, tpot_s: float) -> None:
        self._log, self._name, self._tpot_s = log, name, tpot_s
        self._num_runs = 0

    def run(self, load: Load) -> float:
        self._log.append(self._name)
        self._num_runs += 1
        return self._tpot_s * (1 + 0.01 * self._num_runs)


def mode(log: list[str], name: str, tpot_s: float) -> Mode:
    return name, cast(Engine, FakeEngine(log, name, tpot_s)), nothing, nothing


def test_every_other_cycle_is_in_the_opposite_order_after_one_to_warm_up() -> None:
    log: list[str] = []
    overheads([mode(log, "base", 1.0), mode(log, "full", 1.0)], LOAD, 5)
    assert log == ["base", "full"] * 2 + ["full", "base", "base", "full"] * 2


def test_an_overhead_is_the_mean_of_paired_ratios_whatever_drifts() -> None:
    metrics = overheads([mode([], "base", 1.0), mode([], "full", 1.02), mode([], "torch", 1.05)], LOAD, 6)
    assert set(metrics) == {"base_tpot_b32", "tpot_overhead_b32", "torch_profiler_overhead_b32"}
    overhead = metrics["tpot_overhead_b32"]
    assert overhead.value == pytest.approx(0.02)
    assert (overhead.low, overhead.high, overhead.n) == (pytest.approx(0.02), pytest.approx(0.02), 6)
    assert metrics["torch_profiler_overhead_b32"].value == pytest.approx(0.05)
