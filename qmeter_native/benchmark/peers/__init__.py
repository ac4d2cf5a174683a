"""Other projects' kernels, one adapter a file: each lays out our logical weights as its kernel wants them.

An adapter has a function ``contenders(vllm_ops)`` and raises `MissingExtraError` where its library is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

from qmeter_native.benchmark.contender import Contender
from qmeter_native.errors import QmeterError, UsageError
from qmeter_native.model.kernel_benchmark import AbsentKernel

__all__ = ["PEERS", "find_peers"]

PEERS: Final = {
    "cublas": "cublas",
    "torch._int_mm": "torch_int_mm",
    "torch._scaled_mm": "torch_scaled_mm",
    "torch.tinygemm": "tinygemm",
    "vllm.marlin": "vllm.marlin",
    "vllm.machete": "vllm.machete",
    "vllm.exllama": "vllm.exllama",
    "vllm.awq": "vllm.awq",
    "vllm.cutlass": "vllm.cutlass",
    "gemlite": "gemlite",
    "bitsandbytes": "bitsandbytes",
    "autoawq.triton": "autoawq",
}
"""Adapters by the names of their kernels in a benchmark."""


def find_peers(
    names: Sequence[str] | None = None, vllm_ops: Path | None = None
) -> tuple[tuple[Contender, ...], tuple[AbsentKernel, ...]]:
    """Kernels of the peers that are here, and the others with the reason.

    Args:
        names: Of `PEERS`; None: all of them.
        vllm_ops: vLLM's library of operators, where vLLM itself is not installed.

    Raises:
        UsageError: A name is none of theirs.
    """
    unknown = [name for name in names or () if name not in PEERS]
    if unknown:
        raise UsageError(f"there is no peer {unknown[0]!r}", f"Choose of: {', '.join(PEERS)}.")
    here: list[Contender] = []
    absent: list[AbsentKernel] = []
    for name in PEERS if names is None else names:
        try:
            here += import_module(f"{__name__}.{PEERS[name]}").contenders(vllm_ops)
        except QmeterError as error:
            absent.append(AbsentKernel(name, error.what))
        except Exception as error:  # a library that does not load is absent, whatever it raises
            absent.append(AbsentKernel(name, f"{type(error).__name__}: {error}".splitlines()[0]))
    return tuple(here), tuple(absent)
