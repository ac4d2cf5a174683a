"""The compiled extension and the packages that an engine needs. Nothing heavy is imported: versions are read."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from qmeter_native import __version__
from qmeter_native.capture.checkup.finding import Finding, State
from qmeter_native.capture.native import load_native
from qmeter_native.errors import NativeError

__all__ = ["extension", "package_findings", "program_finding"]

_TOPIC: Final = "Software"
_ENGINE: Final = ("torch", "transformers", "safetensors", "accelerate")
_OPTIONAL: Final = ("triton", "vllm")
_COMPILERS: Final = ("c++", "g++", "clang++")


def program_finding() -> Finding:
    """This program and the Python it runs on."""
    python = f"Python {platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    return Finding(_TOPIC, "qmeter-native", State.OK, f"{__version__}, {python}")


def extension() -> tuple[Any | None, Finding]:
    """The compiled extension, or None, and what was found about it."""
    try:
        native = load_native()
    except NativeError as error:
        compiler = next((path for name in _COMPILERS if (path := shutil.which(name))), None)
        build = f"{compiler} is here: `pip install .` builds it" if compiler else "Install g++, then `pip install .`"
        return None, Finding(_TOPIC, "extension", State.BROKEN, error.what, f"{build}. Reports work without it.")
    return native, Finding(_TOPIC, "extension", State.OK, f"loaded, {len(native.record_layouts())} kinds of record")


def package_findings(has_gpu: bool, names: Iterable[str] = (*_ENGINE, *_OPTIONAL)) -> list[Finding]:
    """Versions of what the embedded engine needs, and of what may be measured besides."""
    return [_package_finding(name, has_gpu) for name in names]


def _package_finding(name: str, has_gpu: bool) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        extra = "engine" if name in _ENGINE else "kernels" if name == "triton" else name
        advice = f"pip install 'qmeter-native[{extra}]'" if name in _ENGINE else None
        return Finding(_TOPIC, name, State.ABSENT, "not installed", advice)
    if name == "torch" and has_gpu and "+cpu" in found:
        return Finding(_TOPIC, name, State.BROKEN, f"{found} cannot use the GPU", "Install torch built for CUDA.")
    return Finding(_TOPIC, name, State.OK, found)
