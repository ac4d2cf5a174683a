"""What a traced run left behind: its spools, read all but for their kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from qmeter_native.capture.process_merge import MergedProcesses, merge_processes
from qmeter_native.capture.session_state import STATE_NAME, SessionState
from qmeter_native.errors import CaptureNotFoundError, DamagedCaptureError, ForeignCaptureError
from qmeter_native.storage.kernel_blocks import KernelBlocks
from qmeter_native.storage.schema import SPOOL_FOLDER, SPOOL_SUFFIX
from qmeter_native.storage.spool import SpoolContents, is_being_written, scan_spool

__all__ = ["Stats", "TracedRun", "spool_files"]

Stats: TypeAlias = Mapping[str, dict[str, Any]]
"""The last statistics of each collector of one process, by the collector's name."""


def spool_files(path: Path) -> list[Path]:
    """The spools of the capture at ``path``, by name."""
    return sorted((path / SPOOL_FOLDER).glob(f"*{SPOOL_SUFFIX}"))


@dataclass(frozen=True, slots=True)
class TracedRun:
    """A run, as far as its processes wrote it down.

    Attributes:
        state: What the session knew about itself.
        spools: Contents of all spools; the kernels of each are in ``kernels`` at the same position.
        kernels: Where the kernels of each spool are.
        processes: Whose the spools are.
        finished: Files whose processes are over.
        outlived: Processes that still write, by index: what they had written by now is here.
    """

    state: SessionState
    spools: tuple[SpoolContents, ...]
    kernels: tuple[KernelBlocks, ...]
    processes: MergedProcesses
    finished: tuple[Path, ...]
    outlived: frozenset[int]

    @classmethod
    def read(cls, path: Path, unwritten: Mapping[str, Stats]) -> TracedRun:
        """Read the spools of the capture at ``path``.

        Args:
            path: The capture.
            unwritten: By name, the spools that the caller has closed, with statistics that they could not hold.

        Raises:
            CaptureNotFoundError: There is no spool under ``path``.
            DamagedCaptureError: No spool tells what was being traced.
        """
        files = spool_files(path)
        if not files:
            raise CaptureNotFoundError(f"{path} has no spool to finalize", "Check the path.")
        # Asked before they are read, because they may end meanwhile. A child of the caller may hold the caller's lock.
        living = [file for file in files if file.name not in unwritten and is_being_written(file)]
        spools, kernels = [], []
        for file in files:
            try:
                contents, blocks = scan_spool(file)
            except ForeignCaptureError:  # its process died before the first block
                continue
            spools.append(_completed(contents, unwritten.get(file.name, {}), file in living))
            kernels.append(blocks)
        processes = merge_processes(spools)
        return cls(
            state=_state(path, spools),
            spools=tuple(spools),
            kernels=tuple(kernels),
            processes=processes,
            finished=tuple(file for file in files if file not in living),
            outlived=frozenset(
                process for process, spool in zip(processes.of_spool, spools, strict=True) if spool.path in living
            ),
        )

    def by_process(self) -> Iterator[tuple[int, list[SpoolContents]]]:
        """Each process's index with its spools."""
        for info in self.processes.infos:
            numbered = zip(self.processes.of_spool, self.spools, strict=True)
            yield info.index, [spool for process, spool in numbered if process == info.index]


def _completed(spool: SpoolContents, unwritten: Stats, is_living: bool) -> SpoolContents:
    """The end of a living process's spool is a block that is being written, not a lost one."""
    blocks_lost = spool.blocks_lost - (is_living and spool.is_torn)
    return replace(spool, stats={**spool.stats, **unwritten}, blocks_lost=blocks_lost)


def _state(path: Path, spools: list[SpoolContents]) -> SessionState:
    states = [SessionState.from_dict(spool.stats[STATE_NAME]) for spool in spools if STATE_NAME in spool.stats]
    if not states:
        raise DamagedCaptureError(
            f"{path}: no spool tells what was traced; its process died before it wrote that",
            "Nothing can be recovered; trace again.",
        )
    return states[0]
