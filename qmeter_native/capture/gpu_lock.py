"""Notices when two traces measure one GPU: its energy counter cannot tell them apart."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from qmeter_native.model.manifest import DeviceInfo

__all__ = ["GpuLock"]


class GpuLock:
    """Holds a lock file for each GPU until it is closed; ``others`` says who holds one already, by device index."""

    def __init__(self, devices: Sequence[DeviceInfo]) -> None:
        self._files: list[IO[str]] = []
        self.others: dict[int, str] = {}
        for device in devices:
            if device.kind == "cuda":
                self._take(device)

    def _take(self, device: DeviceInfo) -> None:
        path = Path(tempfile.gettempdir()) / f"qmeter-{device.uuid}.lock"
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
        except OSError:  # another user's file: it cannot be told whether that trace still runs
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.others[device.index] = file.read().strip() or "unknown"
            file.close()
            return
        file.truncate(0)
        file.write(f"pid {os.getpid()}")
        file.flush()
        self._files.append(file)

    def close(self) -> None:
        """Let go. The files stay: removing a locked file would let two traces lock two files of one name."""
        for file in self._files:
            file.close()
        self._files.clear()
