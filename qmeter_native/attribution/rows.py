"""Rows of the report: kernels, phases, requests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.classify import scheme
from qmeter_native.attribution.display_name import display_name
from qmeter_native.attribution.energy_pool import EnergyPool
from qmeter_native.attribution.energy_use import COMPONENTS, Joules
from qmeter_native.attribution.kernel_names import KernelNames
from qmeter_native.attribution.latency import Latencies
from qmeter_native.attribution.requests import critical_rides
from qmeter_native.attribution.shares import Rides
from qmeter_native.attribution.usage import DeviceUsage
from qmeter_native.model.capture import Capture
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.phase import Phase
from qmeter_native.model.power_model import EnergyMode
from qmeter_native.model.report import KernelRow, LatencyParts, PhaseRow, RequestRow
from qmeter_native.units import ns_to_s

__all__ = ["kernel_rows", "phase_rows", "request_rows"]

_Array = NDArray[Any]

_SHARED: Final = "; shared by tokens, attention work and samples in each step"
_NO_STEPS: Final = "it rode no recorded step"
_NOT_FINISHED: Final = "it did not finish"
_PHASES: Final = ("prefill", "decode", "none")
_LAUNCHED_OUTSIDE: Final = "its launch lies outside the measured window"


def kernel_rows(names: KernelNames, usages: Sequence[DeviceUsage], pool: EnergyPool) -> tuple[KernelRow, ...]:
    """One row a kernel name that ran inside the measured window, longest time first."""

    def total(column: str) -> _Array:
        sums: _Array = sum((getattr(usage, column) for usage in usages), np.zeros(len(names.names), np.int64))
        return sums

    calls, time_ns, overlapped_ns = total("calls"), total("name_ns"), total("name_overlapped_ns")
    prefill_ns, ridden_ns = total("name_prefill_ns"), total("name_ridden_ns")
    num_configs = np.bincount(names.of_class, minlength=len(names.names))
    joules = pool.joules(lambda use: use.name_ns)
    rows = []
    for row in np.argsort(-time_ns, kind="stable").tolist():
        if not calls[row] and not time_ns[row]:
            continue
        energy = _kernel_energy(pool, joules, row)
        rows.append(
            KernelRow(
                name=names.names[row],
                display_name=display_name(names.names[row]),
                op_family=names.families[row],
                scheme=scheme(names.names[row]),
                phase_shares=_phase_shares(float(prefill_ns[row]), float(ridden_ns[row]), int(time_ns[row])),
                calls=int(calls[row]),
                time_s=ns_to_s(int(time_ns[row])),
                overlapped_s=ns_to_s(int(overlapped_ns[row])),
                time_share=int(time_ns[row]) / pool.busy_ns if pool.busy_ns else 0.0,
                energy_share=pool.share_of_total(energy["energy_j"]),
                j_per_launch=energy["energy_j"].over(int(calls[row]), _LAUNCHED_OUTSIDE),
                num_configs=int(num_configs[row]),
                **energy,
            )
        )
    return tuple(rows)


def _kernel_energy(pool: EnergyPool, joules: Joules | None, row: int) -> dict[str, Any]:
    """The energy columns of a `KernelRow`."""
    if joules is None:
        gone = pool.estimate(0.0, 0.0)
        figures = dict.fromkeys(("energy_j", "dynamic_j", "static_j", "marginal_j"), gone)
        return {**figures, "components_j": {}, "is_resolved": None, "mode": None}
    dynamic_j, launches = float(joules.dynamic_j[row]), float(joules.launches[row])

    def figure(value_j: _Array, error_j: _Array, method: str = pool.dynamic_method) -> Estimate:
        return pool.estimate(float(value_j[row]), float(error_j[row]), method)

    return {
        "energy_j": figure(joules.energy_j, joules.energy_error_j, pool.method),
        "dynamic_j": figure(joules.dynamic_j, joules.dynamic_error_j),
        "static_j": figure(joules.static_j, joules.static_error_j),
        "marginal_j": figure(joules.marginal_j, joules.marginal_error_j).over(launches, _LAUNCHED_OUTSIDE),
        "components_j": dict(zip(COMPONENTS, joules.components_j[row].tolist(), strict=True)),
        "is_resolved": bool(joules.resolved_j[row] > dynamic_j / 2) if dynamic_j > 0 else None,
        "mode": tuple(EnergyMode)[int(joules.modes_j[row].argmax())] if dynamic_j > 0 else None,
    }


def _phase_shares(prefill_ns: float, ridden_ns: float, time_ns: int) -> dict[str, float]:
    if time_ns == 0:
        return {"prefill": 0.0, "decode": 0.0, "none": 1.0}
    prefill = min(prefill_ns / time_ns, 1.0)
    none = max(0.0, (time_ns - ridden_ns) / time_ns)
    return {"prefill": prefill, "decode": max(0.0, 1.0 - prefill - none), "none": none}


def phase_rows(
    capture: Capture,
    rides: Rides,
    is_step_traced: _Array,
    ride_ns: _Array,
    ride_j: _Array,
    usages: Sequence[DeviceUsage],
    pool: EnergyPool,
) -> tuple[PhaseRow, ...]:
    """Prefill, decode, and work of no request. Tokens are those that the critical rank computed in traced steps."""
    is_counted = critical_rides(capture.steps, rides) & is_step_traced[rides.step_row]
    errors = _phase_errors(pool)
    rows = []
    for phase in Phase:
        is_phase = rides.phase == phase
        tokens = int(rides.num_scheduled[is_phase & is_counted].sum())
        time_ns, energy_j = int(ride_ns[is_phase].sum()), float(ride_j[is_phase].sum())
        rows.append(_phase_row(phase.name.lower(), tokens, time_ns, energy_j, errors[phase.name.lower()], pool))
    rest_ns = sum(int(usage.name_ns.sum()) for usage in usages) - int(ride_ns.sum())
    rest_j = max(0.0, pool.total_j - float(ride_j.sum()))
    return (*rows, _phase_row("none", 0, rest_ns, rest_j, errors["none"], pool))


def _phase_errors(pool: EnergyPool) -> dict[str, float]:
    """Relative standard error of the energy of the kernels that worked for each phase, and for none."""
    joules = pool.joules(lambda use: use.phase_ns)
    if joules is None:
        return dict.fromkeys(_PHASES, 0.0)
    relative = np.divide(joules.energy_error_j, joules.energy_j, out=np.zeros(3), where=joules.energy_j > 0)
    return dict(zip(_PHASES, relative.tolist(), strict=True))


def _phase_row(
    phase: str, tokens: int, time_ns: int, energy_j: float, relative_error: float, pool: EnergyPool
) -> PhaseRow:
    energy = pool.estimate(energy_j, relative_error * energy_j, pool.method + _SHARED)
    return PhaseRow(
        phase=phase,
        num_tokens=tokens,
        time_s=ns_to_s(time_ns),
        time_share=time_ns / pool.busy_ns if pool.busy_ns else 0.0,
        energy_j=energy,
        j_per_token=energy.over(tokens, "no tokens were computed in this phase"),
    )


def request_rows(
    capture: Capture,
    rides: Rides,
    is_of_run: _Array,
    ride_ns: _Array,
    ride_j: _Array,
    latencies: Latencies,
    parts: Sequence[LatencyParts | None],
    pool: EnergyPool,
) -> tuple[RequestRow, ...]:
    """One row a request of the run (a mask over ``rides.requests``), by number.

    A request that no client recorded has what it used and nothing else. Its energy errs as that of all kernels that
    worked for prefills, and for decodes, does.
    """
    count = len(rides.requests)
    is_prefill = rides.phase == Phase.PREFILL
    prefill_ns = np.bincount(rides.request_row, np.where(is_prefill, ride_ns, 0), count).astype(np.int64)
    share_ns = np.bincount(rides.request_row, ride_ns, count).astype(np.int64)
    share_j = np.bincount(rides.request_row, ride_j, count)
    errors = _phase_errors(pool)
    relative = np.where(is_prefill, errors["prefill"], errors["decode"])
    error_j = np.bincount(rides.request_row, ride_j * relative, count)
    table_row = dict(zip(capture.requests.request.tolist(), range(len(capture.requests)), strict=True))
    rows = []
    for index in np.flatnonzero(is_of_run).tolist():
        number = int(rides.requests[index])
        row = table_row.get(number)
        used: dict[str, Any] = {
            "share_prefill_s": ns_to_s(int(prefill_ns[index])),
            "share_decode_s": ns_to_s(int(share_ns[index] - prefill_ns[index])),
            "share_energy_j": pool.estimate(float(share_j[index]), float(error_j[index]), pool.method + _SHARED),
        }
        waited = _unknown() if row is None else _elapsed(capture, row, latencies, parts[row])
        rows.append(RequestRow(request=number, **waited, **used))
    return tuple(rows)


def _unknown() -> dict[str, Any]:
    return {
        "name": None,
        "num_prompt_tokens": None,
        "num_output_tokens": None,
        "is_finished": None,
        "ttft_s": None,
        "tpot_s": None,
        "e2e_s": None,
        "elapsed": None,
        "elapsed_reason": "no client recorded it",
    }


def _elapsed(capture: Capture, row: int, latencies: Latencies, part: LatencyParts | None) -> dict[str, Any]:
    requests = capture.requests
    is_finished = bool(requests.is_finished[row])
    return {
        "name": requests.name[row],
        "num_prompt_tokens": int(requests.num_prompt_tokens[row]),
        "num_output_tokens": int(requests.num_output_tokens[row]),
        "is_finished": is_finished,
        "ttft_s": _or_none(latencies.ttft_s[row]),
        "tpot_s": _or_none(latencies.tpot_s[row]),
        "e2e_s": _or_none(latencies.e2e_s[row]),
        "elapsed": part,
        "elapsed_reason": None if part is not None else _NO_STEPS if is_finished else _NOT_FINISHED,
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
