"""The balances: where all the time and energy went, and what is left over."""

from __future__ import annotations

from typing import Final

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from qmeter_native.model.report import AttributionReport, EnergyBalance, RequestBalance, TimeBalance
from qmeter_native.model.static_policy import StaticPolicy
from qmeter_native.reporters.console.header import device_label
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import INDENT, plain
from qmeter_native.reporters.quantity import count, percent, quantity, scale_of
from qmeter_native.units import ns_to_s

__all__ = ["balance_section"]

_CLOSED = ("✓", "green")
_OPEN = ("✗", "bold red")
_ABSENT = ("–", "yellow")
_SHOWN_SAMPLING: Final = 1e-3
"""Part of what was measured from which the counter's uneven sampling is worth a word."""


def balance_section(report: AttributionReport) -> Section:
    """One row a balance and device: a mark, the sum, what is left over."""
    balance = report.balance
    labels = {device.index: device_label(device, len(report.devices)) for device in report.devices}
    grid = Table.grid(padding=(0, 1))
    for width in (1, max(len(f"requests {label}".rstrip()) for label in ("", *labels.values())), None):
        grid.add_column(width=width)
    for time in balance.time:
        _add(grid, time.is_closed, f"time {labels.get(time.device, '')}", _time_text(time))
    for energy in balance.energy:
        is_closed = None if energy.measured_j is None else energy.is_closed
        _add(grid, is_closed, f"energy {labels.get(energy.device, '')}", _energy_text(energy))
    requests = balance.requests
    _add(grid, None if requests.max_residual_ns is None else requests.is_closed, "requests", _request_text(requests))
    return Section("Balance", [Padding(grid, (0, 0, 0, INDENT))])


def _add(grid: Table, is_closed: bool | None, label: str, text: str) -> None:
    mark, style = _ABSENT if is_closed is None else _CLOSED if is_closed else _OPEN
    grid.add_row(Text(mark, style), Text(label.rstrip()), Text(text))


def _time_text(time: TimeBalance) -> str:
    wall, kernels, inside, between = (
        ns_to_s(value) for value in (time.wall_ns, time.kernels_ns, time.idle_in_steps_ns, time.idle_between_steps_ns)
    )
    scale = scale_of([wall], "s")
    untraced = f" + untraced {scale.text(ns_to_s(time.untraced_ns))}" if time.untraced_ns else ""
    return (
        f"{scale.text(wall)} {scale.unit} = kernels {scale.text(kernels)} + idle in steps {scale.text(inside)}"
        f" + idle between {scale.text(between)}{untraced}\n"
        f"left over {time.residual_ns} ns · not shared out {time.request_residual_ns} ns"
        f" · unassigned {percent(time.unassigned_share)} %"
    )


def _energy_text(energy: EnergyBalance) -> str:
    if energy.measured_j is None:
        return f"not measured: {plain(energy.reason or 'no reason was recorded')}"
    scale = scale_of([energy.measured_j], "J")
    is_separate = energy.static_policy is StaticPolicy.SEPARATE
    parts = {
        "kernels": energy.kernels_j,
        **({"static": energy.static_j} if is_separate else {}),
        "idle": energy.idle_j,
        "meter": energy.meter_j,
        "unattributed": energy.unattributed_j,
    }
    terms = "".join(
        f" {'-' if value < 0 else '+'} {name} {scale.text(abs(value))}"
        for name, value in parts.items()
        if value is not None
    )
    lines = [f"{scale.text(energy.measured_j)} {scale.unit} ={terms.removeprefix(' +')}"]
    told = [] if energy.residual_j is None else [f"left over {quantity(energy.residual_j, 'J')}"]
    if energy.raw_residual_fraction is not None:
        told.append(f"raw residual {percent(energy.raw_residual_fraction)} %")
    if abs(energy.sampling_share) >= _SHOWN_SAMPLING:
        told.append(f"the counter misread {percent(energy.sampling_share)} %")
    told.append(count(energy.num_windows, "window"))
    if energy.resolved_share is not None:
        told.append(f"{percent(energy.resolved_share)} % of kernels' joules resolved")
    return "\n".join([*lines, " · ".join(told), plain(energy.method)])


def _request_text(requests: RequestBalance) -> str:
    if requests.max_residual_ns is None:
        return f"not measured: {plain(requests.reason or 'no reason was recorded')}"
    return (
        f"{count(requests.num_requests)} × (queue + steps + gaps + host = end to end)\n"
        f"left over at most {requests.max_residual_ns} ns"
    )
