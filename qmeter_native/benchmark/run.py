"""A run of the benchmark: weights are laid out, products checked, then timed side by side, point by point."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any, Final

import torch

from qmeter_native.benchmark.contender import Activation, Contender, Product
from qmeter_native.benchmark.correctness import Truth, truth_of, why_wrong
from qmeter_native.benchmark.data import random_activation, random_weight
from qmeter_native.benchmark.energy import EnergyMeter
from qmeter_native.benchmark.plan import BenchmarkPlan, energy_points
from qmeter_native.benchmark.roof import roof_time
from qmeter_native.benchmark.timer import Launch, Timer
from qmeter_native.errors import UsageError
from qmeter_native.kernels.catalog import KernelFormat
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.kernel_benchmark import BenchmarkRow, Roof
from qmeter_native.work.gemm_work import product_work

__all__ = ["Bench", "Show", "measure_rows", "unable_contenders"]

_UNTIMED: Final = "not timed"
_MIN_COPIES: Final = 2
_MAX_COPIES: Final = 512

Show = Callable[[str, int, int], None]
"""Is told what is measured, and which point of how many it is."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a benchmark runs on.

    Attributes:
        device: torch's name of it.
        capability: Compute capability.
        contenders: Our kernels and the peers that are here.
        timer: Times them.
        roof: What the device can reach.
        meter: Measures joules; None: none are.
    """

    device: str
    capability: tuple[int, int]
    contenders: tuple[Contender, ...]
    timer: Timer
    roof: Roof
    meter: EnergyMeter | None = None


@dataclass(slots=True)
class _Prepared:
    """A contender with its copies of a weight; without copies it cannot multiply it, for a reason."""

    contender: Contender
    products: list[Product]
    reason: str | None = None


def measure_rows(plan: BenchmarkPlan, bench: Bench, stop: Event, show: Show) -> Iterator[BenchmarkRow]:
    """Rows as they are found, those of a point together.

    Ends early where ``stop`` is set or the plan's budget is spent: then the point under way is finished.
    """
    deadline_s = math.inf if plan.budget_s is None else time.monotonic() + plan.budget_s
    counts = {form.label: len(_able(plan, bench, form)) for form in plan.formats}
    with_energy = energy_points(plan, counts) if bench.meter is not None else frozenset()
    number = 0
    for form in plan.formats:
        for n, k in plan.shapes:
            if stop.is_set() or time.monotonic() > deadline_s:
                return
            try:
                weight = random_weight(form, n, k, bench.device, plan.seed)
            except UsageError as error:
                yield from _refused(plan, bench, form, n, k, error.what)
                number += len(plan.tokens)
                continue
            prepared = [_prepare(one, form, weight, plan) for one in _able(plan, bench, form)]
            for m in plan.tokens:
                if stop.is_set() or time.monotonic() > deadline_s:
                    return
                show(f"{form.label} {m}x{n}x{k}", number, plan.num_points)
                number += 1
                point = _Point(plan, bench, form, m, n, k)
                yield from point.rows(weight, prepared, point.key in with_energy)
            del weight, prepared
            _free(bench.device)


def _able(plan: BenchmarkPlan, bench: Bench, form: KernelFormat) -> list[Contender]:
    """Contenders that multiply a format on this device in the plan's type."""
    return [one for one in bench.contenders if one.why_not(form, plan.dtype, bench.capability) is None]


def _prepare(contender: Contender, form: KernelFormat, weight: Any, plan: BenchmarkPlan) -> _Prepared:
    """Lay out as many copies of a weight as fill the working set."""
    copy_bytes = contender.weight_bytes(form, *weight.shape)
    count = min(max(_MIN_COPIES, math.ceil(plan.working_set_bytes / copy_bytes)), _MAX_COPIES)
    dtype = getattr(torch, plan.dtype)
    try:
        return _Prepared(contender, [contender.prepare(weight, dtype) for _ in range(count)])
    except Exception as error:  # libraries raise what they like; the others are to be measured
        return _Prepared(contender, [], _reason(error))


