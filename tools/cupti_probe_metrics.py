"""Figures of ``tools/cupti_probe.py``, computed from what its processes saw."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from qmeter_native.units import ns_to_s
from tools.results import Metric

__all__ = ["GRAPH_NODES", "MODES", "Groups", "Record", "metrics_of"]

GRAPH_NODES: Final = 440
"""Kernels of the graph: about those of an 8B model's decode step."""

MODES: Final = {"pipelined": 20, "sync": 1}
"""Replays per synchronisation: the host runs ahead of the GPU, or waits for each replay."""

Record = Mapping[str, Any]
"""What one process saw: the JSON object it printed, with the configuration's ``name``. Times in microseconds."""

Groups = Mapping[str, Sequence[Record]]
"""Records by configuration."""


def metrics_of(groups: Groups) -> dict[str, Metric]:
    """All figures.

    ``*_replay_s`` is the median over processes of the median replay, from the lowest tenth percentile to the highest
    ninetieth; ``*_overhead`` compares it with the median baseline of the same mode, low and high with the slowest and
    the fastest baseline.
    """
    metrics: dict[str, Metric] = {}
    for mode in MODES:
        base = [record["replay_us_median"] for record in groups[f"{mode}_base"]]
        for name in (name for name in groups if name.startswith(f"{mode}_")):
            if name == f"{mode}_switching":
                metrics |= _switching(name, groups[name][0], base)
            else:
                metrics |= _replay(name, groups[name], base)
        metrics |= _mode(mode, groups, base)
    metrics |= _losses([record for name in groups for record in groups[name] if "expected_eager" in record])
    for name in ("late_enable", "late_load"):
        metrics |= _late(name, groups[name][0])
    return metrics | _clock(groups["clock"][0]) | _soak(groups["soak"][0])


def _us(values: Iterable[float]) -> Metric:
    return Metric.of_repeats([ns_to_s(value * 1_000) for value in values], "s")


def _overhead(replay_us: float, base_us: Sequence[float]) -> Metric:
    def over(base: float) -> float:
        return replay_us / base - 1

    return Metric(over(statistics.median(base_us)), "1", over(max(base_us)), over(min(base_us)), len(base_us))


def _count(value: int, n: int = 1) -> Metric:
    return Metric(value, "1", n=n)


def _replay(name: str, group: Sequence[Record], base_us: Sequence[float]) -> dict[str, Metric]:
    replay_us = statistics.median(record["replay_us_median"] for record in group)
    metrics = {
        f"{name}_replay_s": Metric(
            ns_to_s(replay_us * 1_000),
            "s",
            ns_to_s(min(record["replay_us_p10"] for record in group) * 1_000),
            ns_to_s(max(record["replay_us_p90"] for record in group) * 1_000),
            sum(record["replays"] for record in group),
        ),
        f"{name}_eager_launch_s": _us(record["eager_us"] for record in group),
        f"{name}_gpu_mib": Metric.of_repeats([record["gpu_used_mb_end"] for record in group], "MiB"),
    }
    if not name.endswith("_base"):
        metrics[f"{name}_overhead"] = _overhead(replay_us, base_us)
    if all("launch_us_median" in record for record in group):
        metrics[f"{name}_graph_launch_s"] = _us(record["launch_us_median"] for record in group)
    return metrics


def _mode(mode: str, groups: Groups, base_us: Sequence[float]) -> dict[str, Metric]:
    """What a recorded node and a marker cost, and how many API records a launch makes."""

    def excess(variant: str, parts: int) -> Metric:
        replay_us = statistics.median(record["replay_us_median"] for record in groups[f"{mode}_{variant}"])
        value, low, high = (
            ns_to_s((replay_us - base) * 1_000 / parts)
            for base in (statistics.median(base_us), max(base_us), min(base_us))
        )
        return Metric(value, "s", low, high, len(base_us))

    launches = groups[f"{mode}_kernels_launches"][0]
    num_launches = launches["expected_eager"] + launches["expected_nodes"] // GRAPH_NODES + GRAPH_NODES
    return {
        f"{mode}_per_node_s": excess("kernels", GRAPH_NODES),
        f"{mode}_per_marker_s": excess("base_markers", 2),
        f"{mode}_api_records_per_launch": Metric((launches["runtime"] + launches["driver"]) / num_launches, "1"),
    }


