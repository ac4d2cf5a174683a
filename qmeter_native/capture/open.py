"""Opening a capture for reading; one that was never finalized is finalized first."""

from __future__ import annotations

from pathlib import Path

from qmeter_native.capture.finalize import finalize, is_unfinished
from qmeter_native.errors import CaptureError
from qmeter_native.model.capture import Capture
from qmeter_native.storage.reader import read_capture
from qmeter_native.storage.schema import MANIFEST_FILE, SPOOL_FOLDER, SPOOL_SUFFIX
from qmeter_native.storage.spool import is_being_written

__all__ = ["open_capture"]


def open_capture(path: Path) -> Capture:
    """Read a capture, recovering it from its spools if its process was killed before it could finalize.

    Raises:
        CaptureError: It is missing, foreign, damaged, too new or still being recorded.
    """
    if not (path / MANIFEST_FILE).exists() and is_unfinished(path):
        if any(map(is_being_written, (path / SPOOL_FOLDER).glob(f"*{SPOOL_SUFFIX}"))):
            raise CaptureError(f"{path} is still being recorded", "Wait until its run has ended, or end it.")
        finalize(path)
    return read_capture(path)
