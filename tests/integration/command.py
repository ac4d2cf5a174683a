"""The command line as a user has it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["QUICK", "Done", "finish", "run", "start"]

QUICK = ("trace", "--model", "shape:tiny", "--device", "cpu", "--idle", "0", "--warmup", "0")
"""A run of the smallest model, to which a test adds what it is about."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def assert_clear(self, code: int, *words: str) -> None:
        """It ended with ``code``, and said all of these words without a traceback."""
        assert self.code == code, self.err
        assert "Traceback" not in self.err
        assert "internal error" not in self.err
        for word in words:
            assert word in self.err


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start ``qmeter-native`` in ``folder``; nothing is fetched from a hub."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "qmeter_native", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, *arguments: str) -> Done:
    """Run ``qmeter-native`` in ``folder`` to its end."""
    return finish(start(folder, *arguments))


def finish(process: subprocess.Popen[str]) -> Done:
    """Wait for the end of a command."""
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out, err)
