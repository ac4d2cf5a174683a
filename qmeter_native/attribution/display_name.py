"""A kernel's name shortened for a table: what it is, and what tells it from its like.

C++ names are long because of their template arguments. CUTLASS runs everything through one entry point, so who wrote
such a kernel and its tile (``M x N x K`` of a thread block, then blocks of a cluster where there are several) are taken
out of the arguments. Any other name loses return type, name spaces and arguments and keeps one telling word of its
template arguments.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

__all__ = ["display_name"]

_MAX_NAME: Final = 60
_PLUMBING: Final = re.compile(
    r"gpu_kernel_impl\w*|gpu_index_kernel|TensorIterator\w*|BFloat16|bfloat16(_t)?|\w*nv_bfloat16|native|internal"
    r"|anonymous|namespace|unsigned|short|lambda|operator|const|false|true|Kernel2?|OffsetCalculator\w*"
    r"|TrivialOffset\w*|LoadWith\w*|StoreWith\w*|float\d*|device_kernel|GemmUniversal|collective|epilogue|constant"
    r"|function_traits|[AB]?(Bin|Un)aryFunctor|binary_internal|ReduceOp|OpaqueType|templates|array|tuple|detail|at_cuda_detail|cublasLt"
    r"|Fp8KVCacheDataType|cutlass|enable_sm\w+|kernel"
)
"""Words inside template arguments that say nothing about what the kernel does."""

_WRAPPERS: Final = ("Kernel", "Kernel2", "device_kernel")
"""CUTLASS's entry points: what they run is their template argument."""

_SHAPE: Final = re.compile(r"cute::tuple<((?:cute::C<\d+> ?,? ?)+)>")
_BLOCK: Final = 16
"""Marlin counts its tile in blocks of 16."""
_MARLIN: Final = re.compile(r"\bMarlin<.*?, (\d+), (\d+), (\d+), (true|false), \d+, -?\d+, (?:true|false)>")
_CUTLASS: Final = re.compile(r"device_kernel<(?:\w+::)?(?:enable_sm\w+<)?cutlass::gemm::kernel::GemmUniversal<")
_FLASH_FLAGS: Final = re.compile(r"FlashAttnFwdSm90<.*?cutlass::arch::Sm90((?:, (?:true|false))+)")
_SPLIT_FLAG: Final = 10
"""Of the flags of FlashAttention 3's ``CollectiveMainloopFwdSm90``: sequences are split over blocks (split KV)."""


@lru_cache(maxsize=65536)
def display_name(name: str) -> str:
    """The name shortened for a table; kernels with different tiles keep different names."""
    if name.startswith(("Memcpy", "Memset")) or re.fullmatch(r"\w+::\w+", name):
        return name
    plain = re.sub(r"^(void|std::enable_if<.*?>::type)\s+", "", name.strip())
    plain = plain.replace("(anonymous namespace)::", "")
    return _cut(_known(plain) or _shortened(plain))


def _known(name: str) -> str | None:
    """Kernels whose entry point says nothing."""
    if marlin := _MARLIN.search(name):
        m, n, k, is_half = marlin.groups()
        rows = _BLOCK // 2 if is_half == "true" else _BLOCK * int(m)
        return f"Marlin {rows}x{_BLOCK * int(n)}x{_BLOCK * int(k)}"
    if "FlashAttnFwdSm90<" in name:
        flags = _FLASH_FLAGS.search(name)
        is_split = flags is not None and flags[1].split(", ")[1:][_SPLIT_FLAG : _SPLIT_FLAG + 1] == ["true"]
        return " ".join(("FA3 fwd split" if is_split else "FA3 fwd", *_sizes(name)))
    if "FlashAttnFwdCombine<" in name:
        return " ".join(("FA3 combine", *_sizes(name)))
    if varlen := re.match(r"flash::(prepare_varlen_num_blocks)_kernel(<\d+)?", name):
        return f"FA3 {varlen[1]}{varlen[2] + '>' if varlen[2] else ''}"
    if "machete::Machete" in name:
        return " ".join(("machete", *_sizes(name)))
    if _CUTLASS.search(name):
        return " ".join(("cutlass gemm", *_sizes(name)))
    return None


def _sizes(name: str) -> list[str]:
    """The tile and the cluster, as ``128x64x32`` and ``2x1``, told by the first shapes among the template arguments.

    Either may come first: a cluster is one block deep. Clusters of one block are not worth telling.
    """
    shapes = [re.findall(r"\d+", shape) for shape in _SHAPE.findall(name)]
    tile = next((shape for shape in shapes if shape[-1] != "1"), [])
    cluster = next((shape[:2] for shape in shapes[:2] if shape[-1] == "1" and set(shape) != {"1"}), [])
    return ["x".join(shape) for shape in (tile, cluster) if shape]


def _shortened(name: str) -> str:
    head, _, _ = name.partition("<")
    parts = head.partition("(")[0].strip().split("::")
    words = re.findall(r"[A-Za-z_]\w{4,}", _template_arguments(name[len(head) :]))
    telling = next((word for word in words if not _PLUMBING.fullmatch(word)), None)
    if parts[-1] in _WRAPPERS:
        return " ".join((telling or name, *_sizes(name)))
    base = "::".join(parts[-2:]) if parts[-1] == "kernel" else parts[-1]
    return f"{base}<{telling}>" if telling and parts[-1] != "kernel" else base or name


def _template_arguments(text: str) -> str:
    """From a first ``<`` to the ``>`` that closes it."""
    depth = 0
    for at, character in enumerate(text):
        is_arrow = character == ">" and text[at - 1] == "-"
        depth += (character == "<") - (character == ">" and not is_arrow)
        if depth == 0:
            return text[:at]
    return text


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_NAME else text[: _MAX_NAME - 1] + "…"
