"""Which device ``auto`` means."""

from __future__ import annotations

from qmeter_native.errors import MissingExtraError

__all__ = ["chosen_device"]


def chosen_device(name: str) -> str:
    """``name``, or for ``auto`` the device that torch can use: ``cuda`` if it sees a GPU, else ``cpu``.

    Raises:
        MissingExtraError: torch is not installed.
    """
    if name != "auto":
        return name
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(
            f"the embedded engine needs {error.name}", "pip install 'qmeter-native[engine]'"
        ) from error
    return "cuda" if torch.cuda.is_available() else "cpu"
