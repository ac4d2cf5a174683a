"""Hardware counters per kernel class: what one launch did, from samples that know nothing of kernels.

A sample's count is modelled as the sum over kernel classes of the time they ran in it times a rate of the class, plus a
rate of time without kernels. Rates are fitted by non-negative least squares over all samples of the counter phases: a
kernel much longer than the sample interval has samples to itself; kernels shorter than it differ in their part of each
sample, because samples fall at any phase. Then every sample is shared out among those that ran in it, in proportion to
time times rate, so that the classes' counts add up to what was counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.counter_samples import CounterSamples
from qmeter_native.attribution.kernel_overlap import KernelOverlap
from qmeter_native.attribution.nonnegative import nonnegative_minimum
from qmeter_native.model.capture import Capture
from qmeter_native.model.counter_quantity import CounterQuantity
from qmeter_native.model.tables import KernelTable
from qmeter_native.units import NS_PER_S

__all__ = ["KernelCounters", "kernel_counters"]

_Array = NDArray[Any]

_MIN_LAUNCHES: Final = 20
"""Of kernels shorter than two sample intervals, which take many random phases."""
_MIN_LONG_LAUNCHES: Final = 3
"""Of longer ones, each of which has a sample to itself."""
_MIN_SAMPLES: Final = 50
_MAX_BLOCK: Final = 2048
"""Samples in a block: with 300 classes 5 MiB of design matrix."""
_MIN_BLOCKS: Final = 24
"""Blocks that the standard errors are taken over."""
_PRIOR_SPREAD: Final = 3.0
"""Prior of a rate, in mean rates of busy time: weak, it only decides where the samples cannot."""
_RIDGE: Final = 1e-9
"""Keeps columns that are alike solvable; relative to a column's own square."""


@dataclass(frozen=True, slots=True)
class KernelCounters:
    """Counts per launch of each class of `KernelClassTable` (C), by quantity (Q).

    Attributes:
        quantities: What the columns count.
        per_launch: float64 (C, Q), mean count of one launch; meaningless where not ``is_measured``.
        error: float64 (C, Q), its standard error.
        num_launches: int64 (C,), launches that ran in a sample.
        mean_s: float64 (C,), their mean duration; 0 of none.
        is_measured: bool (C,), whether there were launches enough.
        background: float64 (Q,), counted per second while no kernel ran.
        shared: float64 (C, Q), what each class was given of all samples: with ``rest`` and ``unshared`` the total.
        total: float64 (Q,), counted in all samples.
        rest: float64 (Q,), of these by classes that are not measured, and while no kernel ran.
        unshared: float64 (Q,), of these in samples in which nothing ran that does any of it.
        misfit: float64 (Q,), root of the mean squared deviation of a sample from the fit, over the mean sample.
        num_samples: Samples used.
        interval_s: Their median length.
    """

    quantities: tuple[CounterQuantity, ...]
    per_launch: _Array
    error: _Array
    num_launches: _Array
    mean_s: _Array
    is_measured: _Array
    background: _Array
    shared: _Array
    total: _Array
    rest: _Array
    unshared: _Array
    misfit: _Array
    num_samples: int
    interval_s: float

    def of_quantity(self, quantity: CounterQuantity) -> _Array | None:
        """float64 (C,), counts per launch of one quantity; None if it was not sampled."""
        if quantity not in self.quantities:
            return None
        counts: _Array = self.per_launch[:, self.quantities.index(quantity)]
        return counts


@dataclass(frozen=True, slots=True)
class _Normal:
    """Normal equations of each block of samples (B): M columns, Q quantities."""

    gram: _Array  # (B, M, M)
    right: _Array  # (B, M, Q)
    square: _Array  # (Q,)


_Design = Callable[[int, int], _Array]
"""Seconds of each column in the samples between two: the classes measured, all others, no kernel."""


def kernel_counters(capture: Capture, device: int) -> KernelCounters | None:
    """Counts per kernel class of ``device``; None if it has fewer than 50 samples in traced time."""
    samples = CounterSamples.of(capture, device)
    if samples is None or len(samples) < _MIN_SAMPLES:
        return None
    kernels = _sampled_kernels(capture.kernels, device, samples)
    launches, mean_s = _launches(kernels, len(capture.kernel_classes))
    interval_s = float(np.median(samples.length_s))
    is_measured = launches >= np.where(mean_s >= 2 * interval_s, _MIN_LONG_LAUNCHES, _MIN_LAUNCHES)

    measured = np.flatnonzero(is_measured)
    column = np.full(len(launches), len(measured))  # all others share one column
    column[measured] = np.arange(len(measured))
    overlap = KernelOverlap((kernels.start_ns, kernels.end_ns), (samples.start_ns, samples.end_ns))
    design = partial(overlap.block, column[kernels.class_id], len(measured) + 1)
    rate, rate_error, misfit = _fit(_normal_equations(design, samples.value), samples)
    shared, seconds = _share(design, samples.value, rate)
    shared_rate = shared / np.where(seconds > 0, seconds, 1.0)[:, None]
    total = samples.value.sum(axis=0)
    of_classes = partial(_spread, measured, len(launches))
    return KernelCounters(
        quantities=samples.quantities,
        per_launch=of_classes(shared_rate) * mean_s[:, None],
        error=of_classes(rate_error) * mean_s[:, None],
        num_launches=launches,
        mean_s=mean_s,
        is_measured=is_measured,
        background=shared_rate[-1],
        shared=of_classes(shared),
        total=total,
        rest=shared[-2:].sum(axis=0),
        unshared=total - shared.sum(axis=0),
        misfit=misfit,
        num_samples=len(samples),
        interval_s=interval_s,
    )


