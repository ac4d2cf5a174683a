"""Opening a capture for reading; one that was never finalized is finalized first."""

from __future__ import annotations

from pathlib import Path

from qmeter_native.capture.finalize import finalize, is_unfinished
from qmeter_native.model.capture import Capture
from qmeter_native.storage.reader import read_capture
from qmeter_native.storage.schema import MANIFEST_FILE

__all__ = ["open_capture"]


def open_capture(path: Path) -> Capture:
    """Read a capture, recovering it from its spools if its process was killed before it could finalize.

    Raises:
        CaptureError: It is missing, foreign, damaged or too new.
    """
    if not (path / MANIFEST_FILE).exists() and is_unfinished(path):
        return finalize(path)
    return read_capture(path)
