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


def test_only_capture_loads_the_extension() -> None:
    importers = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if imports_the_extension(path)}
    assert importers == {Path("capture/native.py")}


def test_importing_every_module_of_the_package_is_free() -> None:
    program = (
        "import sys, pkgutil, importlib, qmeter_native\n"
        "skipped = {'qmeter_native.' + name for name in ('_native', '__main__', 'libqmeter_inject',\n"
        "    'engines.vllm.worker', 'engines.vllm.scheduler',  # loaded by vLLM alone\n"
        "    'calibration.triton_kernels',  # Triton decorates kernels where they are defined\n"
        "    'quantization.quant_linear', 'quantization.weight_rounding')}  # torch modules and their formats\n"
        "of_torch = ('qmeter_native.kernels.', 'qmeter_native.quantization.checkpoint_formats.')\n"
        "for found in pkgutil.walk_packages(qmeter_native.__path__, 'qmeter_native.'):\n"
        "    if found.name in skipped or found.name.startswith(of_torch) or found.name.endswith('_linear'): continue\n"
        "    importlib.import_module(found.name)\n"
        "heavy = {'torch', 'transformers', 'triton', 'cupy', 'vllm', 'pynvml', 'qmeter_native._native'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
