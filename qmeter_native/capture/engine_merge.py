"""The engine as it was asked for, by the session, and as it ran, by the plugin in its processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from qmeter_native.model.manifest import EngineInfo

__all__ = ["merge_engine"]


def merge_engine(requested: EngineInfo | None, plugins: Sequence[dict[str, Any]]) -> EngineInfo | None:
    """Unite what is effective; where both speak, the plugin is right: it saw the engine run, by name and version too.

    Args:
        requested: The session's, None if it only ran a command.
        plugins: Statistics ``engine`` of each process that had a plugin.
    """
    plugins = [stats for stats in plugins if stats.get("engine")]
    seen = [EngineInfo(**stats["engine"]) for stats in plugins]
    if not seen:
        return requested
    engine = seen[0] if requested is None else requested
    effective = {**engine.effective}
    for info, stats in zip(reversed(seen), reversed(plugins), strict=True):
        sized = {"tensor_parallel": stats["tensor_parallel"]} if stats.get("tensor_parallel") else {}
        effective |= {**sized, **info.effective}
    return replace(
        engine,
        name=seen[0].name,
        version=seen[0].version or engine.version,
        effective=effective,
        weights_source=next((info.weights_source for info in (engine, *seen) if info.weights_source is not None), None),
    )
