"""AutoAWQ's Triton kernel. The project is deprecated: its package no longer imports beside a recent transformers, so
the one file that holds the kernel is loaded by itself.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final

from qmeter_native.benchmark.contender import Contender, Product
from qmeter_native.errors import MissingExtraError
from qmeter_native.kernels.packing import awq

__all__ = ["contenders"]

_SPLITS: Final = 8
"""As AutoAWQ's linear layer calls it."""
_FILE: Final = Path("modules", "triton", "gemm.py")


def contenders(vllm_ops: Path | None) -> tuple[Contender, ...]:
    """``awq_gemm_triton``, at any number of tokens: AutoAWQ itself dequantizes first from 1024 on.

    Raises:
        MissingExtraError: It is not installed.
    """
    _kernel()
    return (Contender("autoawq.triton", ("W4A16-INT g128", "W4A16-INT g128 zp"), _prepare, dtypes=("float16",)),)


@cache
def _kernel() -> Any:
    found = find_spec("awq")  # finds the package without importing it
    folders = [] if found is None else list(found.submodule_search_locations or ())
    path = next((Path(folder) / _FILE for folder in folders if (Path(folder) / _FILE).is_file()), None)
    if path is None:
        raise MissingExtraError("AutoAWQ is not installed", "pip install --no-deps --no-build-isolation autoawq==0.2.9")
    spec = spec_from_file_location("qmeter_autoawq_triton", path)
    if spec is None or spec.loader is None:
        raise MissingExtraError(f"{path} cannot be loaded")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.awq_gemm_triton


def _prepare(weight: Any, dtype: Any) -> Product:
    tensors = awq.pack(weight, awq.AwqConfig(group_size=weight.group_size))
    kernel = _kernel()
    return lambda activation: kernel(
        activation.values, tensors["qweight"], tensors["scales"], tensors["qzeros"], _SPLITS
    )
