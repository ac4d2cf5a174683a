"""vLLM's operators: found in an installed vLLM without importing it, or in a file; and its numbers of types.

The wheel of vLLM 0.26.0 has them in ``vllm/_C_stable_libtorch.abi3.so``, which loads by itself under torch 2.11 (seen
on an H200). Calls are those of vLLM's own ``_custom_ops.py``.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch

from qmeter_native.errors import MissingExtraError

__all__ = [
    "FLOAT4_E2M1",
    "FLOAT8_E4M3",
    "UINT4",
    "UINT4_BIAS_8",
    "UINT8_BIAS_128",
    "vllm_operators",
]

UINT4: Final = 1125899906843648
UINT4_BIAS_8: Final = 1125899907892224
UINT8_BIAS_128: Final = 1125899923621888
FLOAT8_E4M3: Final = 2814749767172868
FLOAT4_E2M1: Final = 562949953487106
"""``ScalarType.id`` of vLLM 0.26."""

_FILE: Final = "_C_stable_libtorch.abi3.so"


@cache
def vllm_operators(path: Path | None, needed: str) -> Any:
    """``torch.ops._C`` with vLLM's operators in it.

    Args:
        path: The library; None: that of an installed vLLM.
        needed: An operator that must be there.

    Raises:
        MissingExtraError: There is no library, it does not load, or it lacks that operator.
    """
    _load(path or _installed())
    if not hasattr(torch.ops._C, needed):
        raise MissingExtraError(f"vLLM's library has no operator {needed}", "Take that of vLLM 0.26.")
    return torch.ops._C


@cache
def _load(path: Path) -> None:
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise MissingExtraError(
            f"{path} does not load: {str(error).splitlines()[0]}", "It must be built for this torch and CUDA."
        ) from error


def _installed() -> Path:
    found = find_spec("vllm")
    folders = [] if found is None else list(found.submodule_search_locations or ())
    path = next((Path(folder) / _FILE for folder in folders if (Path(folder) / _FILE).is_file()), None)
    if path is None:
        raise MissingExtraError("vLLM is not installed", f"Install it, or give --vllm-ops the path of its {_FILE}.")
    return path
