"""Every error that qmeter-native raises on purpose.

::

    QmeterError                     exit code 1
    ├── CaptureError                a capture cannot be read or written
    │   ├── CaptureNotFoundError    nothing is at that path
    │   ├── ForeignCaptureError     something is there, but no qmeter-native capture
    │   ├── DamagedCaptureError     truncated, or a checksum does not match
    │   └── NewerSchemaError        written by a newer qmeter-native
    ├── ProfileError                a device profile cannot be read or written
    ├── BenchmarkError              a kernel benchmark or a table of tiles cannot be read or written
    ├── TrialError                  trials of methods cannot be read or written
    ├── DeviceError                 a GPU, its driver or a counter is absent, lost or forbidden
    ├── NativeError                 the compiled extension is missing or failed
    ├── EngineError                 the serving engine failed or refused its configuration
    │   └── ModelNotFoundError      no model goes by that name
    ├── MissingExtraError           an optional dependency is not installed
    ├── UsageError                  the request itself makes no sense; exit code 2
    └── CheckFailedError            a comparison or check found a regression; exit code 3

A message says what happened, to which file or device, and what to do about it. The command line
prints it without a traceback and exits with ``exit_code``.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BenchmarkError",
    "CaptureError",
    "CaptureNotFoundError",
    "CheckFailedError",
    "DamagedCaptureError",
    "DeviceError",
    "EngineError",
    "ForeignCaptureError",
    "MissingExtraError",
    "ModelNotFoundError",
    "NativeError",
    "NewerSchemaError",
    "ProfileError",
    "QmeterError",
    "TrialError",
    "UsageError",
]


class QmeterError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: What happened, and to which file or device.
        hint: What the reader can do about it; printed on a line of its own.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __reduce__(self) -> tuple[type[QmeterError], tuple[str, str | None]]:
        return type(self), (self.what, self.hint)  # between processes, with its hint

    def __str__(self) -> str:
        return self.what if self.hint is None else f"{self.what}\n{self.hint}"


class CaptureError(QmeterError):
    """A capture cannot be read or written."""


class CaptureNotFoundError(CaptureError):
    """Nothing is at that path."""


class ForeignCaptureError(CaptureError):
    """Something is at that path, but it is no qmeter-native capture."""


class DamagedCaptureError(CaptureError):
    """A part of the capture is truncated or does not match its checksum."""


class NewerSchemaError(CaptureError):
    """The capture was written by a newer qmeter-native than this one."""


class ProfileError(QmeterError):
    """A device profile cannot be read or written."""


class BenchmarkError(QmeterError):
    """A kernel benchmark or a table of tiles cannot be read or written."""


class TrialError(QmeterError):
    """Trials of methods cannot be read or written."""


class DeviceError(QmeterError):
    """A GPU, its driver or one of its counters is absent, lost or forbidden."""


class NativeError(QmeterError):
    """The compiled extension is missing or failed."""


class EngineError(QmeterError):
    """The serving engine failed or refused its configuration."""


class ModelNotFoundError(EngineError):
    """No model goes by that name."""


class MissingExtraError(QmeterError):
    """An optional dependency is not installed."""


class UsageError(QmeterError):
    """The request itself makes no sense."""

    exit_code = 2


class CheckFailedError(QmeterError):
    """A comparison or check found a regression."""

    exit_code = 3
