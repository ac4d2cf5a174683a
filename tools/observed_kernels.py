"""Whose kernels a capture shows, against those that the registry of methods says vLLM takes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any, Final

from qmeter_native.attribution.implementation_rules import implementation
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.report import AttributionReport
from qmeter_native.quantization.method import Method

__all__ = ["Observation", "observation", "refused"]

_PRODUCTS: Final = frozenset({OpFamily.GEMM, OpFamily.MOE, OpFamily.DEQUANTIZE})
_PLAIN: Final = frozenset({"cuBLAS", "PyTorch"})
"""Who multiplies what is not quantized, the LM head, and what a method has unpacked."""
_STRAY: Final = 0.01
"""Share of time below which kernels of others say nothing."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One method on one GPU; a row of the result.

    Attributes:
        method: Its name.
        scheme: Its label.
        architecture: Whose rules hold.
        expected: Who writes the matrix products, by the registry; of several each may run.
        observed: Who wrote those that ran, with their share of the products' time.
        expected_attention: Likewise attention; empty: the method does not decide it.
        observed_attention: Who wrote attention, with shares of its time.
        linear_kernels: vLLM's own names of its linear kernels, with numbers of layers.
        is_as_expected: Somebody expected ran, and nobody else but plain products.
        reason: Why not; None: it is.
    """

    method: str
    scheme: str
    architecture: str
    expected: tuple[str, ...]
    observed: dict[str, float]
    expected_attention: tuple[str, ...]
    observed_attention: dict[str, float]
    linear_kernels: dict[str, int]
    is_as_expected: bool
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def observation(method: Method, architecture: str, report: AttributionReport) -> Observation:
    """What a capture's report shows of a method that vLLM serves on that architecture."""
    assert method.vllm is not None, method.name
    products, attention = _shares(report, _PRODUCTS), _shares(report, frozenset({OpFamily.ATTENTION}))
    expected = method.vllm.kernels.get(architecture, ())
    wanted = method.vllm.attention.get(architecture, ())
    reason = _miss("products", products, expected) or (_miss("attention", attention, wanted) if wanted else None)
    effective = report.engine.effective if report.engine is not None else {}
    return Observation(
        method=method.name,
        scheme=method.scheme,
        architecture=architecture,
        expected=expected,
        observed=products,
        expected_attention=wanted,
        observed_attention=attention,
        linear_kernels=dict(effective.get("linear_kernels") or {}),
        is_as_expected=reason is None,
        reason=reason,
    )


def refused(method: Method, architecture: str, reason: str) -> Observation:
    """A method that did not run; as expected where the registry says that vLLM refuses it there."""
    expected = () if method.vllm is None else method.vllm.kernels.get(architecture, ())
    wanted = () if method.vllm is None else method.vllm.attention.get(architecture, ())
    return Observation(method.name, method.scheme, architecture, expected, {}, wanted, {}, {}, not expected, reason)


def _shares(report: AttributionReport, families: frozenset[OpFamily]) -> dict[str, float]:
    """Who wrote the kernels of these families, with their share of their time, most first."""
    times: dict[str, float] = defaultdict(float)
    for row in report.kernels:
        if row.op_family in families:
            times[implementation(row.name) or "unknown"] += row.time_s
    total_s = sum(times.values())
    ordered = sorted(times.items(), key=lambda each: -each[1])
    return {name: round(time_s / total_s, 4) for name, time_s in ordered if total_s}


def _miss(what: str, observed: dict[str, float], expected: tuple[str, ...]) -> str | None:
    """Why these are not those that were expected; None if they are."""
    if not observed:
        return f"no {what} ran"
    if not expected:
        return f"vLLM was expected to refuse it, and {what} ran in {', '.join(observed)}"
    if not set(expected) & set(observed):
        return f"{what} ran in {', '.join(observed)}, not in {' or '.join(expected)}"
    others = [name for name, share in observed.items() if share >= _STRAY and name not in {*expected, *_PLAIN}]
    return f"{what} ran in {', '.join(others)} too" if others else None
