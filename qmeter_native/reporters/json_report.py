"""The report as one JSON document; ``docs/report-json.md`` and ``report.schema.json`` describe it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from typing import Any

from qmeter_native.model.estimate import Estimate
from qmeter_native.model.report import (
    REPORT_SCHEMA_VERSION,
    AttributionReport,
    Balance,
    EnergyBalance,
    KernelRow,
    TimeBalance,
)

__all__ = ["report_document", "report_json"]


def report_json(report: AttributionReport) -> str:
    """The document as text, without a trailing newline."""
    return json.dumps(report_document(report), indent=2, ensure_ascii=False, allow_nan=False)


def report_document(report: AttributionReport) -> dict[str, Any]:
    """The document as plain data. Every estimated figure is ``{value, low, high, method, reason, systematic}``."""
    devices = [asdict(device) for device in report.devices]
    return {
        "schema_version": REPORT_SCHEMA_VERSION,
        "name": report.name,
        "device": devices[0] if devices else None,
        "devices": devices,
        "engine": None if report.engine is None else asdict(report.engine),
        "balance": _balance(report.balance),
        "static_policy": report.static_policy.value,
        "totals": _record(report.totals),
        "components": _value(report.components),
        "kernels": [_kernel(row) for row in report.kernels],
        "phases": [_record(row) for row in report.phases],
        "requests": [_record(row) for row in report.requests],
        "coverage": [{**_record(row), "is_complete": row.is_complete} for row in report.coverage],
        "kernel_choice": _value(report.kernel_choice),
        "explanations": _value(report.explanations),
        "work": _value(report.work),
        "processes": _value(report.processes),
        "loss": {**asdict(report.loss), "total": report.loss.total},
        "validity": [asdict(entry) for entry in report.validity],
        "software": dict(report.software),
    }


def _record(row: Any) -> dict[str, Any]:
    """A dataclass as a dictionary, with estimates in their JSON form."""
    return {spec.name: _value(getattr(row, spec.name)) for spec in fields(row)}


def _value(value: Any) -> Any:
    if isinstance(value, Estimate):
        return value.to_dict()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_value(entry) for entry in value]
    return _record(value) if is_dataclass(value) else value


def _kernel(row: KernelRow) -> dict[str, Any]:
    return {**_record(row), "mean_s": row.mean_s}


def _balance(balance: Balance) -> dict[str, Any]:
    failures = balance.failures()
    return {
        "is_closed": not failures,
        "failures": list(failures),
        "time": _time(balance.time),
        "energy": _energy(balance.energy),
        "requests": asdict(balance.requests),
    }


def _time(times: tuple[TimeBalance, ...]) -> dict[str, Any]:
    """Sums over devices, but of the residuals the worst; then each device."""
    sums = {
        spec.name: sum(getattr(time, spec.name) for time in times)
        for spec in fields(TimeBalance)
        if spec.name.endswith("_ns")
    }
    return {
        **sums,
        "residual_ns": _worst(time.residual_ns for time in times),
        "request_residual_ns": _worst(time.request_residual_ns for time in times),
        "unassigned_share": sums["unassigned_ns"] / sums["busy_ns"] if sums["busy_ns"] else 0.0,
        "per_device": [{**asdict(time), "unassigned_share": time.unassigned_share} for time in times],
    }


def _energy(energies: tuple[EnergyBalance, ...]) -> dict[str, Any]:
    """Sums over the devices that were measured, but of the residuals the worst; then each device."""
    sums = {name: _sum(getattr(energy, name) for energy in energies) for name in _JOULES}
    return {
        "method": "; ".join(dict.fromkeys(energy.method for energy in energies)),
        "reason": "; ".join(dict.fromkeys(energy.reason for energy in energies if energy.reason)) or None,
        **sums,
        "residual_j": _worst(energy.residual_j for energy in energies),
        "raw_residual_fraction": _worst(energy.raw_residual_fraction for energy in energies),
        "raw_residual_p95": _worst(energy.raw_residual_p95 for energy in energies),
        "num_windows": sum(energy.num_windows for energy in energies),
        "per_device": [_record(energy) for energy in energies],
    }


_JOULES = ("measured_j", "kernels_j", "static_j", "idle_j", "meter_j", "unattributed_j", "sampling_j")


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _worst(values: Iterable[float | None]) -> float | None:
    """The value farthest from zero; None if none is known."""
    return max((value for value in values if value is not None), key=abs, default=None)
