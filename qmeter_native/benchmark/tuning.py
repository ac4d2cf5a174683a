"""``kernels tune``: the candidates of our kernels, timed by the benchmark's own protocol, point by point."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any, Final

import torch

from qmeter_native.benchmark.contender import Activation, Product
from qmeter_native.benchmark.correctness import truth_of, why_wrong
from qmeter_native.benchmark.data import random_activation, random_weight
from qmeter_native.benchmark.plan import BenchmarkPlan
from qmeter_native.benchmark.run import Show
from qmeter_native.benchmark.timer import Timer
from qmeter_native.kernels.autotune import TunedRow, TuningTable, fastest
from qmeter_native.kernels.catalog import KernelFormat
from qmeter_native.kernels.gemm_config import GemmConfig

__all__ = ["Tunable", "tunable", "tune"]

_MAX_COPIES: Final = 512
_DEQUANTIZED: Final = "dequantized"


@dataclass(frozen=True, slots=True)
class Tunable:
    """A weight laid out for one of our kernels, whose tiles can be chosen.

    Attributes:
        kernel: What tables call the kernel and the format.
        candidates: Configurations worth timing for so many tokens.
        product: Multiplies with one of them.
        dequantized: Multiplies after writing the weight out in 16 bits; None where that is no way.
    """

    kernel: str
    candidates: Callable[[int], Sequence[GemmConfig]]
    product: Callable[[GemmConfig], Product]
    dequantized: Product | None = None


Open = Callable[[KernelFormat, Any, Any], Tunable]
"""From a format, a logical weight and the 16-bit type of torch."""


def tunable(form: KernelFormat, weight: Any, dtype: Any) -> Tunable:
    """By the family that multiplies the format."""
    if form.input_scales is None:
        return _weight_only(weight, dtype)
    return _scaled(weight) if form.label.startswith("W8") else _w4a8(weight)


def tune(
    plan: BenchmarkPlan,
    device: str,
    timer: Timer,
    table: TuningTable,
    stop: Event,
    show: Show,
    open_weight: Open = tunable,
) -> Iterator[TunedRow]:
    """Rows as they are found; each is in the table's file before the next point begins.

    Points that the table has are left out, so that a run goes on where another ended. Ends early where ``stop`` is set
    or the plan's budget is spent.
    """
    deadline_s = math.inf if plan.budget_s is None else time.monotonic() + plan.budget_s
    number = 0
    for form in plan.formats:
        for n, k in plan.shapes:
            copies: list[Tunable] = []
            for m in plan.tokens:
                number += 1
                if stop.is_set() or time.monotonic() > deadline_s:
                    return
                copies = copies or _copies(plan, form, n, k, device, open_weight)
                if (copies[0].kernel, m, n, k) in table.rows:
                    continue
                show(f"{form.label} {m}x{n}x{k}", number - 1, plan.num_points)
                row = _best(plan, form, copies, m, n, k, device, timer)
                if row is not None:
                    table.add(row)
                    yield row


def _copies(plan: BenchmarkPlan, form: KernelFormat, n: int, k: int, device: str, open_weight: Open) -> list[Tunable]:
    weight = random_weight(form, n, k, device, plan.seed)
    count = min(max(2, math.ceil(plan.working_set_bytes / form.layout.num_bytes(n, k))), _MAX_COPIES)
    return [open_weight(form, weight, getattr(torch, plan.dtype)) for _ in range(count)]


def _best(
    plan: BenchmarkPlan,
    form: KernelFormat,
    copies: Sequence[Tunable],
    m: int,
    n: int,
    k: int,
    device: str,
    timer: Timer,
) -> TunedRow | None:
    activation = random_activation(form, m, k, plan.dtype, device, plan.seed + m)
    truth = truth_of(activation, random_weight(form, n, k, device, plan.seed))
    right: dict[GemmConfig, bool] = {}

    def is_right(config: GemmConfig) -> bool:
        try:
            return why_wrong(truth.error(copies[0].product(config)(activation))) is None
        except Exception:  # a candidate that does not compile or fit is none
            return False

    def times(configs: Sequence[GemmConfig], num_repeats: int) -> Mapping[GemmConfig, float]:
        for config in configs:
            if config not in right:
                right[config] = is_right(config)
        return _timed(timer, [config for config in configs if right[config]], copies, activation, num_repeats)

    found = fastest(copies[0].candidates(m), times, plan.num_repeats)
    if found is None:
        return None
    return TunedRow(copies[0].kernel, m, n, k, *found, _dequantized_s(timer, copies, activation, plan.num_repeats))


def _dequantized_s(timer: Timer, copies: Sequence[Tunable], activation: Activation, num_repeats: int) -> float | None:
    launches = [partial(copy.dequantized, activation) for copy in copies if copy.dequantized is not None]
    if not launches:
        return None
    return timer.time({_DEQUANTIZED: launches}, num_repeats)[_DEQUANTIZED].estimate().value


def _timed(
    timer: Timer, configs: Sequence[GemmConfig], copies: Sequence[Tunable], activation: Activation, num_repeats: int
) -> Mapping[GemmConfig, float]:
    names = {str(config): config for config in configs}
    launches = {name: [partial(copy.product(config), activation) for copy in copies] for name, config in names.items()}
    timings = timer.time(launches, num_repeats)
    return {names[name]: one.estimate().value or 0.0 for name, one in timings.items() if one.seconds}


def _weight_only(weight: Any, dtype: Any) -> Tunable:
    from qmeter_native.kernels.weight_only import (
        WeightOnlyTensor,
        candidate_configs,
        dequantize_kernel,
        weight_only_gemm,
    )

    prepared = WeightOnlyTensor.prepare(weight, dtype)

    def product(config: GemmConfig) -> Product:
        return lambda activation: weight_only_gemm(activation.values, prepared, config=config)

    def dequantized(activation: Activation) -> Any:
        return torch.nn.functional.linear(activation.values, dequantize_kernel(prepared, dtype))

    name = f"weight_only_{prepared.kind}"
    return Tunable(name, lambda m: candidate_configs(prepared, m), product, dequantized)


def _scaled(weight: Any) -> Tunable:
    from qmeter_native.kernels import scaled

    prepared = scaled.ScaledTensor.prepare(weight)
    kind = "int8" if prepared.dtype == torch.int8 else "fp8"
    is_block = prepared.is_block_scaled
    n, k = prepared.shape

    def product(config: GemmConfig) -> Product:
        return lambda activation: scaled.scaled_gemm(
            activation.values,
            activation.flat_scales,
            prepared,
            out_dtype=activation.out_dtype,
            x_zeros=activation.flat_zeros,
            config=config,
        )

    name = f"scaled_{kind}{'_block' if is_block else ''}"
    return Tunable(name, lambda m: scaled.candidate_configs(m, n, k, is_block), product)


def _w4a8(weight: Any) -> Tunable:
    from qmeter_native.kernels import w4a8

    prepared = w4a8.W4A8Tensor.prepare(weight)
    n, k = prepared.shape

    def product(config: GemmConfig) -> Product:
        return lambda activation: w4a8.w4a8_gemm(
            activation.values, activation.flat_scales, prepared, out_dtype=activation.out_dtype, config=config
        )

    return Tunable(f"w4a8_{prepared.kind}", lambda m: w4a8.candidate_configs(m, n, k, prepared.kind == "fp8"), product)
