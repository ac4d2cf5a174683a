"""The manifest of a run, from its spools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qmeter_native import __version__
from qmeter_native.capture.engine_merge import merge_engine
from qmeter_native.capture.kernel_merge import KernelMerge
from qmeter_native.capture.stats_merge import merged_stats
from qmeter_native.capture.traced_run import TracedRun
from qmeter_native.model.manifest import LossReport, Manifest, Validity
from qmeter_native.storage.schema import SCHEMA_VERSION

__all__ = ["last_stamp", "run_manifest"]

_INJECTION = ("path", "version", "how", "kinds", "control")
"""What the injected library says about itself and a session says in its own ``tracer``."""


def run_manifest(
    run: TracedRun, tables: dict[str, Any], kernels: Sequence[KernelMerge], validity: tuple[Validity, ...]
) -> Manifest:
    """Build the manifest.

    Args:
        run: The run.
        tables: Its tables by name; ``kernels`` is not looked at.
        kernels: What was seen of each process's kernels.
        validity: What limits the capture.
    """
    state = run.state
    end_ns = state.end_ns or last_stamp(tables, kernels, state.start_ns)
    tracer, sampler = merged_stats(run.spools, "kernel_tracer"), merged_stats(run.spools, "energy_sampler")
    plugins = [spool.stats["engine"] for spool in run.spools if "engine" in spool.stats]
    return Manifest(
        schema_version=SCHEMA_VERSION,
        qmeter_version=__version__,
        start_ns=state.start_ns,
        end_ns=end_ns,
        measure_start_ns=state.measure_start_ns or state.start_ns,
        measure_end_ns=state.measure_end_ns or end_ns,
        devices=tuple(state.devices),
        processes=run.processes.infos,
        engine=merge_engine(state.engine, plugins),
        workload=state.workload,
        loss=_loss(run, kernels, tracer, sampler),
        validity=validity,
        overhead=_overhead(tracer, sampler, state.counters),
        tracer={**_injection(run), **state.tracer, **tracer},
        sampler=sampler,
        counters=state.counters,
        profiles=state.profiles,
        software=state.software,
    )


def last_stamp(tables: dict[str, Any], kernels: Sequence[KernelMerge], start_ns: int) -> int:
    """When a killed process was last heard of."""
    columns = (("power", "time_ns"), ("energy", "high_ns"), ("steps", "end_ns"))
    stamps = [int(getattr(tables[name], column).max()) for name, column in columns if len(tables[name])]
    return max([start_ns, *stamps, *(merge.last_end_ns for merge in kernels)])


def _loss(
    run: TracedRun, kernels: Sequence[KernelMerge], tracer: dict[str, Any], sampler: dict[str, Any]
) -> LossReport:
    return LossReport(
        dropped_records=tracer.get("dropped_records") or 0,
        zero_timestamps=tracer.get("zero_timestamps") or 0,
        reversed_timestamps=tracer.get("reversed_timestamps") or 0,
        implausible_timestamps=sum(merge.num_implausible for merge in kernels),
        unknown_records=(tracer.get("unknown_records") or 0) + sum(spool.records_unknown for spool in run.spools),
        spool_blocks_lost=sum(spool.blocks_lost for spool in run.spools),
        spool_records_dropped=merged_stats(run.spools, "spool").get("dropped_records") or 0,
        missed_samples=sampler.get("missed_samples") or 0,
    )


def _injection(run: TracedRun) -> dict[str, Any]:
    injected = merged_stats(run.spools, "inject")
    return {key: injected[key] for key in _INJECTION if injected.get(key) is not None}


def _overhead(tracer: dict[str, Any], sampler: dict[str, Any], counters: dict[str, Any]) -> dict[str, Any]:
    """CPU time of the meter's own threads, by collector, in nanoseconds."""
    decoding = [device[key] for device in counters.values() for key in ("decode_ns", "evaluate_ns") if device.get(key)]
    figures = {
        "sampler_cpu_ns": sampler.get("cpu_ns"),
        "sampler_blocked_ns": sampler.get("blocked_ns"),
        "decode_ns": tracer.get("decode_ns"),
        "callback_ns": tracer.get("callback_ns"),
        "counter_decode_ns": sum(decoding) if decoding else None,
    }
    return {key: value for key, value in figures.items() if value is not None}
