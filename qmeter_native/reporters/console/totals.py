"""Totals: latencies, throughput, joules."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType

from qmeter_native.model.estimate import Estimate
from qmeter_native.model.report import AttributionReport, Distribution, Totals
from qmeter_native.reporters.console.footnotes import MISSING, Footnotes
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, indented, plain
from qmeter_native.reporters.quantity import count, percent, quantity, scale_of

__all__ = ["totals_sections"]


def totals_sections(report: AttributionReport, width: int) -> list[Section]:
    """Latency and throughput, then energy."""
    is_traced = all(coverage.is_complete for coverage in report.coverage)
    is_engine = any(entry.code == "engine_stamps" for entry in report.validity)
    return [_latency_section(report.totals, width, is_traced, is_engine), _energy_section(report.totals, width)]


def _latency_section(totals: Totals, width: int, is_traced: bool, is_engine: bool) -> Section:
    footnotes = Footnotes()
    body: list[RenderableType] = []
    if totals.num_requests:
        rows = ["mean", "median", "p90", "p99", "count"]
        columns = [Column("", rows, justify="left", style="dim")]
        named = {"TTFT": totals.ttft_s, "TPOT": totals.tpot_s, "ITL": totals.itl_s, "E2E": totals.e2e_s}
        columns += [_distribution(title, sample, footnotes) for title, sample in named.items()]
        table, _ = fitted_table(columns, width)
        body.append(table)
    body += [indented(line) for line in _throughput(totals, is_traced)]
    stamps = " · latencies by the engine's own stamps, not a client's" if is_engine else ""
    return Section("Totals", body, f"{quantity(totals.wall_s, 's')} measured{stamps}", footnotes)


def _distribution(title: str, sample: Distribution, footnotes: Footnotes) -> Column:
    figures = (sample.mean, sample.median, sample.p90, sample.p99)
    scale = scale_of(figures, "s")
    missing = footnotes.missing("no finished request has such a figure") if None in figures else MISSING
    cells = [missing if figure is None else scale.text(figure) for figure in figures]
    return Column(f"{title} {scale.unit}", [*cells, count(sample.count)])


def _throughput(totals: Totals, is_traced: bool) -> list[str]:
    lines = []
    if totals.num_requests:
        lines = [
            f"{count(totals.num_finished)} of {count(totals.num_requests)} requests finished · "
            f"{count(totals.num_prompt_tokens)} tokens in, {count(totals.num_output_tokens)} out",
            f"{totals.request_throughput:,.2f} requests/s · {totals.output_throughput:,.1f} output tokens/s · "
            f"{totals.total_token_throughput:,.1f} tokens/s",
        ]
    recorded = "" if is_traced else " recorded in traced time"
    return [*lines, f"{count(totals.num_steps, 'engine step')} · {count(totals.num_kernels, 'kernel')}{recorded}"]


def _energy_section(totals: Totals, width: int) -> Section:
    rows: dict[str, tuple[Estimate, str]] = {
        "gross": (totals.energy_gross_j, "J"),
        "dynamic": (totals.energy_dynamic_j, "J"),
        "static": (totals.energy_static_j, "J"),
        "idle": (totals.energy_idle_j, "J"),
        **({} if totals.energy_memory_j.value is None else {"memory, of gross": (totals.energy_memory_j, "J")}),
        "mean power": (totals.average_power_w, "W"),
        "per output token": (totals.j_per_output_token, "J"),
        "per input token": (totals.j_per_input_token, "J"),
        "per token": (totals.j_per_total_token, "J"),
        "per request": (totals.j_per_request, "J"),
    }
    estimates = [estimate for estimate, _ in rows.values()]
    reasons = {estimate.reason for estimate in estimates}
    if all(estimate.value is None for estimate in estimates) and len(reasons) == 1:
        return Section("Energy", [indented(f"{MISSING} {reasons.pop()}")])
    footnotes = Footnotes()
    values, units, intervals = [], [], []
    for estimate, unit in rows.values():
        scale = scale_of([estimate.value], unit)
        values.append(footnotes.estimate(estimate, scale))
        units.append(scale.unit if estimate.value is not None else "")
        intervals.append(_interval(estimate))
    columns = [
        Column("", list(rows), justify="left"),
        Column("energy", values),
        Column("", units, justify="left", style="dim"),
        Column("95 % interval", intervals, rank=2, style="dim"),
        Column("systematic", _systematic(estimates), rank=3, style="dim"),
        Column("method", [_method(estimate) for estimate in estimates], 1, "left", "dim", flexible="wrap"),
    ]
    table, _ = fitted_table(columns, width)
    return Section("Energy", [table], footnotes=footnotes)


def _interval(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return MISSING
    scale = scale_of([estimate.value], "")
    return f"{scale.text(estimate.low)} to {scale.text(estimate.high)}"


def _method(estimate: Estimate) -> str:
    return MISSING if estimate.value is None else plain(estimate.method)


def _systematic(estimates: Sequence[Estimate]) -> list[str]:
    return [MISSING if figure.systematic is None else f"± {percent(figure.systematic)} %" for figure in estimates]
