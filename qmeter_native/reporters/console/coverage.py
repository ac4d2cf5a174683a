"""How much of the measured window was traced, and what that says of the whole of it."""

from __future__ import annotations

from typing import Final

from qmeter_native.model.coverage import Coverage
from qmeter_native.model.report import AttributionReport
from qmeter_native.reporters.console.footnotes import MISSING, Footnotes
from qmeter_native.reporters.console.header import device_label
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, indented
from qmeter_native.reporters.quantity import count, percent, quantity, scale_of
from qmeter_native.units import ns_to_s

__all__ = ["coverage_sections"]

_REMARK: Final = "kernels, phases and what requests used are of traced time only"


def coverage_sections(report: AttributionReport, width: int) -> list[Section]:
    """One section for each device that was traced in part."""
    labels = {device.index: device_label(device, len(report.devices)) for device in report.devices}
    return [_section(each, labels.get(each.device, ""), width) for each in report.coverage if not each.is_complete]


def _section(coverage: Coverage, label: str, width: int) -> Section:
    wall_s = ns_to_s(coverage.traced_ns + coverage.untraced_ns)
    traced_s = ns_to_s(coverage.traced_ns)
    line = (
        f"kernels were recorded in {count(coverage.num_windows, 'window')}, {quantity(traced_s, 's')} of "
        f"{quantity(wall_s, 's')} ({percent(traced_s / wall_s)} %)"
    )
    title = f"Coverage {label}".rstrip()
    if coverage.busy_s.value is None:
        unknown = f"{MISSING} times of the whole window are not estimated: {coverage.busy_s.reason}"
        return Section(title, [indented(line), indented(unknown)], remarks=[_REMARK])
    footnotes = Footnotes()
    figures = {"busy": coverage.busy_s, **{family.op_family: family.time_s for family in coverage.families}}
    scale = scale_of([estimate.value for estimate in figures.values()], "s")
    intervals = [
        MISSING
        if estimate.low is None or estimate.high is None
        else f"{scale.text(estimate.low)} to {scale.text(estimate.high)}"
        for estimate in figures.values()
    ]
    columns = [
        Column("whole window, estimated", list(figures), justify="left"),
        Column(f"time {scale.unit}", [footnotes.estimate(estimate, scale) for estimate in figures.values()]),
        Column("95 % interval", intervals, style="dim"),
        Column(
            "of wall %",
            [MISSING if each.value is None else percent(each.value / wall_s) for each in figures.values()],
            1,
        ),
    ]
    table, _ = fitted_table(columns, width)
    return Section(
        title,
        [indented(line), table],
        footnotes=footnotes,
        remarks=[f"{_REMARK}; the times above are scaled to all of it"],
    )
