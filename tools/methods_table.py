"""Writes the tables of ``docs/methods.md`` from the registry: ``python tools/methods_table.py``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmeter_native.quantization.method import ARCHITECTURES, Method  # noqa: E402
from qmeter_native.quantization.method_listing import method_line  # noqa: E402
from qmeter_native.quantization.methods import METHODS  # noqa: E402

__all__ = ["PAGE", "with_tables"]

PAGE: Final = ROOT / "docs" / "methods.md"


def registry_table() -> list[str]:
    """Every method: scheme, algorithm, checkpoint, memory."""
    rows = ["| `--quantization` | scheme | codes by | checkpoint | bits a weight | bits of cache | what it is |"]
    rows.append("|---|---|---|---|---|---|---|")
    for method in METHODS.values():
        line = method_line(method, None)
        star = "*" if line.needs_calibration else ""
        rows.append(
            f"| `{line.name}` | {line.scheme} | {line.algorithm}{star} | {line.checkpoint}"
            f" | {line.bits_per_weight:.3f} | {line.kv_bits:.4g} | {line.summary} |"
        )
    return rows


def serving_table() -> list[str]:
    """Every method: who serves it where."""
    head = ["`--quantization`", *ARCHITECTURES, "vLLM's flags and needs", "embedded engine", "native from"]
    rows = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for method in METHODS.values():
        line = method_line(method, None)
        flags = f"`{' '.join(line.vllm_flags)}`" if line.vllm_flags else ""
        cells = [
            f"`{line.name}`",
            *(_kernels(method, architecture) for architecture in ARCHITECTURES),
            ", ".join(filter(None, (flags, line.vllm_note))),
            f"`{line.embedded_kernel}`" if line.embedded_kernel else "torch",
            line.minimum,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _kernels(method: Method, architecture: str) -> str:
    if method.vllm is None or architecture not in method.vllm.kernels:
        return "–"
    parts = [method.vllm.kernels[architecture], method.vllm.attention.get(architecture, ())]
    return "; ".join(" or ".join(names) for names in parts if names)


TABLES: Final[Mapping[str, Callable[[], list[str]]]] = {"registry": registry_table, "serving": serving_table}


def with_tables(page: str) -> str:
    """The page with its tables made anew, between ``<!-- NAME -->`` and ``<!-- end of NAME -->``."""
    for name, table in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, found, after = page.partition(start)
        _, ended, rest = after.partition(end)
        if not found or not ended:
            raise SystemExit(f"{PAGE.name} has no place for the table {name}")
        page = before + start + "\n".join(table()) + end + rest
    return page


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
