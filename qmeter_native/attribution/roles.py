"""What part a kernel can play in a layer, told by its name: the alphabet in which `step_layout` reads a step."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.classify import op_family
from qmeter_native.model.activity_kind import ActivityKind
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.tables import KernelClassTable

__all__ = ["Part", "parts_of_classes"]

_Array = NDArray[Any]


class Part(IntEnum):
    """What a kernel can be in the sequence of a step."""

    OTHER = 0
    GEMM = 1
    GEMM_REDUCTION = 2
    """Adds up the parts of a split-K product."""
    OPERAND = 3
    """Prepares what the next product or attention reads: quantization, dequantized or permuted weights, a memset."""
    ATTENTION = 4
    ATTENTION_HELPER = 5
    """Plans an attention kernel's work, or combines what several computed."""
    KV_WRITE = 6
    NORM = 7
    ELEMENTWISE = 8
    MEMORY = 9
    EMBEDDING = 10
    SAMPLING = 11
    COMMUNICATION = 12
    MOE = 13
    COUNTER_RESET = 14
    """Clears integers: right after attention, the counter of tiles of its scheduler, for its next launch."""


_OF_FAMILY: Final = {
    OpFamily.GEMM: Part.GEMM,
    OpFamily.ATTENTION: Part.ATTENTION,
    OpFamily.NORM: Part.NORM,
    OpFamily.ACTIVATION: Part.ELEMENTWISE,
    OpFamily.QUANTIZE: Part.OPERAND,
    OpFamily.DEQUANTIZE: Part.OPERAND,
    OpFamily.MOE: Part.MOE,
    OpFamily.KV_CACHE: Part.KV_WRITE,
    OpFamily.SAMPLING: Part.SAMPLING,
    OpFamily.COMMUNICATION: Part.COMMUNICATION,
    OpFamily.MEMORY: Part.MEMORY,
}

_REFINED: Final = tuple(
    (part, of, re.compile(pattern, re.IGNORECASE))
    for part, of, pattern in (
        (Part.GEMM_REDUCTION, Part.GEMM, r"split_?k_?reduc|reduce_1block"),
        (
            Part.ATTENTION_HELPER,
            Part.ATTENTION,
            r"FwdCombine|combine_kernel|merge_?(attn_)?state|reduce_segments|prepare_varlen|_v2_reduce|stage2"
            r"|mask_empty_context|MlaReduction",
        ),
        (Part.OPERAND, Part.MEMORY, r"permute_cols|^memset|^\[CUDA memset"),
        (Part.COUNTER_RESET, Part.MEMORY, r"FillFunctor<int>"),
        (Part.EMBEDDING, Part.MEMORY, r"embedding|index_?select|vectorized_gather"),
    )
)
"""Names that tell more than their family does."""


def parts_of_classes(classes: KernelClassTable) -> _Array:
    """The `Part` of each kernel class, int8."""
    part_of_name = {name: _part(name) for name in set(classes.name.tolist())}
    parts = np.array([part_of_name[name] for name in classes.name.tolist()], np.int8)
    parts[classes.kind == ActivityKind.MEMSET] = Part.OPERAND
    return parts


def _part(name: str) -> Part:
    part = _OF_FAMILY.get(op_family(name), Part.OTHER)
    return next((found for found, of, pattern in _REFINED if of is part and pattern.search(name)), part)
