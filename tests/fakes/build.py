"""Compiles the fakes of NVIDIA's libraries, once per content of their sources."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["build_broken", "build_fake"]

_FAKES: Final = Path(__file__).parent
_ROOT: Final = _FAKES.parents[1]


def build_fake(source: str, soname: str, *, defines: Sequence[str] = ()) -> Path:
    """Compile ``tests/fakes/<source>`` and its parts into a shared library; return its path, which ends in ``soname``.

    The parts of ``name.cpp`` are called ``name_*.cpp``.
    """
    sources = [_FAKES / source, *sorted(_FAKES.glob(f"{Path(source).stem}_*.cpp"))]
    command = [
        os.environ.get("CXX", "g++"),
        *("-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-shared", "-fPIC", "-pthread"),
        *(f"-D{name}" for name in defines),
        *(f"-I{_ROOT / 'csrc'}", f"-Wl,-soname,{soname}", *map(str, sources)),
    ]
    inputs = sorted([*_FAKES.glob("*.h"), *(_ROOT / "csrc" / "abi").glob("*.h"), *sources])
    digest = hashlib.sha256(" ".join(command).encode())
    for path in inputs:
        digest.update(path.read_bytes())
    library = _ROOT / "build" / "fakes" / digest.hexdigest()[:16] / soname
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_name(f"{soname}.{os.getpid()}")
        subprocess.run([*command, "-o", str(unfinished), "-ldl"], check=True)
        unfinished.replace(library)  # another test process may be building it too
    return library


def build_broken(*sonames: str) -> Path:
    """A folder of files that are no libraries: what a loader finds first hides what the machine has."""
    folder = _ROOT / "build" / "fakes" / "broken"
    folder.mkdir(parents=True, exist_ok=True)
    for soname in sonames:
        (folder / soname).touch()
    return folder