def _sampled_kernels(kernels: KernelTable, device: int, samples: CounterSamples) -> KernelTable:
    """The kernels of a device that ran in a sample; of long runs only few are looked at."""
    first, last = np.searchsorted(kernels.start_ns, [samples.start_ns[0], samples.end_ns[-1]])
    begun = np.flatnonzero(kernels.end_ns[:first] > samples.start_ns[0])
    rows = np.concatenate([begun, np.arange(first, last)])
    start_ns, end_ns = kernels.start_ns[rows], kernels.end_ns[rows]
    begin = np.searchsorted(samples.end_ns, start_ns, "right")
    end = np.searchsorted(samples.start_ns, end_ns, "left")
    return kernels.take(rows[(kernels.device[rows] == device) & (end_ns > start_ns) & (end > begin)])


def _spread(measured: _Array, num_classes: int, columns: _Array) -> _Array:
    """Figures of the columns as figures of all classes, 0 of those that are not measured."""
    spread = np.zeros((num_classes, columns.shape[1]))
    spread[measured] = columns[: len(measured)]
    return spread


def _launches(kernels: KernelTable, num_classes: int) -> tuple[_Array, _Array]:
    """How many launches each class has, and their mean duration in seconds."""
    launches = np.bincount(kernels.class_id, minlength=num_classes)
    seconds = np.bincount(kernels.class_id, (kernels.end_ns - kernels.start_ns) / NS_PER_S, num_classes)
    return launches, seconds / np.maximum(launches, 1)


def _normal_equations(design: _Design, value: _Array) -> _Normal:
    size = min(_MAX_BLOCK, max(1, -(-len(value) // _MIN_BLOCKS)))
    gram, right = [], []
    for first in range(0, len(value), size):
        last = min(first + size, len(value))
        seconds = design(first, last)
        ran, of_ran = _ran(seconds)
        width = seconds.shape[1]
        gram.append(np.zeros((width, width)))
        gram[-1][np.ix_(ran, ran)] = of_ran.T @ of_ran
        right.append(np.zeros((width, value.shape[1])))
        right[-1][ran] = of_ran.T @ value[first:last]
    return _Normal(np.array(gram), np.array(right), np.einsum("sq,sq->q", value, value))


def _ran(seconds: _Array) -> tuple[_Array, _Array]:
    """The columns that ran in a block, and their seconds: a phase of a run has a tenth of all classes."""
    ran = np.flatnonzero(seconds.any(axis=0))
    return ran, seconds[:, ran]


def _fit(normal: _Normal, samples: CounterSamples) -> tuple[_Array, _Array, _Array]:
    """Rates (M, Q), their standard errors, and the misfit (Q,)."""
    mean_rate = samples.value.sum(axis=0) / samples.length_s.sum()
    rate, error = np.zeros((2, normal.gram.shape[1], len(mean_rate)))
    misfit = np.zeros(len(mean_rate))
    present = np.flatnonzero(np.einsum("bmm->m", normal.gram) > 0)
    block_gram = normal.gram[:, present][:, :, present]
    for quantity in np.flatnonzero(mean_rate > 0):
        unit = mean_rate[quantity]
        right, square = normal.right[:, present, quantity] / unit, normal.square[quantity] / unit**2
        found, inverse, squares = _posterior(block_gram.sum(axis=0), right.sum(axis=0), float(square), len(samples))
        variance = squares / max(len(samples) - len(present), 1)
        rate[present, quantity] = unit * found
        error[present, quantity] = unit * _errors(right - block_gram @ found, inverse, variance)
        misfit[quantity] = np.sqrt(squares / len(samples)) / np.mean(samples.length_s)
    return rate, error, misfit


def _posterior(gram: _Array, right: _Array, square: float, count: int) -> tuple[_Array, _Array, float]:
    """Rates in units of the mean rate, the inverse of their precision, and the sum of squared residuals."""
    scale = np.sqrt(np.diag(gram))
    scaled, ridge, squares = gram / np.outer(scale, scale), np.full(len(gram), _RIDGE), 0.0
    for _ in range(2):  # the noise that the prior is weighed against comes from a fit without it
        precision = scaled + np.diag(ridge)
        found = nonnegative_minimum(precision, right / scale + ridge * scale) / scale
        squares = max(float(square - 2 * found @ right + found @ gram @ found), 0.0)
        ridge = squares / max(count - len(gram), 1) / (_PRIOR_SPREAD * scale) ** 2 + _RIDGE
    return found, np.linalg.inv(precision) / np.outer(scale, scale), squares


def _errors(scores: _Array, inverse: _Array, variance: float) -> _Array:
    """Standard errors: the larger of the model's own and the sandwich over blocks of time, which need not be alike."""
    spread, blocks = scores @ inverse, len(scores)
    sandwich = np.einsum("bm,bm->m", spread, spread) * blocks / max(blocks - 1, 1)
    errors: _Array = np.sqrt(np.maximum(sandwich, variance * np.diag(inverse)))
    return errors


def _share(design: _Design, value: _Array, rate: _Array) -> tuple[_Array, _Array]:
    """Counts (M, Q) given to each column, in proportion to time and rate in each sample; and its seconds (M,)."""
    shared, seconds = np.zeros_like(rate), np.zeros(len(rate))
    for first in range(0, len(value), _MAX_BLOCK):
        last = min(first + _MAX_BLOCK, len(value))
        ran, block = _ran(design(first, last))
        expected = block @ rate[ran]
        ratio = np.divide(value[first:last], expected, out=np.zeros_like(expected), where=expected > 0)
        shared[ran] += rate[ran] * (block.T @ ratio)
        seconds[ran] += block.sum(axis=0)
    return shared, seconds
