"""What import-linter cannot see: the extension has no source in Python."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import qmeter_native

PACKAGE = Path(qmeter_native.__file__).parent


def imports_the_extension(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if any("_native" in name.split(".") for name in [*names, module]):
            return True
    return False


COMPUTES_WITH_TENSORS = (
    "benchmark.bench",
    "benchmark.correctness",
    "benchmark.data",
    "benchmark.run",
    "benchmark.tuning",
    "quality.layer_errors",
    "quality.rounded_cache",
    "quality.rounded_model",
    "quantization.algorithms.activation_order",
    "quantization.algorithms.compressed_output",
    "quantization.algorithms.llm_compressor",
    "quantization.quant_linear",
)
"""Modules about torch, beside those with kernels, peers, formats and linear layers; commands load them late."""


def test_only_capture_loads_the_extension() -> None:
    importers = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if imports_the_extension(path)}
    assert importers == {Path("capture/native.py")}


def test_importing_every_module_of_the_package_is_free() -> None:
    skipped = {"__main__", "engines.vllm.worker", "engines.vllm.scheduler"}  # the latter two are loaded by vLLM alone
    skipped |= {"calibration.triton_kernels", *COMPUTES_WITH_TENSORS}  # Triton decorates kernels where they are defined
    of_torch = ("kernels", "benchmark.peers", "quantization.checkpoint_formats")
    files = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    names = sorted(".".join(file.parts).removesuffix(".__init__") for file in files)
    free = [n for n in names if n not in skipped and not n.startswith(of_torch) and not n.endswith("_linear")]
    assert "quantization.methods" in free
    program = (
        "import sys, importlib\n"
        f"for name in {free!r}: importlib.import_module('qmeter_native.' + name)\n"
        "heavy = {'torch', 'transformers', 'triton', 'cupy', 'vllm', 'pynvml', 'qmeter_native._native'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
