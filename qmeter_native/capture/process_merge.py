"""Spools → processes: a process may have written several, and a capture counts it once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qmeter_native.capture.session_state import STATE_NAME
from qmeter_native.model.manifest import ProcessInfo
from qmeter_native.storage.spool import SpoolContents

__all__ = ["MergedProcesses", "merge_processes"]


@dataclass(frozen=True, slots=True)
class MergedProcesses:
    """The processes of a capture by index, and for each spool the index of its process."""

    infos: tuple[ProcessInfo, ...]
    of_spool: tuple[int, ...]


def merge_processes(spools: Sequence[SpoolContents]) -> MergedProcesses:
    """Make one process of all spools with the same host, boot and pid; the one that ran the session is the first.

    A spool whose identity is lost is a process of its own.
    """
    in_order = sorted(spools, key=lambda spool: STATE_NAME not in spool.stats)
    index: dict[tuple[Any, ...], int] = {}
    for spool in in_order:
        index.setdefault(_key(spool), len(index))
    infos = [_info(number, [spool for spool in spools if _key(spool) == key]) for key, number in index.items()]
    return MergedProcesses(tuple(infos), tuple(index[_key(spool)] for spool in spools))


def _key(spool: SpoolContents) -> tuple[Any, ...]:
    identity = spool.identity
    return (identity.get("host"), identity.get("boot_id"), identity.get("pid")) if identity else (spool.path.name,)


def _info(index: int, spools: Sequence[SpoolContents]) -> ProcessInfo:
    identities = [spool.identity for spool in spools]
    engines_first = sorted(identities, key=lambda identity: identity.get("role") != "engine")
    injected = [spool.stats["inject"] for spool in spools if "inject" in spool.stats]
    offsets = [stats for stats in injected if stats.get("clock_offset_count")]
    offset = offsets[-1] if offsets else None
    return ProcessInfo(
        index=index,
        host=str(identities[0].get("host", "")),
        boot_id=str(identities[0].get("boot_id", "")),
        pid=int(identities[0].get("pid", 0)),
        rank=next((each["rank"] for each in engines_first if each.get("rank") is not None), None),
        command=next((str(each["command"]) for each in identities if each.get("command")), ""),
        gpu_uuids=next((tuple(stats["gpu_uuids"]) for stats in reversed(injected) if stats.get("gpu_uuids")), ()),
        clock_offset_ns=None if offset is None else int(offset["clock_offset_median_ns"]),
        clock_offset_range_ns=None
        if offset is None
        else (int(offset["clock_offset_min_ns"]), int(offset["clock_offset_max_ns"])),
    )
