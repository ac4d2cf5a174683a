"""Requests: what each waited and, apart from that, what each used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from qmeter_native.model.report import AttributionReport, LatencyParts, RequestRow
from qmeter_native.reporters.console.footnotes import Footnotes
from qmeter_native.reporters.console.section import Section
from qmeter_native.reporters.console.table import Column, fitted_table, plain
from qmeter_native.reporters.quantity import Scale, count, scale_of
from qmeter_native.units import ns_to_s

__all__ = ["request_sections"]

_HOST_STEPS: Final = "outside traced time a step is as long as the host's call, and what the device did after it a gap"


def request_sections(report: AttributionReport, num_requests: int, width: int) -> list[Section]:
    """The slowest ``num_requests`` by end-to-end latency, twice: elapsed time and shares, which are never added."""
    rows = sorted(report.requests, key=lambda row: -(row.e2e_s or 0.0))[:num_requests]
    if not rows:
        return []
    is_part = len(rows) < len(report.requests)
    subtitle = f"slowest {count(len(rows))} of {count(len(report.requests))}" if is_part else ""
    is_traced = all(coverage.is_complete for coverage in report.coverage)
    remarks = [] if is_traced else [_HOST_STEPS]
    return [_elapsed_section(rows, subtitle, remarks, width), _share_section(rows, width)]


def _elapsed_section(rows: Sequence[RequestRow], subtitle: str, remarks: Sequence[str], width: int) -> Section:
    footnotes = Footnotes()
    parts: dict[str, Callable[[LatencyParts], int]] = {
        "queue": lambda elapsed: elapsed.queue_ns,
        "+ prefill steps": lambda elapsed: elapsed.prefill_steps_ns,
        "+ decode steps": lambda elapsed: elapsed.decode_steps_ns,
        "+ gaps": lambda elapsed: elapsed.gaps_ns,
        "+ host": lambda elapsed: elapsed.host_ns,
        "= E2E": lambda elapsed: elapsed.end_to_end_ns,
    }
    # One scale for all parts: they are there to be added up.
    scale = scale_of([ns_to_s(row.elapsed.end_to_end_ns) for row in rows if row.elapsed], "s")
    columns = [
        _name(rows),
        *(_part(title, rows, part, scale, footnotes) for title, part in parts.items()),
        _latency("TTFT", rows, [row.ttft_s for row in rows], footnotes, rank=1),
        _latency("TPOT", rows, [row.tpot_s for row in rows], footnotes, rank=2),
    ]
    table, _ = fitted_table(columns, width)
    return Section("Requests: what they waited", [table], subtitle, footnotes, remarks)


def _share_section(rows: Sequence[RequestRow], width: int) -> Section:
    footnotes = Footnotes()
    energy = scale_of([row.share_energy_j.value for row in rows], "J")
    columns = [
        _name(rows),
        Column("tokens in", [_tokens(row, row.num_prompt_tokens, footnotes) for row in rows]),
        Column("out", [_tokens(row, row.num_output_tokens, footnotes) for row in rows]),
        _latency("prefill", rows, [row.share_prefill_s for row in rows], footnotes),
        _latency("decode", rows, [row.share_decode_s for row in rows], footnotes),
        Column(f"energy {energy.unit}", [footnotes.estimate(row.share_energy_j, energy) for row in rows]),
    ]
    table, _ = fitted_table(columns, width)
    return Section("Requests: what they used", [table], "their share of busy time and joules", footnotes)


def _name(rows: Sequence[RequestRow]) -> Column:
    names = [
        f"number {row.request}" if row.name is None else plain(row.name) + ("" if row.is_finished else " (cut off)")
        for row in rows
    ]
    return Column("request", names, justify="left", flexible="cut")


def _tokens(row: RequestRow, number: int | None, footnotes: Footnotes) -> str:
    return footnotes.missing(row.elapsed_reason) if number is None else count(number)


def _part(
    title: str, rows: Sequence[RequestRow], part: Callable[[LatencyParts], int], scale: Scale, footnotes: Footnotes
) -> Column:
    cells = [
        footnotes.missing(row.elapsed_reason) if row.elapsed is None else scale.text(ns_to_s(part(row.elapsed)))
        for row in rows
    ]
    return Column(title if title.startswith("+") else f"{title} {scale.unit}", cells)


def _latency(
    title: str, rows: Sequence[RequestRow], values: Sequence[float | None], footnotes: Footnotes, rank: int = 0
) -> Column:
    scale = scale_of(values, "s")
    cells = [
        footnotes.missing(_absence(row)) if value is None else scale.text(value)
        for row, value in zip(rows, values, strict=True)
    ]
    return Column(f"{title} {scale.unit}", cells, rank)


def _absence(row: RequestRow) -> str | None:
    """Why a request has no latency."""
    return row.elapsed_reason if row.name is None else "the request did not get that far"
