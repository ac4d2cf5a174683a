"""Where pip puts CUPTI. Nothing is loaded here; the extension opens the library."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

__all__ = ["CUPTI_WHEELS", "cupti_search_dirs"]

CUPTI_WHEELS: Final = {"nvidia-cuda-cupti": "nvidia/cu13/lib", "nvidia-cuda-cupti-cu12": "nvidia/cuda_cupti/lib"}
"""NVIDIA's wheels, the newest CUDA first, and the folder inside site-packages that holds ``libcupti.so``."""


def cupti_search_dirs() -> list[str]:
    """Folders of the installed CUPTI wheels, as absolute paths, the newest CUDA first."""
    found = []
    for package, folder in CUPTI_WHEELS.items():
        try:
            path = Path(str(distribution(package).locate_file(folder)))
        except PackageNotFoundError:
            continue
        if path.is_dir():
            found.append(str(path.absolute()))
    return found
