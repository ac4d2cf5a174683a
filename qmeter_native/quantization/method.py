"""A quantization method: formats of weights, activations and cache, what chooses the codes, and who serves them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from qmeter_native.work.scheme import WeightLayout, read_scheme

__all__ = ["ARCHITECTURES", "CALIBRATED", "KV_FORMATS", "UNQUANTIZED", "KvFormat", "Method", "VllmServing"]

ARCHITECTURES: Final = ("sm_80", "sm_89", "sm_90", "sm_100")
"""Ampere, Ada, Hopper, Blackwell: for which it is stated whose kernels vLLM takes."""

CALIBRATED: Final = frozenset({"gptq", "awq", "smoothquant"})
"""Algorithms that watch the model read text."""


@dataclass(frozen=True, slots=True)
class KvFormat:
    """How a cache of keys and values stores one head's vector; see `qmeter_native.kernels.packing.kv_cache`.

    Attributes:
        bits: Of an element.
        scale_bits: For each token and head, of the key and of the value each; 0: one scale for all tokens.
        vllm_name: vLLM's ``--kv-cache-dtype``.
    """

    bits: int
    scale_bits: int
    vllm_name: str


KV_FORMATS: Final = {
    "fp8": KvFormat(8, 0, "fp8"),
    "int8": KvFormat(8, 32, "int8_per_token_head"),
    "int4": KvFormat(4, 32, "int4_per_token_head"),
}
"""Caches by the names that methods have for them. Scales: vllm/v1/kv_cache_interface.py."""


@dataclass(frozen=True, slots=True)
class VllmServing:
    """How vLLM 0.26 serves a method's checkpoints.

    Attributes:
        kernels: Who wrote the matrix products, by architecture; names are those of
            `qmeter_native.attribution.implementation_rules`. Of several, each may run: sizes decide. vLLM refuses the
            method on an architecture of `ARCHITECTURES` that is not here.
        attention: Likewise who wrote attention, where the cache's format decides; empty: it does not.
        flags: Of ``vllm serve``, beside the checkpoint.
        dtype: Activations that it needs; None: float16 or bfloat16.
        needs: A package that vLLM does not bring.
    """

    kernels: Mapping[str, tuple[str, ...]]
    attention: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    dtype: str | None = None
    needs: str | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """A row of `qmeter_native.quantization.methods`.

    Attributes:
        name: As ``--quantization`` spells it.
        scheme: Its label, ``W{w}A{a}[KV{kv}]-{INT|FP}`` and what else tells formats apart.
        config: ``quantization_config`` of a checkpoint with such weights: it decides how weights are rounded, what
            inputs are, and which kernel multiplies them. Empty: weights stay as they are.
        algorithm: What chooses the codes where a checkpoint is written: a name of
            `qmeter_native.quantization.algorithms.algorithm.ALGORITHMS`; on the fly all round without calibration data.
        kv: The cache of keys and values, a name of `KV_FORMATS`; None: 16 bits.
        minimum: Oldest compute capability whose tensor cores multiply in the method's own formats.
        elsewhere: What older GPUs do with it.
        vllm: How vLLM serves it; None: it does not.
        why_not_vllm: The reason, then.
        summary: One sentence.
    """

    name: str
    scheme: str
    config: Mapping[str, Any]
    algorithm: str = "rtn"
    kv: Literal["fp8", "int8", "int4"] | None = None
    minimum: tuple[int, int] = (8, 0)
    elsewhere: str = ""
    vllm: VllmServing | None = None
    why_not_vllm: str = ""
    summary: str = ""

    @property
    def format(self) -> str | None:
        """Label of its weights and activations, as `qmeter_native.kernels.catalog` has it; None: not quantized."""
        return re.sub(r"KV\d+", "", self.scheme) if self.config else None

    @property
    def layout(self) -> WeightLayout:
        """How its weights lie in memory, as the work model counts them."""
        scheme, _ = read_scheme(None, self.config, "float16")
        assert scheme is not None, self.name
        return scheme.weight

    @property
    def needs_calibration(self) -> bool:
        """Its algorithm watches the model read text."""
        return self.algorithm in CALIBRATED

    @property
    def checkpoint(self) -> str:
        """What its checkpoints call their format: ``quant_method`` and, of compressed-tensors, ``format``."""
        words = (self.config.get("quant_method", "unquantized"), self.config.get("format", ""))
        return " ".join(filter(None, words))

    def bits_per_weight(self, n: int = 4096, k: int = 4096) -> float:
        """Of a matrix of ``n`` outputs and ``k`` inputs, scales and zero points included."""
        return 8 * self.layout.num_bytes(n, k) / (n * k)

    def kv_bytes(self, num_kv_heads: int, head_dim: int, compute_bits: int = 16) -> int:
        """Bytes of one token's key and value in one layer: ``2 · heads · (head_dim · bits + scale_bits) / 8``.

        Args:
            num_kv_heads: Heads of keys and values.
            head_dim: Elements of a head.
            compute_bits: Of an element where the cache is not quantized.
        """
        form = KvFormat(compute_bits, 0, "auto") if self.kv is None else KV_FORMATS[self.kv]
        return 2 * num_kv_heads * (head_dim * form.bits + form.scale_bits) // 8


_CUBLAS: Final = dict.fromkeys(ARCHITECTURES, ("cuBLAS",))

UNQUANTIZED: Final = Method(
    "none",
    "W16A16",
    {},
    "none",
    vllm=VllmServing(_CUBLAS),
    summary="The baseline: weights, activations and cache in 16 bits.",
)
"""No quantization: a checkpoint's weights as they are."""
