"""Notices when two traces measure one GPU: its energy counter cannot tell them apart."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from qmeter_native.model.manifest import DeviceInfo

__all__ = ["GpuLock", "lock_folder"]


def lock_folder() -> Path:
    """``$XDG_RUNTIME_DIR/qmeter-native``, else a folder of the user's own among the temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "qmeter-native"
    return Path(tempfile.gettempdir()) / f"qmeter-native-{os.getuid()}"


class GpuLock:
    """Holds a lock file for each GPU until it is closed; ``others`` says who holds one already, by device index.

    Traces of other users are not seen. Where no file can be made nobody is kept from tracing.
    """

    def __init__(self, devices: Sequence[DeviceInfo]) -> None:
        self._files: list[IO[str]] = []
        self.others: dict[int, str] = {}
        for device in devices:
            if device.kind == "cuda":
                self._take(device)

    def _take(self, device: DeviceInfo) -> None:
        path = lock_folder() / f"{device.uuid}.lock"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+")
        except OSError:  # a lock is a courtesy to other traces, and not worth failing for
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
