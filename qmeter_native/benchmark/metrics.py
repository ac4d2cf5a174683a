"""Speed ratios of a benchmark, computed from its rows alone: ours over a peer, the worst of all points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qmeter_native.model.estimate import Estimate
from qmeter_native.model.kernel_benchmark import BenchmarkRow

__all__ = ["METRICS", "benchmark_metrics"]

_ANY: Final = 1 << 30
_W4A16: Final = ("W4A16-INT g128",)
_DISPATCH: Final = "qmeter.weight_only_linear"
_FUSED: Final = "qmeter.weight_only_gemm"


@dataclass(frozen=True, slots=True)
class _Ratio:
    """Which rows a ratio is made of.

    Attributes:
        formats: Labels.
        ours: Our kernel.
        peers: Each point is compared with the fastest of them that ran there.
        low, high: Numbers of tokens, both included.
    """

    formats: tuple[str, ...]
    ours: str
    peers: tuple[str, ...]
    low: int = 1
    high: int = _ANY


_RATIOS: Final[Mapping[str, _Ratio]] = {
    "w4a16_vs_marlin_m_le_16": _Ratio(_W4A16, _DISPATCH, ("vllm.marlin",), high=16),
    "w4a16_vs_marlin_m_32_256": _Ratio(_W4A16, _DISPATCH, ("vllm.marlin",), 32, 256),
    "w4a16_vs_best_m_32_256": _Ratio(_W4A16, _DISPATCH, ("vllm.marlin", "vllm.machete"), 32, 256),
    "w4a16_vs_fp16_m_le_16": _Ratio(_W4A16, _DISPATCH, ("cublas",), high=16),
    "w4a16_fused_vs_fp16_m_ge_1024": _Ratio(_W4A16, _FUSED, ("cublas",), 1024),
    "w4a16_dispatch_vs_fp16_m_ge_1024": _Ratio(_W4A16, _DISPATCH, ("cublas",), 1024),
    "w4a16_vs_gemlite": _Ratio(_W4A16, _DISPATCH, ("gemlite",)),
    "w4a16_vs_autoawq": _Ratio(_W4A16, _DISPATCH, ("autoawq.triton",)),
    "fp8_vs_scaled_mm_m_ge_1024": _Ratio(
        ("W8A8-FP", "W8A8-FP tensor"), "qmeter.scaled_gemm", ("torch._scaled_mm",), 1024
    ),
    "fp8_vs_scaled_mm_m_le_64": _Ratio(
        ("W8A8-FP", "W8A8-FP tensor"), "qmeter.scaled_gemm", ("torch._scaled_mm",), high=64
    ),
    "int8_vs_cutlass_m_ge_1024": _Ratio(("W8A8-INT",), "qmeter.scaled_gemm", ("vllm.cutlass",), 1024),
    "int8_vs_cutlass_m_le_64": _Ratio(("W8A8-INT",), "qmeter.scaled_gemm", ("vllm.cutlass",), high=64),
}
_ROOF_METRIC: Final = "w4a16_roof_16384_m1"
_ROOF_POINT: Final = ("W4A16-INT g128", 1, 16384, 16384)

METRICS: Final = (*_RATIOS, _ROOF_METRIC)
"""Names; a ratio above 1 means that ours is faster."""


def benchmark_metrics(rows: Sequence[BenchmarkRow]) -> dict[str, Estimate]:
    """Every metric; those of which rows are missing say so."""
    metrics = {name: _smallest(rows, ratio) for name, ratio in _RATIOS.items()}
    metrics[_ROOF_METRIC] = _roof_fraction(rows)
    return metrics


def _smallest(rows: Sequence[BenchmarkRow], ratio: _Ratio) -> Estimate:
    """The smallest ratio of all points, with the interval of that point."""
    wanted = [row for row in rows if row.format in ratio.formats and ratio.low <= row.m <= ratio.high]
    peers: dict[tuple[object, ...], list[BenchmarkRow]] = {}
    for row in _timed(wanted, ratio.peers):
        peers.setdefault((*row.point, row.dtype), []).append(row)
    ours = {(*row.point, row.dtype): row for row in _timed(wanted, (ratio.ours,))}
    pairs = [(row, min(peers[key], key=_seconds)) for key, row in ours.items() if key in peers]
    if not pairs:
        return Estimate.missing(f"{ratio.ours} and {' or '.join(ratio.peers)} were not timed at the same points")
    own, peer = min(pairs, key=lambda pair: _seconds(pair[1]) / _seconds(pair[0]))
    method = f"measured: {own.m}x{own.n}x{own.k} {own.dtype}, the smallest of {len(pairs)} points"
    return _over(peer.time_s, own.time_s, method)


def _timed(rows: Iterable[BenchmarkRow], kernels: Sequence[str]) -> list[BenchmarkRow]:
    return [row for row in rows if row.kernel in kernels and row.time_s.value is not None]


def _seconds(row: BenchmarkRow) -> float:
    return float(row.time_s.value or 0.0)


def _over(above: Estimate, below: Estimate, method: str) -> Estimate:
    """A quotient whose interval takes the worst of both."""
    if above.value is None or not below.value:
        return Estimate.missing("one of the two was not timed")
    quotient = above.value / below.value
    if above.low is None or above.high is None or below.low is None or below.high is None:
        return Estimate(quotient, method=method, reason="too few repeats for an interval")
    return Estimate(quotient, above.low / below.high, above.high / below.low, method)


def _roof_fraction(rows: Sequence[BenchmarkRow]) -> Estimate:
    found = [row for row in _timed(rows, (_DISPATCH,)) if row.point == _ROOF_POINT and row.roof_s is not None]
    if not found:
        return Estimate.missing("16384² at M=1 was not timed, or the roof is not known")
    row = min(found, key=_seconds)
    return _over(Estimate(row.roof_s, row.roof_s, row.roof_s), row.time_s, f"measured: {row.dtype}")
