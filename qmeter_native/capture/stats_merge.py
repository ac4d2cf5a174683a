"""Statistics of several processes → one set: which key is added up, and which is a maximum, is data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from qmeter_native.storage.spool import SpoolContents

__all__ = ["MERGE_RULES", "merged_stats"]

_Rule = Callable[[Sequence[Any]], Any]


def _first(values: Sequence[Any]) -> Any:
    return values[0]


def _union(values: Sequence[Sequence[Any]]) -> list[Any]:
    return sorted({entry for value in values for entry in value})


def _sum_by_key(values: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for value in values:
        total.update(value)
    return dict(total)


MERGE_RULES: Final[dict[str, dict[str, _Rule]]] = {
    "kernel_tracer": {
        "kernels": sum,
        "graph_nodes": sum,
        "memcpys": sum,
        "memsets": sum,
        "dropped_records": sum,
        "zero_timestamps": sum,
        "reversed_timestamps": sum,
        "unknown_records": sum,
        "buffers_in_use_max": max,
        "buffers_denied": sum,
        "decode_ns": sum,
        "callback_ns": sum,
    },
    "energy_sampler": {
        "samples": sum,
        "missed_samples": sum,
        "cpu_ns": sum,
        "blocked_ns": sum,
        "jitter_p50_ns": max,
        "jitter_p99_ns": max,
        "jitter_max_ns": max,
        "counter_calls": sum,
        "counter_resets": sum,
        "edges": sum,
        "missed_edges": sum,
        "errors": _sum_by_key,
        "devices_lost": _union,
    },
    "spool": {"blocks": sum, "bytes": sum, "records": sum, "dropped_records": sum},
}
"""By collector and key. Of keys that are not listed the first value counts, such as a path or an error."""


def merged_stats(spools: Sequence[SpoolContents], name: str) -> dict[str, Any]:
    """The statistics of one collector over all spools, without its name; empty if no spool has any.

    A value that a process does not know (None) does not count.
    """
    values: dict[str, list[Any]] = {}
    for spool in spools:
        for key, value in spool.stats.get(name, {}).items():
            if key != "name":
                values.setdefault(key, []).extend([] if value is None else [value])
    rules = MERGE_RULES.get(name, {})
    return {key: rules.get(key, _first)(found) if found else None for key, found in values.items()}
