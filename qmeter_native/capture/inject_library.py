"""The library that the CUDA driver loads into every process of a traced command."""

from __future__ import annotations

from pathlib import Path

from qmeter_native.errors import NativeError

__all__ = ["inject_library"]


def inject_library() -> Path:
    """Absolute path of ``libqmeter_inject.so``, for ``CUDA_INJECTION64_PATH``.

    Raises:
        NativeError: It was not built.
    """
    import qmeter_native

    path = Path(qmeter_native.__file__).resolve().parent / "libqmeter_inject.so"
    if not path.is_file():
        raise NativeError(
            f"the injected library is not at {path}",
            "Build it with `pip install .` (a C++17 compiler is needed). Without it only energy can be traced.",
        )
    return path
