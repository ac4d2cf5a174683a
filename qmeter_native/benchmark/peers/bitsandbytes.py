"""bitsandbytes: NF4 and FP4 by ``matmul_4bit``, and the integer part of LLM.int8()."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch

from qmeter_native.benchmark.contender import Activation, Contender, Product, require
from qmeter_native.errors import MissingExtraError

__all__ = ["contenders"]

_BLOCK: Final = 64
_INT8_MAX: Final = 127.0


def contenders(vllm_ops: Path | None) -> tuple[Contender, ...]:
    """Two kernels.

    Raises:
        MissingExtraError: It is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes is not installed", "pip install bitsandbytes")
    four = ("W4A16-NF4 g64", "W4A16-FP4 g64")
    return (
        Contender("bitsandbytes", four, _prepare_4bit, (7, 5)),
        Contender("bitsandbytes.int8", ("W8A8-INT",), _prepare_int8, (7, 5), dtypes=("float16",)),
    )


def _prepare_4bit(weight: Any, dtype: Any) -> Product:
    from bitsandbytes import matmul_4bit
    from bitsandbytes.functional import QuantState

    n, k = weight.shape
    require(weight.group_size == _BLOCK, f"it takes blocks of {_BLOCK}")
    flat = weight.codes.reshape(-1)
    packed = ((flat[::2] << 4) | flat[1::2]).reshape(-1, 1)  # of two weights the first is in the high nibble
    kind = "nf4" if float(weight.table[0]) == -1.0 else "fp4"
    state = QuantState(
        absmax=weight.scales.reshape(-1).float().contiguous(),
        shape=torch.Size((n, k)),
        code=weight.table.clone(),
        blocksize=_BLOCK,
        quant_type=kind,
        dtype=dtype,
    )
    return lambda activation: matmul_4bit(activation.values, packed, quant_state=state)


def _prepare_int8(weight: Any, dtype: Any) -> Product:
    from bitsandbytes.functional import int8_linear_matmul, int8_mm_dequant

    values, columns = weight.values.clone(), weight.scales.reshape(-1) * _INT8_MAX

    def product(activation: Activation) -> Any:
        # its statistics are largest magnitudes; our scales are those over 127
        return int8_mm_dequant(int8_linear_matmul(activation.values, values), activation.row_peaks, columns)

    return product
