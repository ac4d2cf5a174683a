"""What a kernel is, told by its name."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from qmeter_native.attribution.kernel_rules import FAMILY_RULES, SCHEME_RULES
from qmeter_native.model.op_family import OpFamily

__all__ = ["display_name", "op_family", "scheme"]

_MAX_NAME: Final = 60
_PLUMBING: Final = re.compile(
    r"gpu_kernel_impl\w*|TensorIterator\w*|BFloat16|bfloat16\w*|\w*nv_bfloat16|native|internal|anonymous|namespace|unsigned"
    r"|lambda|operator|const|false|true|Kernel2?|OffsetCalculator\w*|TrivialOffset\w*|LoadWith\w*|StoreWith\w*|float\d*|device_kernel"
    r"|GemmUniversal|collective|epilogue|constant|function_traits|BinaryFunctor|UnaryFunctor|AUnaryFunctor|BUnaryFunctor"
)
"""Words inside template arguments that say nothing about what the kernel does."""

_WRAPPERS: Final = ("Kernel", "Kernel2", "device_kernel")
"""CUTLASS's entry points: what they run is their template argument."""


@lru_cache(maxsize=65536)
def op_family(name: str) -> OpFamily:
    """What a kernel, copy or operator is for; `OpFamily.OTHER` if no rule knows its name."""
    return next((family for family, pattern in FAMILY_RULES if pattern.search(name)), OpFamily.OTHER)


@lru_cache(maxsize=65536)
def scheme(name: str) -> str | None:
    """Quantization scheme such as ``W4A16-INT``, or number format such as ``bf16``; None if the name tells neither."""
    return next((found for found, pattern in SCHEME_RULES if pattern.search(name)), None)


@lru_cache(maxsize=65536)
def display_name(name: str) -> str:
    """The name shortened for a table: no return type, arguments or name spaces, and one telling template argument."""
    if name.startswith(("Memcpy", "Memset")) or re.fullmatch(r"\w+::\w+", name):
        return name
    plain = re.sub(r"^(void|std::enable_if<.*?>::type)\s+", "", name.strip())
    plain = plain.replace("(anonymous namespace)::", "")
    head, _, inner = plain.partition("<")
    parts = head.partition("(")[0].strip().split("::")
    words = re.findall(r"[A-Za-z_]\w{4,}", inner)
    telling = next((word for word in words if not _PLUMBING.fullmatch(word)), None)
    if parts[-1] in _WRAPPERS:
        return _cut(telling or plain)
    base = "::".join(parts[-2:]) if parts[-1] == "kernel" else parts[-1]
    return _cut(f"{base}<{telling}>" if telling and parts[-1] != "kernel" else base or plain)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_NAME else text[: _MAX_NAME - 1] + "…"
