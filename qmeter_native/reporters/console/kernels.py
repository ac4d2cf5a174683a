"""Kernels ranked by time or by energy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from qmeter_native.model.estimate import Estimate
from qmeter_native.model.report import AttributionReport, KernelRow
from qmeter_native.model.static_policy import StaticPolicy
from qmeter_native.reporters.console.footnotes import MISSING, Footnotes
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, indented, plain
from qmeter_native.reporters.quantity import Scale, bar, count, percent, scale_of

__all__ = ["kernel_section"]

_BAR_WIDTH: Final = 5
_MIXED: Final = "a : b = per cent of a kernel's time in prefill : decode"
_UNRESOLVED: Final = "? = the run does not tell its joules apart from other kernels'"
_POLICIES: Final = {
    StaticPolicy.SEPARATE: "dynamic joules; static ones stand apart",
    StaticPolicy.BY_TIME: "dynamic joules, and static ones by time",
    StaticPolicy.BY_ENERGY: "dynamic joules, and static ones in proportion",
}
_NO_LAUNCH: Final = "its launch lies outside the measured window"


def kernel_section(report: AttributionReport, ranking: str, num_kernels: int, width: int) -> Section:
    """The ``num_kernels`` first kernels by ``ranking``, which is ``time`` or ``energy``."""
    if not report.kernels:
        return Section(f"Kernels by {ranking}", [indented("no kernels were recorded")])
    footnotes = Footnotes()
    rows: Sequence[KernelRow] = report.kernels
    if ranking == "energy":
        if all(row.energy_j.value is None for row in rows):
            return Section("Kernels by energy", [indented(f"{MISSING} {rows[0].energy_j.reason}")])
        rows = sorted(rows, key=lambda row: -(row.energy_j.value or 0.0))
    shown = rows[:num_kernels]
    columns = _time_columns(shown, footnotes) if ranking == "time" else _energy_columns(shown, footnotes)
    table, hidden = fitted_table(columns, width)
    remarks = [_MIXED] if any(":" in _phase(row) for row in shown) and "phase" not in hidden else []
    if ranking == "energy":
        remarks += _energy_remarks(report, shown, hidden)
    hidden = [title for title in hidden if title]
    if hidden:
        remarks.append(f"a wider terminal also shows {', '.join(hidden)}")
    subtitle = "" if len(shown) == len(rows) else f"{count(len(shown))} of {count(len(rows))}"
    return Section(f"Kernels by {ranking}", [table], subtitle, footnotes, remarks)


def _energy_remarks(report: AttributionReport, rows: Sequence[KernelRow], hidden: Sequence[str]) -> list[str]:
    remarks = [_POLICIES[report.static_policy]]
    if "by" not in hidden and any(row.mode is not None and not row.is_resolved for row in rows):
        remarks.append(_UNRESOLVED)
    return remarks


def _time_columns(rows: Sequence[KernelRow], footnotes: Footnotes) -> list[Column]:
    energy = _joules_scale(row.energy_j for row in rows)
    per_launch = _joules_scale(row.j_per_launch for row in rows)
    columns = [
        _name(rows),
        *_kind(rows),
        _calls(rows),
        _mean(rows, footnotes),
        _seconds("time", [row.time_s for row in rows]),
        Column("share %", [percent(row.time_share) for row in rows]),
        _bars([row.time_share for row in rows], rank=5),
    ]
    if any(row.overlapped_s for row in rows):
        columns.append(_seconds("overlapped", [row.overlapped_s for row in rows], rank=8))
    if any(row.energy_j.value is not None for row in rows):
        columns += [
            _joules("energy", [row.energy_j for row in rows], energy, footnotes, rank=6),
            _joules("per launch", [row.j_per_launch for row in rows], per_launch, footnotes, rank=7),
        ]
    return columns


def _energy_columns(rows: Sequence[KernelRow], footnotes: Footnotes) -> list[Column]:
    shares = [row.energy_share for row in rows]
    energy = _joules_scale(row.energy_j for row in rows)
    per_launch = _joules_scale(row.j_per_launch for row in rows)
    return [
        _name(rows),
        *_kind(rows),
        _calls(rows),
        _joules("per launch", [row.j_per_launch for row in rows], per_launch, footnotes, rank=2),
        _joules("energy", [row.energy_j for row in rows], energy, footnotes),
        Column("share %", [_share(share, footnotes) for share in shares]),
        _bars([share.value or 0.0 for share in shares], rank=3),
        Column("95 %", [_relative_interval(row.energy_j) for row in rows], 5, style="dim"),
        Column("by", [_known_by(row) for row in rows], 6, "left", "dim"),
        _joules("marginal", [row.marginal_j for row in rows], per_launch, footnotes, rank=7),
        _joules("static", [row.static_j for row in rows], energy, footnotes, rank=8),
    ]


def _known_by(row: KernelRow) -> str:
    """How a kernel's work is known; a question mark where its joules are not told apart from others'."""
    return MISSING if row.mode is None else f"{row.mode.value}{'' if row.is_resolved else ' ?'}"


def _name(rows: Sequence[KernelRow]) -> Column:
    return Column("kernel", [plain(row.display_name) for row in rows], justify="left", flexible="cut")


def _kind(rows: Sequence[KernelRow]) -> list[Column]:
    columns = [Column("family", [row.op_family.value for row in rows], 1, "left")]
    if any(row.scheme for row in rows):
        columns.append(Column("scheme", [plain(row.scheme) if row.scheme else MISSING for row in rows], 4, "left"))
    return [*columns, Column("phase", [_phase(row) for row in rows], 2, "left")]


def _phase(row: KernelRow) -> str:
    """The phase a kernel ran in; ``mixed 12:88`` where it ran in both."""
    prefill, decode = (row.phase_shares.get(phase, 0.0) for phase in ("prefill", "decode"))
    if prefill and decode:
        return f"mixed {_per_cent(prefill)}:{_per_cent(decode)}"
    return "prefill" if prefill else "decode" if decode else "none"


def _per_cent(share: float) -> str:
    """A share that is neither nothing nor all, without decimals and never as 0 or 100."""
    return "<1" if share < 0.01 else ">99" if share > 0.99 else f"{100 * share:.0f}"


def _calls(rows: Sequence[KernelRow]) -> Column:
    return Column("calls", [count(row.calls) for row in rows], 2)


def _mean(rows: Sequence[KernelRow], footnotes: Footnotes) -> Column:
    scale = scale_of([row.mean_s for row in rows], "s")
    cells = [footnotes.missing(_NO_LAUNCH) if row.mean_s is None else scale.text(row.mean_s) for row in rows]
    return Column(f"mean {scale.unit}", cells, 2)


def _seconds(title: str, values: Sequence[float], rank: int = 0) -> Column:
    scale = scale_of(values, "s")
    return Column(f"{title} {scale.unit}", [scale.text(value) for value in values], rank)


def _joules_scale(values: Iterable[Estimate]) -> Scale:
    return scale_of([estimate.value for estimate in values], "J")


def _joules(title: str, values: Sequence[Estimate], scale: Scale, footnotes: Footnotes, rank: int = 0) -> Column:
    return Column(f"{title} {scale.unit}", [footnotes.estimate(estimate, scale) for estimate in values], rank)


def _bars(shares: Sequence[float], rank: int) -> Column:
    """Bars against the largest share, so that the ranking is seen even where all shares are small."""
    largest = max(shares) or 1.0
    return Column("", [bar(share / largest, _BAR_WIDTH) for share in shares], rank, "left", "cyan")


def _share(share: Estimate, footnotes: Footnotes) -> str:
    return footnotes.missing(share.reason) if share.value is None else percent(share.value)


def _relative_interval(estimate: Estimate) -> str:
    if not estimate.value or estimate.low is None or estimate.high is None:
        return MISSING
    low, high = estimate.low / estimate.value - 1, estimate.high / estimate.value - 1
    return f"{100 * low:+.0f} {100 * high:+.0f} %"
