"""Requests whose end-to-end time is told part by part."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from qmeter_native.model.explanation import ExplainedPart, RequestExplanation
from qmeter_native.model.report import AttributionReport
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, plain
from qmeter_native.reporters.quantity import bar, count, percent, quantity, scale_of
from qmeter_native.units import ns_to_s

__all__ = ["explanation_sections"]

_BAR_WIDTH: Final = 20
_MIN_SHARE: Final = 0.001
"""Families below this share of the end-to-end time are one row a phase: they explain nothing."""
_OTHERS: Final = "other kernels"
_OUTSIDE: Final = ("queue", "host")
"""Before the first step and after the last."""
_NAMES: Final = {
    "queue": "queue",
    "idle_in_steps": "GPU idle",
    "gaps": "gaps between steps",
    "preempted": "preempted",
    "untraced": "not traced",
    "host": "host after last step",
}


def explanation_sections(report: AttributionReport, width: int) -> list[Section]:
    """One section a request; what it shares with one before it, having ridden the same steps, is not told again."""
    told: dict[tuple[ExplainedPart, ...], RequestExplanation] = {}
    sections = []
    for explanation in report.explanations:
        first = told.setdefault(_ridden(explanation), explanation)
        same_as = None if first is explanation else plain(first.name)
        sections.append(_section(explanation, same_as, len(report.processes), width))
    return sections


def _ridden(explanation: RequestExplanation) -> tuple[ExplainedPart, ...]:
    """The parts from the first step to the last."""
    return tuple(part for part in explanation.parts if part.kind not in _OUTSIDE)


def _section(explanation: RequestExplanation, same_as: str | None, num_processes: int, width: int) -> Section:
    total_ns = explanation.end_to_end_ns
    rows = _rows(explanation) if same_as is None else _outside_rows(explanation, same_as)
    scale = scale_of([ns_to_s(total_ns)], "s")
    shares = [part.time_ns / total_ns if total_ns else 0.0 for _, part in rows]
    columns = [
        Column("where its time went", [*(name for name, _ in rows), "= end to end"], justify="left"),
        Column(
            f"time {scale.unit}", [scale.text(ns_to_s(ns)) for ns in (*(part.time_ns for _, part in rows), total_ns)]
        ),
        Column("share %", [*(percent(share) for share in shares), ""]),
        Column("", [*(bar(share, _BAR_WIDTH) for share in shares), ""], 1, "left", "cyan"),
    ]
    table, _ = fitted_table(columns, width)
    has_others = any(name.endswith(_OTHERS) for name, _ in rows)
    remarks = [f"{_OTHERS}: families below {percent(_MIN_SHARE)} % each"] if has_others else []
    subtitle = [explanation.reason, count(explanation.num_steps, "step")]
    if num_processes > 1:
        subtitle.append(f"process {explanation.process}")
    if not explanation.is_client:
        subtitle.append("stamps of the engine, not of the client")
    title = f"Explained: {plain(explanation.name)}, {quantity(ns_to_s(total_ns), 's')}"
    return Section(title, [table], " · ".join(subtitle), remarks=remarks)


def _outside_rows(explanation: RequestExplanation, same_as: str) -> list[tuple[str, ExplainedPart]]:
    """What lies outside the steps, and one row for all that is as with another request."""
    ridden = ExplainedPart("steps", None, None, sum(part.time_ns for part in _ridden(explanation)))
    queue, host = (part for part in explanation.parts if part.kind in _OUTSIDE)
    return [("queue", queue), (f"the same steps as {same_as}", ridden), (_NAMES["host"], host)]


def _rows(explanation: RequestExplanation) -> list[tuple[str, ExplainedPart]]:
    """Parts with their names, the small families of a phase put together where it has several."""
    small: dict[str | None, list[ExplainedPart]] = defaultdict(list)
    for part in explanation.parts:
        if part.op_family is not None and part.time_ns < _MIN_SHARE * explanation.end_to_end_ns:
            small[part.phase].append(part)
    rows = []
    for part in explanation.parts:
        others = small[part.phase]
        if part not in others or len(others) == 1:
            rows.append((_name(part), part))
        elif part is others[0]:
            rest_ns = sum(each.time_ns for each in others)
            rows.append((f"{part.phase} · {_OTHERS}", ExplainedPart("kernels", part.phase, None, rest_ns)))
    return rows


def _name(part: ExplainedPart) -> str:
    what = part.op_family.value if part.op_family is not None else _NAMES.get(part.kind, part.kind)
    return what if part.phase is None else f"{part.phase} · {what}"