def _bad(record: Record) -> int:
    return int(record["zero"] + record["reversed"] + record["dropped"])


def _losses(records: Sequence[Record]) -> dict[str, Metric]:
    """Of all processes that replayed with kernels recorded."""
    missing = [record["expected_nodes"] + record["expected_eager"] - record["kernels"] for record in records]
    return {
        "replay_kernel_records": _count(sum(record["kernels"] for record in records), len(records)),
        "replay_missing_records": Metric(sum(missing), "1", min(missing), max(missing), len(missing)),
        "replay_bad_records": _count(sum(_bad(record) for record in records), len(records)),
    }


def _switching(name: str, record: Record, base_us: Sequence[float]) -> dict[str, Metric]:
    num_cycles = len(record["got"])
    missing = [int(expected - got) for expected, got in zip(record["expected"], record["got"], strict=True)]
    return {
        f"{name}_enable_s": _us(record["enable_us"]),
        f"{name}_disable_s": _us(record["disable_us"]),
        f"{name}_on_replay_s": _us(record["on_median_us"]),
        f"{name}_off_replay_s": _us(record["off_median_us"]),
        f"{name}_off_overhead": _overhead(statistics.median(record["off_median_us"]), base_us),
        f"{name}_missing_records": Metric(sum(missing), "1", min(missing), max(missing), num_cycles),
        f"{name}_bad_records": _count(record["bad"], num_cycles),
        f"{name}_off_records": _count(int(sum(record["off_records"])), num_cycles),
        f"{name}_cycles_with_same_ids": _count(record["same_ids_as_on0"].count("1"), num_cycles),
        f"{name}_first_off_records": _count(record["off0_records"]),
        f"{name}_first_off_replay_s": _us([record["off0_replay_us_median"]]),
    }


def _late(name: str, record: Record) -> dict[str, Metric]:
    phases = record["phases"]
    traced = [phase for phase in phases if "expected_nodes" in phase]
    on = [phase for phase in traced if phase["expected_nodes"]]
    off = [phase for phase in traced if not phase["expected_nodes"]]
    metrics = {
        f"{name}_first_enable_s": _us([record["enable_us"]]),
        f"{name}_missing_records": _count(sum(p["expected_nodes"] - p["graph_nodes"] for p in on), len(on)),
        f"{name}_bad_records": _count(sum(_bad(phase) for phase in traced), len(traced)),
        f"{name}_node_ids": Metric.of_repeats([phase["ids"]["distinct"] for phase in on], "1"),
        f"{name}_off_records": _count(sum(phase["kernels"] for phase in off), len(off)),
        f"{name}_off_replay_s": _us(phase["replay_us_median"] for phase in off),
    }
    bare_us = [phase["replay_us_median"] for phase in phases if "expected_nodes" not in phase]
    if bare_us:
        off_us = [phase["replay_us_median"] / bare_us[0] - 1 for phase in off]
        metrics[f"{name}_off_overhead"] = Metric.of_repeats(off_us, "1")
    return metrics


def _clock(record: Record) -> dict[str, Metric]:
    readings = [record["clocks0"], record["clocks1"]]
    return {
        "clock_offset_ns": Metric(
            statistics.median(reading["offset_ns_median"] for reading in readings),
            "ns",
            min(reading["offset_ns_min"] for reading in readings),
            max(reading["offset_ns_max"] for reading in readings),
            len(readings),
        ),
        "clock_bracket_ns": Metric.of_repeats([reading["bracket_ns_median"] for reading in readings], "ns"),
    }


def _soak(record: Record) -> dict[str, Metric]:
    first, *parts = record["marks"]
    return {
        "soak_nodes": _count(int(record["expected_nodes"])),
        "soak_missing_records": _count(int(record["expected_nodes"] - record["graph_nodes"])),
        "soak_bad_records": _count(_bad(record)),
        "soak_pool_misses": _count(record["pool_misses"]),
        "soak_rss_growth_mib": Metric(parts[-1]["rss_mb"] - first["rss_mb"], "MiB"),
        "soak_gpu_growth_mib": Metric(parts[-1]["gpu_used_mb"] - first["gpu_used_mb"], "MiB"),
        "soak_node_first_part_s": _us([parts[0]["us_per_node"]]),
        "soak_node_last_part_s": _us([parts[-1]["us_per_node"]]),
    }
