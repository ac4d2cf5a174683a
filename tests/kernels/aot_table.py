"""Compiles the variants of kernel modules without a GPU and prints what they take, as JSON: a process of its own,
since Triton's interpreter, which other tests use, cannot be left once triton is imported.

    python tests/kernels/aot_table.py MODULE CAPABILITY      (CAPABILITY such as 9.0)

A module lists its variants in ``aot_variants()``.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module

os.environ.pop("TRITON_INTERPRET", None)

from qmeter_native.kernels.aot import compile_variant


def main(module: str, capability_text: str) -> None:
    major, minor = map(int, capability_text.split("."))
    rows = {}
    for variant in import_module(module).aot_variants():
        if variant.minimum <= (major, minor):
            compiled = compile_variant(variant, (major, minor))
            rows[variant.name] = {
                "registers": compiled.registers,
                "spill_bytes": compiled.spill_bytes,
                "shared_bytes": compiled.shared_bytes,
                "num_warps": variant.num_warps,
                "wgmma": compiled.stages["ptx"].count("wgmma.mma_async"),
                "mma": compiled.stages["ptx"].count("mma.sync"),
            }
    print(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
