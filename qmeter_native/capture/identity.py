"""Who this process is: the key under which its records are merged with those of other processes."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qmeter_native.versions import installed_versions

__all__ = ["Identity", "printable", "software_versions"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MAX_COMMAND = 4096
"""As in the injected library; a command line may have megabytes, and is written with each process."""
_PACKAGES = ("numpy", "polars", "torch", "transformers", "triton", "vllm", "nvidia-cuda-cupti")


@dataclass(frozen=True, slots=True)
class Identity:
    """Host, boot and process. ``rank`` is None outside a parallel group (``RANK`` is not set)."""

    host: str
    boot_id: str
    pid: int
    rank: int | None
    command: str

    @classmethod
    def of_this_process(cls) -> Identity:
        """Read the running process's identity; an unreadable boot id is the empty string."""
        rank = os.environ.get("RANK", "")
        try:
            boot_id = _BOOT_ID.read_text().strip()
        except OSError:
            boot_id = ""
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        rank_number = int(rank) if rank.isdigit() else None
        return cls(platform.node(), boot_id, os.getpid(), rank_number, printable(command)[:_MAX_COMMAND])

    @property
    def stem(self) -> str:
        """Start of the names of this process's files: ``<host>-<pid>``."""
        return f"{self.host or 'localhost'}-{self.pid}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def printable(argument: str) -> str:
    """A program's argument as valid Unicode: its bytes need not be UTF-8, and those that are not become U+FFFD."""
    return os.fsencode(argument).decode("utf-8", "replace")


def software_versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape a measurement, as installed; nothing is imported."""
    from qmeter_native import __version__

    ours = {"qmeter-native": __version__, "python": platform.python_version(), "kernel": platform.release()}
    return {**ours, **installed_versions(_PACKAGES)}
