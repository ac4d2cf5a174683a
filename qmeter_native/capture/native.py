"""The compiled extension, loaded when first needed; its faults become errors of our own tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

from qmeter_native.errors import CaptureError, DeviceError, NativeError, QmeterError

__all__ = ["load_native", "native_faults"]

_ERRORS: Final[dict[str, type[QmeterError]]] = {
    "io": CaptureError,
    "forbidden": DeviceError,
    "taken": DeviceError,
    "device_lost": DeviceError,
}
"""Error for each code of a NativeFault; any other code is a NativeError."""

_HINTS: Final[dict[str, str]] = {
    "io": "Check the free space and the permissions of that directory.",
    "forbidden": "`qmeter-native doctor` says which permission is missing.",
    "taken": "Stop the other profiler, or trace with `--no-kernels` for energy alone.",
    "device_lost": "Check `nvidia-smi` and the kernel log; the GPU may need a reset by its owner.",
    "not_found": "`qmeter-native doctor` lists where it was looked for.",
}


def load_native() -> ModuleType:
    """Import ``qmeter_native._native``.

    Raises:
        NativeError: It was not built, or does not load here.
    """
    try:
        from qmeter_native import _native
    except ImportError as error:
        raise NativeError(
            f"the compiled extension does not load: {error}",
            "Build it with `pip install .` (a C++17 compiler is needed). Reports work without it; tracing does not.",
        ) from error
    return _native


@contextmanager
def native_faults(native: Any = None, hints: Mapping[str, str] | None = None) -> Iterator[None]:
    """Turn a ``NativeFault`` raised inside into CaptureError, DeviceError or NativeError, with a hint.

    Args:
        native: The extension, if the caller has it already.
        hints: By the fault's code, instead of what is said everywhere.
    """
    native = native or load_native()
    try:
        yield
    except native.NativeFault as fault:
        message, code = (*fault.args, "", "")[:2]
        raise _ERRORS.get(code, NativeError)(str(message), {**_HINTS, **(hints or {})}.get(code)) from fault
