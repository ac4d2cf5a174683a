"""Compiles a module's products for Hopper without a GPU and prints what is in their loops over inputs, as JSON: a
process of its own, for the reason of ``tests/kernels/aot_table.py``."""

from __future__ import annotations

import json
import os
import re
import sys
from importlib import import_module

os.environ.pop("TRITON_INTERPRET", None)

from qmeter_native.kernels.aot import compile_variant


def loop_of(ptx: str) -> str:
    """The instructions from the label to which the last branch after a ``wgmma`` returns."""
    for label in re.findall(r"^(\$L__BB0_\d+):", ptx, re.MULTILINE):
        body = re.search(
            rf"^{re.escape(label)}:(.*?)bra(?:\.uni)?\s+{re.escape(label)};", ptx, re.MULTILINE | re.DOTALL
        )
        if body and "wgmma.mma_async" in body[1]:
            return body[1]
    return ""


def main(module: str) -> None:
    rows = {}
    for variant in import_module(module).aot_variants():
        if "BLOCK_M" not in variant.constexprs:
            continue
        stages = compile_variant(variant, (9, 0)).stages
        loop = loop_of(stages["ptx"])
        ttgir = re.search(r"scf\.for.*?scf\.yield", stages["ttgir"], re.DOTALL)
        rows[variant.name] = {
            "wgmma": loop.count("wgmma.mma_async"),
            "through_shared": sum(loop.count(name) for name in ("st.shared", "stmatrix", "shfl.sync")),
            "copies_of_16_bytes": loop.count("cp.async.cg"),
            "waits_for_global": len(re.findall(r"= tt\.load", ttgir[0] if ttgir else "")),
            "convert_layout": (ttgir[0] if ttgir else "").count("convert_layout"),
        }
    print(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
