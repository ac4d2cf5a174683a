"""What a kernel is, told by its name."""

from __future__ import annotations

from functools import lru_cache

from qmeter_native.attribution.kernel_rules import FAMILY_RULES, SCHEME_RULES
from qmeter_native.model.op_family import OpFamily

__all__ = ["op_family", "scheme"]


@lru_cache(maxsize=65536)
def op_family(name: str) -> OpFamily:
    """What a kernel, copy or operator is for; `OpFamily.OTHER` if no rule knows its name."""
    return next((family for family, pattern in FAMILY_RULES if pattern.search(name)), OpFamily.OTHER)


@lru_cache(maxsize=65536)
def scheme(name: str) -> str | None:
    """Quantization scheme such as ``W4A16-INT``, or number format such as ``bf16``; None if the name tells neither."""
    return next((found for found, pattern in SCHEME_RULES if pattern.search(name)), None)
