"""The registry of quantization methods: every row, and how one is found by its name."""

from __future__ import annotations

import difflib
from typing import Final

from qmeter_native.errors import UsageError
from qmeter_native.quantization.method import UNQUANTIZED, Method
from qmeter_native.quantization.methods_activations import ACTIVATIONS, CACHES
from qmeter_native.quantization.methods_weight_only import WEIGHT_ONLY

__all__ = ["ALIASES", "METHODS", "method_named", "method_names", "weight_method_names"]

METHODS: Final = {method.name: method for method in (UNQUANTIZED, *WEIGHT_ONLY, *ACTIVATIONS, *CACHES)}

ALIASES: Final = {
    "gptq-8bit": "gptq-w8a16",
    "int8-weight-only": "rtn-w8a16",
    "int8": "rtn-w8a8",
    "qoq-group": "qoq",
}
"""Former names that mean the same."""


def method_names() -> tuple[str, ...]:
    """All methods, in the order of the table, the baseline first."""
    return tuple(METHODS)


def weight_method_names() -> tuple[str, ...]:
    """Those that quantize weights."""
    return tuple(method.name for method in METHODS.values() if method.config)


def method_named(name: str) -> Method:
    """The method called ``name``; case does not count.

    Raises:
        UsageError: There is none; the hint has the nearest names.
    """
    wanted = name.lower()
    found = METHODS.get(ALIASES.get(wanted, wanted))
    if found is None:
        near = difflib.get_close_matches(wanted, [*METHODS, *ALIASES], n=3, cutoff=0.5)
        hint = f"Did you mean {', '.join(near)}? " if near else f"There are {', '.join(METHODS)}. "
        raise UsageError(f"no quantization method is called {name!r}", f"{hint}`qmeter-native methods` lists all.")
    return found