@dataclass(frozen=True, slots=True)
class _Point:
    """One product of all contenders."""

    plan: BenchmarkPlan
    bench: Bench
    form: KernelFormat
    m: int
    n: int
    k: int

    @property
    def key(self) -> tuple[str, int, int, int]:
        return self.form.label, self.m, self.n, self.k

    def rows(self, weight: Any, prepared: Sequence[_Prepared], has_energy: bool) -> list[BenchmarkRow]:
        """Check, time, and measure energy where it is asked for; a kernel that is wrong is not timed."""
        bench, plan = self.bench, self.plan
        activation = random_activation(self.form, self.m, self.k, plan.dtype, bench.device, plan.seed + self.m)
        truth = truth_of(activation, weight)
        rows = {one.contender.name: self._checked(one, weight, activation, truth) for one in prepared}
        launches = {
            one.contender.name: [partial(product, activation) for product in one.products]
            for one in prepared
            if rows[one.contender.name].time_s.reason == _UNTIMED
        }
        for name, timing in bench.timer.time(launches, plan.num_repeats).items():
            rows[name] = replace(rows[name], time_s=timing.estimate(), clock_mhz=timing.clock_mhz)
        if has_energy and bench.meter is not None:
            rows |= {name: self._with_energy(rows[name], calls, bench.meter) for name, calls in launches.items()}
        return list(rows.values())

    def _checked(self, one: _Prepared, weight: Any, activation: Activation, truth: Truth) -> BenchmarkRow:
        contender = one.contender
        row = self.row(contender, one.reason or _UNTIMED)
        if one.reason is not None:
            return row
        try:
            product = one.products[0](activation)
            product = product if contender.finish is None else contender.finish(product, activation, weight)
            error = truth.error(product, contender.is_16_bit)
        except Exception as raised:  # see `_prepare`
            return replace(row, time_s=Estimate.missing(_reason(raised)))
        row = replace(row, error=error if math.isfinite(error) else None)
        wrong = why_wrong(error)
        return row if wrong is None else replace(row, time_s=Estimate.missing(wrong))

    def row(self, contender: Contender, reason: str) -> BenchmarkRow:
        """A row that is not timed yet."""
        form = self.form
        work = form.work(self.m, self.n, self.k)
        if contender.layout is not None:
            work = product_work(contender.layout, self.m, self.n, self.k)
        roof_s, bound = roof_time(self.bench.roof, work, contender.ceiling or form.ceiling, self.plan.dtype)
        return BenchmarkRow(
            *self.key, contender.name, self.plan.dtype, Estimate.missing(reason), roof_s=roof_s, bound=bound
        )

    def _with_energy(self, row: BenchmarkRow, calls: Sequence[Launch], meter: EnergyMeter) -> BenchmarkRow:
        if row.time_s.value is None:
            return row
        try:
            found = meter.energy(calls, row.time_s.value)
        except Exception as error:  # a loop less is no reason to lose the times
            missing = Estimate.missing(_reason(error))
            return replace(row, energy_j=missing, dynamic_j=missing)
        return replace(row, energy_j=found.gross_j, dynamic_j=found.dynamic_j)


def _refused(
    plan: BenchmarkPlan, bench: Bench, form: KernelFormat, n: int, k: int, reason: str
) -> Iterator[BenchmarkRow]:
    for m in plan.tokens:
        point = _Point(plan, bench, form, m, n, k)
        yield from (point.row(contender, reason) for contender in _able(plan, bench, form))


def _reason(error: Exception) -> str:
    """One line: a `UsageError` speaks for itself."""
    if isinstance(error, UsageError):
        return error.what
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _free(device: str) -> None:
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def unable_contenders(plan: BenchmarkPlan, bench: Bench) -> Mapping[str, str]:
    """Contenders that multiply no format of the plan here, and why, for those that multiply one elsewhere."""
    found: dict[str, str] = {}
    for contender in bench.contenders:
        reasons = [
            contender.why_not(form, plan.dtype, bench.capability)
            for form in plan.formats
            if form.label in contender.formats
        ]
        if reasons and all(reason is not None for reason in reasons):
            found[contender.name] = str(reasons[0])
    return found
